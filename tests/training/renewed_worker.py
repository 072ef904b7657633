"""A worker that holds more after each of its runs, and is killed by some. ``python -m renewed_worker``; not a test."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foretune.store.journal import JournalStore
from foretune.training import worker
from foretune.training.worker import Say, serve, share

HELD: list[int] = []


def work(asked: Mapping[str, Any], say: Say) -> None:
    folder = Path(asked["folder"])
    worker.resident = lambda: len(HELD) * (worker.GROWTH // 2 + 1)  # type: ignore[assignment]
    jobs = [SimpleNamespace(digest=digest) for digest in asked["jobs"]]
    store = JournalStore(folder)

    def finished(job: Any) -> bool:
        return (folder / job.digest).exists() or store.find(job.digest) is not None

    def run(job: Any) -> None:
        say({"event": "begin", "digest": job.digest})
        if (folder / f"{job.digest}.kills").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        HELD.append(1)
        (folder / job.digest).touch()
        say({"event": "end", "digest": job.digest, "nth": len(HELD)})

    share(folder / "claims", lambda: [job for job in jobs if not finished(job)], finished, run)


if __name__ == "__main__":
    serve(work)
