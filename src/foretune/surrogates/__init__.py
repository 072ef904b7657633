"""FLOOR 2: what a run will give before it is run. So far: runs as numbers. numpy only."""

from foretune.surrogates.encode import Encoder
from foretune.surrogates.prefix import PREFIX_COLUMNS, prefix_features, prefixes

__all__ = ["PREFIX_COLUMNS", "Encoder", "prefix_features", "prefixes"]
