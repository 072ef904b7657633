"""What several rooms test in the same way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def kill_workers() -> Callable[..., None]:
    """``kill_workers(room, asked, warm, out, kills, seed)``: see ``killed_workers.py``."""

    def run(room: str, asked: Any, warm: Any, out: Path, kills: int, seed: int) -> None:
        plain = [json.dumps(each.to_json()) for each in (asked, warm)]
        words = [sys.executable, str(Path(__file__).with_name("killed_workers.py")), room, *plain]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        words += [str(out), str(kills), str(seed)]
        done = subprocess.run(words, capture_output=True, encoding="utf-8", env=env, timeout=280)
        assert done.returncode == 0, done.stderr

    return run
