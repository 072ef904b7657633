"""A worker that holds more after each of its runs. ``python -m renewed_worker``; not a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from foretune.training import worker
from foretune.training.worker import Say, serve, share

HELD: list[int] = []


def work(asked: Mapping[str, Any], say: Say) -> None:
    folder = Path(asked["folder"])
    worker.resident = lambda: len(HELD) * (worker.GROWTH // 2 + 1)  # type: ignore[assignment]
    jobs = [SimpleNamespace(digest=str(number)) for number in range(asked["jobs"])]

    def run(job: Any) -> None:
        HELD.append(1)
        (folder / job.digest).touch()
        say({"event": "end", "job": job.digest, "nth": len(HELD)})

    share(
        folder / "claims",
        lambda: [job for job in jobs if not (folder / job.digest).exists()],
        lambda job: (folder / job.digest).exists(),
        run,
    )


if __name__ == "__main__":
    serve(work)
