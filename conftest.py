"""The surroundings of every test: one thread per process, no network, a store that is not the developer's own, and no
shipped runs, so that what is recommended does not change with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "foretune", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("foretune")
"""No property fails because a machine is busy; what CI finds, it finds again. At home every call searches anew."""


collect_ignore_glob = ["*/conftest.py"]
"""They hold no examples, and under one name each the search for examples would take one for another."""


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports torch. What the developer has set stays.

    Where a shell started this in the background Ctrl-C is ignored, and processes that tests start would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("FORETUNE_BUNDLED", "none")
    if "FORETUNE_STORE" not in os.environ:
        store = tempfile.TemporaryDirectory(prefix="foretune-store-")
        os.environ["FORETUNE_STORE"] = store.name
        config.add_cleanup(store.cleanup)


@pytest.fixture(scope="session")
def kill_workers() -> Callable[..., None]:
    """``kill_workers(room, asked, warm, out, kills, seed)``: see ``killed_workers.py``."""

    def run(room: str, asked: Any, warm: Any, out: Path, kills: int, seed: int) -> None:
        plain = [json.dumps(each.to_json()) for each in (asked, warm)]
        words = [sys.executable, str(Path(__file__).parent / "tests" / "killed_workers.py"), room, *plain]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        words += [str(out), str(kills), str(seed)]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", env=env, timeout=280)
        assert done.returncode == 0, done.stderr

    return run
