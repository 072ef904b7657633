"""Workers: processes that each run what nobody else runs; started together, listened to, and stopped together.

``Work`` is what they are to do. It answers all that is asked of it by whoever has it done (``Backend``): the processes
of this machine (``processes``), or actors on other ones (``ray_cluster``), which have no store to look into.

Each worker is one process with one thread on a CPU: two of them do a quarter more than one with two threads, and a
result does not depend on how many there are. What is to be run next is not handed out (``training.worker``), so two
commands on one store share the work, and a worker that is killed holds up nobody. It is replaced and its run is tried
again, ``TRIES`` times in all: then the run is a record that failed, since some runs kill whoever has them.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic

from foretune import errors
from foretune.errors import ForetuneError, Interrupted, ResourceError
from foretune.records import RunRecord
from foretune.store.claims import claim
from foretune.store.journal import JournalStore
from foretune.training.worker import RENEWED, J, now

PER_WEIGHT = 24
"""Bytes of a worker for each weight of the model: weights, gradients, two moments, and as much again for activations
and for what is evaluated; a plan for full tuning, the largest there is."""

BESIDE = 1_000_000_000
"""Bytes of a worker beside the model: libraries, tasks, texts."""

TRIES = 3
"""How often a run is tried whose workers die. Where so many runs in a row were given up, or so many workers for each
that was asked for died before their first run, something else is to blame, and nothing more is tried."""

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


@dataclass
class Deaths:
    """Of the workers of one command: which runs they had, and whether it is worth going on.

    They are counted by the command, and not beside the claims: a power cut or a machine that is taken away kills
    command and workers together, and says nothing against the runs that were under way.

    Attributes:
        count: of workers that were asked for.
        tried: digest -> how often the worker of that run died.
        given_up: runs that were given up since one last ended.
        unopened: workers that died before they had a run, since one last ended.
    """

    count: int
    tried: dict[str, int] = field(default_factory=dict)
    given_up: int = 0
    unopened: int = 0

    def ended(self) -> None:
        """A run ended: not every worker dies."""
        self.given_up = self.unopened = 0

    def again(self, job: Any) -> bool:
        """Count one more worker that died with ``job``; whether it is to be tried again."""
        self.tried[job.digest] = self.tried.get(job.digest, 0) + 1
        return self.tried[job.digest] < TRIES

    def give_up(self, job: Any) -> RunRecord:
        """The record of a run that is not tried again."""
        self.given_up += 1
        reason = f"its worker died {TRIES} times, as one does that takes more memory than there is"
        return RunRecord(job.config, "failed", error=reason, finished=now())

    @property
    def hopeless(self) -> bool:
        """Whether something else than a run is to blame."""
        return self.given_up >= TRIES or self.unopened >= TRIES * self.count


def processes(work: Work[Any], workers: int | None, tell: Callable[[Told], None]) -> ForetuneError | None:
    """The backend of this machine: worker processes."""
    return drive(work, min(len(work.missing()), workers or reasonable(work.weights)), tell)


def drive(work: Work[Any], count: int, tell: Callable[[Told], None]) -> ForetuneError | None:
    """Run ``count`` workers until they end; None, or what ended one of them before it was done.

    Args:
        work: whose ``module`` a worker is (``serve`` of ``training.worker``) and which ``asked`` it is told, as JSON;
            ``threads`` is added.
        tell: hears what the workers say.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM, once every worker has saved its state.
    """
    crew = _Crew(work, tell, Deaths(count))
    try:
        for number in range(count):
            crew.begin(number)
        while crew.processes and not crew.deaths.hopeless:
            crew.hear()
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What is done is in the store: the same command goes on.") from None
    finally:
        crew.stop()
    return crew.failed


@dataclass
class _Crew:
    """The workers of one command, by number.

    Attributes:
        has: number -> digest of the run that the worker has.
        told: those that said what ends them.
        failed: what ended one of them.
    """

    work: Work[Any]
    tell: Callable[[Told], None]
    deaths: Deaths
    processes: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    listeners: dict[int, threading.Thread] = field(default_factory=dict)
    said: queue.Queue[tuple[int, Told | None]] = field(default_factory=queue.Queue)
    has: dict[int, str] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    failed: ForetuneError | None = None

    def begin(self, number: int) -> None:
        """Start a worker, in the place of the one that ended where there was one."""
        process = _start(self.work.module, self.work.asked)
        listener = threading.Thread(target=_listen, args=(number, process, self.said), daemon=True)
        self.processes[number], self.listeners[number] = process, listener
        listener.start()

    def hear(self) -> None:
        """Wait for the next thing that a worker says, its end included, and go on from there."""
        number, told = self.said.get()
        if told is None:
            self._end(number)
        elif told["event"] == "error":
            self.failed = getattr(errors, told["type"], ForetuneError)(told["message"])
            self.told.add(number)
        else:
            if told["event"] == "begin":
                self.has[number] = told["digest"]
            elif told["event"] == "end":
                self.has.pop(number, None)
                self.deaths.ended()
            self.tell(told)

    def stop(self) -> None:
        """End all workers; the runs under way save their state."""
        _stop([*self.processes.values()], [*self.listeners.values()])

    def _end(self, number: int) -> None:
        process, had = self.processes.pop(number), self.has.pop(number, None)
        _stop([process], [self.listeners.pop(number)])
        if process.returncode == RENEWED:
            self.begin(number)
        elif process.returncode not in (0, Interrupted.exit_code) and number not in self.told:
            self._died(number, process.returncode, had)

    def _died(self, number: int, code: int, had: str | None) -> None:
        """Have its run tried again or given up, and another worker in its place."""
        if had is None:
            self.deaths.unopened += 1
        for job in self.work.missing():
            if job.digest == had and not self.deaths.again(job):
                self._give_up(job)
        if self.deaths.hopeless:
            self.failed = self.failed or _dying(code)
        elif self.work.missing():
            self.begin(number)

    def _give_up(self, job: Any) -> None:
        """Write the record of a run that is not tried again, unless somebody else is just trying it."""
        with claim(self.work.store.folder / "claims", job.digest) as mine:
            if mine and not self.work.finished(job):
                record = self.deaths.give_up(job)
                self.work.store.append(record)
                self.tell(self.work.event("end", job, record))


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


def _dying(code: int) -> ForetuneError:
    """Why nothing more is tried."""
    return ResourceError(
        f"Workers end with status {code} without ending a run, as a process does that takes more memory than there "
        "is. What is done is in the store: the same command goes on; use `--workers 1`, or a smaller batch."
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
