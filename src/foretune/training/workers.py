"""Workers: processes that each run what nobody else runs; started together, listened to, and stopped together.

``Work`` is what they are to do. It answers all that is asked of it by whoever has it done (``Backend``): the processes
of this machine (``processes``), or actors on other ones (``ray_cluster``), which have no store to look into.

Each worker is one process with one thread on a CPU: two of them do a quarter more than one with two threads, and a
result does not depend on how many there are. What is to be run next is not handed out (``training.worker``), so two
commands on one store share the work, and a worker that is killed holds up nobody.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic

from foretune import errors
from foretune.errors import ForetuneError, Interrupted, ResourceError
from foretune.records import RunRecord
from foretune.store.journal import JournalStore
from foretune.training.worker import RENEWED, J

PER_WEIGHT = 24
"""Bytes of a worker for each weight of the model: weights, gradients, two moments, and as much again for activations
and for what is evaluated; a plan for full tuning, the largest there is."""

BESIDE = 1_000_000_000
"""Bytes of a worker beside the model: libraries, tasks, texts."""

Told = dict[str, Any]
"""What a worker says: one JSON object with an ``event``."""


class Work(ABC, Generic[J]):
    """The runs of a collection or of a comparison, as those who have them done see them: jobs, each with a ``config``.

    Attributes:
        module: of a worker. As a program it serves (``worker.serve``); its ``on_node(asked)`` opens the work where
            there is no store, and gives a ``Site`` and its ``digest``.
    """

    module: ClassVar[str]

    @property
    @abstractmethod
    def store(self) -> JournalStore:
        """Where the records go; beside it lie the claims."""

    @property
    @abstractmethod
    def asked(self) -> dict[str, Any]:
        """What a worker is told, as plain data."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Of all runs: the same wherever data and models are, and what ``on_node`` must come to."""

    @property
    @abstractmethod
    def weights(self) -> int:
        """Of the largest model."""

    @abstractmethod
    def missing(self) -> Sequence[J]:
        """What is to be run, in the order in which it is tried."""

    @abstractmethod
    def finished(self, job: J) -> bool:
        """Whether one of them has been run meanwhile."""

    @abstractmethod
    def wanted(self, job: J) -> dict[str, Any]:
        """A run as plain data, by which a ``Site`` knows it."""

    @abstractmethod
    def event(self, kind: str, job: J, record: RunRecord | None = None) -> Told:
        """What is told of a run: ``begin``, or ``end`` with its record."""

    @abstractmethod
    def folder(self, job: J) -> Path | None:
        """Where the files of a run stay beside its record; None: they do not."""


Site = Callable[[Mapping[str, Any], Path], tuple[RunRecord, Path | None]]
"""Work that was opened on another machine: runs what ``Work.wanted`` names, in a folder that is removed afterwards.

Gives its record, and the folder of those of its files that stay."""

Backend = Callable[[Work[Any], int | None, Callable[[Told], None]], ForetuneError | None]
"""Runs what is missing on so many workers (None: as many as it bears), telling what they do; None when nothing is left
to do, or what ended a worker before that."""


def processes(work: Work[Any], workers: int | None, tell: Callable[[Told], None]) -> ForetuneError | None:
    """The backend of this machine: worker processes."""
    count = min(len(work.missing()), workers or reasonable(work.weights))
    return drive(work.module, work.asked, count, tell)


def drive(module: str, asked: Mapping[str, Any], count: int, tell: Callable[[Told], None]) -> ForetuneError | None:
    """Run ``count`` workers until they end; None, or what ended one of them before it was done.

    Args:
        module: whose ``main`` a worker is: ``serve`` of ``training.worker``.
        asked: what it is told, as JSON; ``threads`` is added.
        tell: hears what the workers say.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, once every worker has saved its state.
    """
    said: queue.Queue[tuple[int, Told | None]] = queue.Queue()
    processes: dict[int, subprocess.Popen[str]] = {}
    listeners: dict[int, threading.Thread] = {}

    def begin(number: int) -> None:
        if number in processes:
            _stop([processes[number]], [listeners[number]])
        processes[number] = _start(module, asked)
        listeners[number] = threading.Thread(target=_listen, args=(number, processes[number], said), daemon=True)
        listeners[number].start()

    failed: ForetuneError | None = None
    running = set(range(count))
    try:
        for number in running:
            begin(number)
        while running:
            number, told = said.get()
            if told is None and processes[number].returncode == RENEWED:
                begin(number)
            elif told is None:
                running.discard(number)
                failed = failed or _ended(processes[number])
            elif told["event"] == "error":
                failed = getattr(errors, told["type"], ForetuneError)(told["message"])
            else:
                tell(told)
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What is done is in the store: the same command goes on.") from None
    finally:
        _stop([*processes.values()], [*listeners.values()])
    return failed


def reasonable(weights: int) -> int:
    """How many workers for a model of ``weights`` this machine bears: one for each core, as memory allows; one where
    there is a GPU."""
    import psutil
    import torch

    if torch.cuda.is_available():
        return 1
    fitting = psutil.virtual_memory().available // (weights * PER_WEIGHT + BESIDE)
    return max(1, min(os.cpu_count() or 1, fitting))


def _start(module: str, asked: Mapping[str, Any]) -> subprocess.Popen[str]:
    """A worker in a session of its own: a Ctrl-C at the terminal reaches it through us, as the end of its input."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    surroundings = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=surroundings,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**asked, "threads": int(threads)}) + "\n")
    process.stdin.flush()
    return process


def _listen(number: int, process: subprocess.Popen[str], said: queue.Queue[Any]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            told = json.loads(line)
        except ValueError:  # a library that prints
            continue
        if isinstance(told, Mapping) and "event" in told:
            said.put((number, dict(told)))
    process.wait()
    said.put((number, None))


def _ended(process: subprocess.Popen[str]) -> ForetuneError | None:
    """Why a worker ended, where it said nothing itself."""
    code = process.returncode
    if code in (0, Interrupted.exit_code):
        return None
    return ResourceError(
        f"A worker ended with status {code} in the middle of a run, as a process does that takes more memory than "
        "there is. What is done is in the store: the same command goes on; use `--workers 1`, or a smaller batch."
    )


def _stop(processes: list[subprocess.Popen[str]], listeners: list[threading.Thread]) -> None:
    """Close every input, and wait for the runs under way to save their state."""
    for process in processes:
        assert process.stdin is not None
        try:
            process.stdin.close()
        except OSError:
            continue
    for process, listener in zip(processes, listeners, strict=True):
        assert process.stdout is not None
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        listener.join()
        process.stdout.close()
