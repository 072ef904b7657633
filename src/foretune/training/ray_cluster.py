"""The runs of a collection on the machines of a Ray cluster.

Nodes need not share a disk. The plan travels to them as JSON, every node opens tasks and models itself, and it must
come to the very same runs (their digests say so); records travel back as JSON, and the driver alone writes the store.
The driver holds the claim of every run under way, so other commands on the store stay away from them. When it dies,
Ray ends its workers, and what they had under way is run again by whoever is next.

A worker is an actor with one thread, which keeps libraries, tasks and tokenizers in memory, as ``training.worker``
does. One that dies is replaced, wherever the cluster has room, and its run is tried again, ``TRIES`` times in all.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from foretune import errors
from foretune.collection.local import Backend
from foretune.collection.plan import CollectionPlan
from foretune.collection.runs import Job, Runs
from foretune.collection.worker import event, measured, outcome
from foretune.errors import ForetuneError, Interrupted, ResourceError, UsageError
from foretune.records import RunRecord, digest
from foretune.store.claims import claim
from foretune.store.upgrade import load_record
from foretune.training.worker import GROWTH, PAUSE, now, resident
from foretune.training.workers import BESIDE, PER_WEIGHT, Told

TRIES = 3
"""How often a run is tried whose workers die. Where so many runs in a row were given up, or so many workers for each
that was asked for died before their first run, something else is to blame, and nothing more is tried."""


def on_ray(address: str = "auto") -> Backend:
    """The backend of a Ray cluster.

    Args:
        address: of a running one, as ``ray.init`` takes it. ``auto`` is the one that ``RAY_ADDRESS`` names or that
            ``ray start`` began on this machine; where there is none, one of this machine alone, for the command only.

    Raises:
        UsageError: Ray is not installed.
    """
    return partial(_drive, _ray(), address)


def slots(nodes: Sequence[Mapping[str, Any]], weights: int) -> tuple[int, dict[str, float]]:
    """How many workers for a model of ``weights`` a cluster bears, and what each reserves.

    One for each core, as memory allows; where any node has a GPU one for each GPU, for seconds are compared later.

    Args:
        nodes: as of ``ray.nodes``.

    Raises:
        ResourceError: not even one.

    >>> nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "memory": 5e9}}, {"Alive": True, "Resources": {"CPU": 2.0}}]
    >>> slots(nodes, 22_700_000)
    (3, {'num_cpus': 1, 'num_gpus': 0, 'memory': 1544800000})
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    bytes_each = weights * PER_WEIGHT + BESIDE
    unit = "GPU" if any(node.get("GPU", 0) >= 1 for node in alive) else "CPU"
    bearing = [min(node.get(unit, 0), node.get("CPU", 0), node.get("memory", 0) // bytes_each) for node in alive]
    if not (count := sum(map(int, bearing))):
        raise ResourceError(
            f"A worker needs a core and {bytes_each / 1e9:.1f} GB of memory on one node, but none of the {len(alive)} "
            "nodes of the Ray cluster has both. Join larger nodes, or leave `--ray` out."
        )
    return count, {"num_cpus": 1, "num_gpus": int(unit == "GPU"), "memory": bytes_each}


class Worker:
    """The actor: runs what it is told to, one run after another. Every answer is JSON.

    Args:
        asked: JSON with ``plan``, ``data_dir``, the driver's folder ``cwd``, and ``digest`` over all runs.
    """

    def __init__(self, asked: str) -> None:
        self.asked = json.loads(asked)
        self.host = socket.gethostname()

    def open(self) -> str:
        """Open the plan on this node."""
        return self._answer(self._open)

    def run(self, wanted: str) -> str:
        """The record of the run with the digest ``wanted``, and whether this process has grown too large."""
        return self._answer(partial(self._run, wanted))

    def _open(self) -> dict[str, Any]:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if os.path.isdir(self.asked["cwd"]):  # what the plan names relative to it is found where disks are shared
            os.chdir(self.asked["cwd"])
        import peft  # noqa: F401 - loaded once for all runs
        import torch

        torch.set_num_threads(1)
        plan = CollectionPlan.from_json(self.asked["plan"])
        self.runs = Runs(plan, Path(tempfile.gettempdir()), self.asked["data_dir"])
        self.jobs = {job.digest: job for job in self.runs.jobs}
        if digest(list(self.jobs)) != self.asked["digest"]:
            raise UsageError(
                "the plan comes to other runs than on the machine of the command. Have the same data, the same models "
                "and the same foretune on every node."
            )
        self.first = resident()
        return {}

    def _run(self, wanted: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="foretune-", ignore_cleanup_errors=True) as root:
            record = measured(replace(self.runs, root=Path(root)), self.jobs[wanted])
        return {"record": record.to_json(), "grown": resident() > self.first + GROWTH}

    def _answer(self, work: Callable[[], dict[str, Any]]) -> str:
        try:
            return json.dumps(work())
        except Interrupted:  # the node is going down: for the driver this worker is dead
            os._exit(Interrupted.exit_code)
        except ForetuneError as error:
            return json.dumps({"error": type(error).__name__, "message": f"On the node `{self.host}`: {error}"})


@dataclass
class Call:
    """What an actor was asked; without a job, to open the plan.

    Attributes:
        held: the claim of the job; it is let go once the record is in the store, or the run has failed to give one.
    """

    actor: Any
    job: Job | None = None
    held: ExitStack = field(default_factory=ExitStack)


class Driver:
    """Hands runs out to actors and writes what comes back into the store.

    Args:
        ray: the library, connected.
        start: a new actor, for which the cluster may have no room yet.
        count: of actors.
    """

    def __init__(
        self, ray: Any, runs: Runs, tell: Callable[[Told], None], start: Callable[[], Any], count: int
    ) -> None:
        self.ray, self.runs, self.tell, self.start, self.count = ray, runs, tell, start, count
        self.calls: dict[Any, Call] = {}
        self.idle: list[Any] = []
        self.waiting: deque[Job] = deque()
        self.tried: dict[str, int] = {}
        self.given_up = self.unopened = 0
        self.failed: ForetuneError | None = None

    def drive(self) -> ForetuneError | None:
        """Run what is missing until nothing is, or until no actor can go on: then why."""
        try:
            for _ in range(self.count):
                self._begin()
            while self.calls or self.idle:
                if self.idle and not self._hand_out():
                    break
                if not self.calls:  # others are running what is missing
                    time.sleep(PAUSE)
                    continue
                ended, _ = self.ray.wait(list(self.calls), timeout=PAUSE)
                for answer in ended:
                    self._hear(answer)
            return self.failed
        finally:
            for actor in [*self.idle, *(call.actor for call in self.calls.values())]:
                self.ray.kill(actor)
            for call in self.calls.values():
                call.held.close()

    def _begin(self) -> None:
        actor = self.start()
        self.calls[actor.open.remote()] = Call(actor)

    def _hand_out(self) -> bool:
        """Give every idle actor a run, as far as there are some that nobody has; False when nothing is missing."""
        if not self.waiting:
            self.waiting = deque(self.runs.missing())
            if not self.waiting:
                return False
        while self.idle and self.waiting:
            job, held = self.waiting.popleft(), ExitStack()
            if held.enter_context(claim(self.runs.root / "claims", job.digest)) and not self.runs.finished(job):
                actor = self.idle.pop()
                self.calls[actor.run.remote(job.digest)] = Call(actor, job, held)
                self.tell(event("begin", job))
            else:
                held.close()
        return True

    def _hear(self, answer: Any) -> None:
        """Go on after a call that ended, however it ended."""
        call = self.calls.pop(answer)
        with call.held:
            try:
                told = json.loads(self.ray.get(answer))
            except self.ray.exceptions.RayTaskError as error:
                told = {"error": "ForetuneError", "message": f"A worker failed: {error.cause!r}."}
            except self.ray.exceptions.RayError as error:
                self._replace(call, error)
                return
            if "error" in told:
                self.failed = getattr(errors, told["error"], ForetuneError)(told["message"])
                self.ray.kill(call.actor)
                return
            if call.job is not None:
                self.given_up = self.unopened = 0
                self._take(call.job, load_record(told["record"], f"the record of {call.job.digest}"))
            if told.get("grown"):
                self.ray.kill(call.actor)
                self._begin()
            else:
                self.idle.append(call.actor)

    def _take(self, job: Job, record: RunRecord) -> None:
        self.runs.store.append(record)
        self.tell(event("end", job, **outcome(record)))

    def _replace(self, call: Call, error: Exception) -> None:
        """An actor died, or its node: another one takes its place, and its run is tried again."""
        self.ray.kill(call.actor)
        if call.job is None:
            self.unopened += 1
        else:
            self._again(call.job)
        if self.given_up >= TRIES or self.unopened >= TRIES * self.count:
            raise ResourceError(
                f"Workers on Ray die without ending a run: {_first_line(error)}. See whether every node has foretune "
                "and memory enough. What is done is in the store: the same command goes on."
            )
        self._begin()

    def _again(self, job: Job) -> None:
        """Put a run back whose worker died, or give it up."""
        self.tried[job.digest] = tried = self.tried.get(job.digest, 0) + 1
        if tried < TRIES:
            self.waiting.appendleft(job)
            return
        self.given_up += 1
        reason = f"its worker died {TRIES} times, as one does that takes more memory than there is"
        self._take(job, RunRecord(job.config, "failed", error=reason, finished=now()))


def _drive(
    ray: Any, address: str, runs: Runs, workers: int | None, tell: Callable[[Told], None]
) -> ForetuneError | None:
    asked = {
        "plan": runs.plan.to_json(),
        "data_dir": runs.data_dir,
        "cwd": os.getcwd(),
        "digest": digest([job.digest for job in runs.jobs]),
    }
    heaviest = max(runs.checkpoint(cell).parameters for cell in runs.cells)
    try:
        with _cluster(ray, address):
            count, each = slots(ray.nodes(), heaviest)
            actor = ray.remote(**each)(Worker)
            count = min(len(runs.missing()), workers or count)
            return Driver(ray, runs, tell, partial(actor.remote, json.dumps(asked)), count).drive()
    except KeyboardInterrupt:
        raise Interrupted("Stopped. What is done is in the store: the same command goes on.") from None
    except ray.exceptions.RayError as error:
        raise ResourceError(
            f"The Ray cluster is lost: {_first_line(error)}. What is done is in the store: the same command goes on."
        ) from error


@contextmanager
def _cluster(ray: Any, address: str) -> Iterator[None]:
    """Join the cluster, or be one; a program that has joined one before keeps to it."""
    if ray.is_initialized():
        yield
        return
    try:
        _join(ray, None if address == "auto" else address)
        yield
    finally:
        ray.shutdown()


def _join(ray: Any, address: str | None) -> None:
    """``ray.init``, quietly. Its ``auto`` would also find a cluster that another command started for itself alone."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    on_terminate, named = signal.getsignal(signal.SIGTERM), address or os.environ.get("RAY_ADDRESS", "")
    try:
        host, _, port = named.rpartition(":")
        if port.isdigit() and "://" not in named:  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"The Ray cluster `{named or 'of this machine'}` cannot be joined: "
            f"{_first_line(error)}. Start it, name another one with `--ray HOST:PORT`, or leave the option out."
        ) from error
    if threading.current_thread() is threading.main_thread():  # Ray has put a handler of its own in its place
        signal.signal(signal.SIGTERM, on_terminate or signal.SIG_DFL)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UsageError(
            "`--ray` needs Ray, which is not installed. Install it with `pip install 'foretune[ray]'`, or leave the "
            "option out for the processes of this machine."
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
