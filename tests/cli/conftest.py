"""``foretune(...)``: the command line in a real process, with a store and a cache of its own; tiny data and models."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def surroundings(folder: Path, **env: str) -> dict[str, str]:
    """The environment of a command that is run in ``folder``."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FORETUNE_")},
        "FORETUNE_STORE": str(folder / "store"),
        "FORETUNE_BUNDLED": "none",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONIOENCODING": "utf-8",
        **env,
    }


def run(
    folder: Path, *words: str | Path, env: dict[str, str] | None = None, timeout: float = 240, **options: Any
) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m foretune`` with the words given; ``env`` adds to the environment. No traceback is ever fine."""
    done = subprocess.run(
        [sys.executable, "-m", "foretune", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env=surroundings(folder, **(env or {})),
        cwd=folder,
        timeout=timeout,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def foretune(tmp_path: Path) -> Command:
    """The command line in the test's own folder."""
    return partial(run, tmp_path)


@pytest.fixture(scope="session")
def run_in() -> Command:
    """The command line in any folder: the first argument."""
    return run


@pytest.fixture(scope="session")
def start_in() -> Callable[..., "subprocess.Popen[str]"]:
    """A command in a folder and a process group of its own, still running; stdout and stderr are pipes."""

    def start(folder: Path, *words: str | Path) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "foretune", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=surroundings(folder),
            cwd=folder,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder."""
    from foretune.testing import toys

    return toys.checkpoint(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Write rows (dicts) as a CSV file of the test's folder."""
    from foretune.testing import toys

    return lambda rows, name="data.csv": toys.table(tmp_path / name, rows)


@pytest.fixture
def refuses(foretune: Command) -> Callable[..., str]:
    """Run a command that must fail with this exit code and one line on stderr that has every part of ``says``."""

    def check(code: int, *words: str | Path, says: Iterable[str]) -> str:
        done = foretune(*words)
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines)) == (code, 1), done.stderr
        assert lines[0].startswith("Error: ")
        for part in says:
            assert part in lines[0]
        return lines[0]

    return check
