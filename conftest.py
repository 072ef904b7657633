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
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes with one core each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            made.add_node(num_cpus=1)
            yield made.address
        finally:
            made.shutdown()


@pytest.fixture(scope="session")
def running() -> Callable[[], psutil.Process]:
    """``running()``: an actor of the test's own cluster in the middle of a run, once there is one."""

    def find() -> psutil.Process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if "ray::Worker.run" in " ".join(child.cmdline()):
                        return child
            time.sleep(0.01)
        raise AssertionError("no worker has begun a run")

    return find


@pytest.fixture
def killing(running: Callable[[], psutil.Process]) -> Iterator[tuple[list[Any], Callable[[Any], None]]]:
    """``(events, watch)``: ``watch`` keeps every event, and has the worker killed whose run is under way first."""
    events: list[Any] = []
    killer = threading.Thread(target=lambda: running().kill())

    def watch(event: Any) -> None:
        events.append(event)
        if len(events) == 1:
            killer.start()

    yield events, watch
    if events:
        killer.join()


@pytest.fixture(scope="session")
def kill_workers() -> Callable[..., int]:
    """``kill_workers(room, asked, warm, out, kills, seed)``: see ``killed_workers.py``; how often it killed."""

    def run(room: str, asked: Any, warm: Any, out: Path, kills: int, seed: int) -> int:
        plain = [json.dumps(each.to_json()) for each in (asked, warm)]
        words = [sys.executable, str(Path(__file__).parent / "tests" / "killed_workers.py"), room, *plain]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        words += [str(out), str(kills), str(seed)]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", env=env, timeout=280)
        assert done.returncode == 0, done.stderr
        killed: int = json.loads(done.stdout.splitlines()[-1])["kills"]
        return killed

    return run
