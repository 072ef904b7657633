"""``foretune(...)``: the command line in a real process, with a store and a cache of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def foretune(tmp_path: Path) -> Command:
    """Run ``python -m foretune`` with the words given; ``env`` adds to the environment. No traceback is ever fine."""

    def run(*words: str | Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        surroundings = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FORETUNE_")},
            "FORETUNE_STORE": str(tmp_path / "store"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONIOENCODING": "utf-8",
            **(env or {}),
        }
        done = subprocess.run(
            [sys.executable, "-m", "foretune", *map(str, words)],
            capture_output=True,
            encoding="utf-8",
            env=surroundings,
            cwd=tmp_path,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run
