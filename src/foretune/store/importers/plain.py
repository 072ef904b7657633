"""Nested settings -> name and plain value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from foretune.records import Value


def plain_config(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Value]:
    """Mappings become dotted names, lists sorted words joined by ``+``; what is None or empty is absent.

    >>> plain_config({"lr": 0.1, "targets": ["v", "q"], "extra": {"b": None, "c": 1}})
    {'lr': 0.1, 'targets': 'q+v', 'extra.c': 1}
    """
    out: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= plain_config(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple | set):
            if value:
                out[prefix + name] = "+".join(sorted(map(str, value)))
        elif isinstance(value, str | int | float):
            out[prefix + name] = value
    return out
