"""The surroundings of every test: one thread per process, no network, a store that is not the developer's own, and no
shipped runs, so that what is recommended does not change with them."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "foretune", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("foretune")
"""No property fails because a machine is busy; what CI finds, it finds again. At home every call searches anew."""


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports torch. What the developer has set stays."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("FORETUNE_BUNDLED", "none")
    if "FORETUNE_STORE" not in os.environ:
        store = tempfile.TemporaryDirectory(prefix="foretune-store-")
        os.environ["FORETUNE_STORE"] = store.name
        config.add_cleanup(store.cleanup)
