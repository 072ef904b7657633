"""Work on the machines of a Ray cluster.

Nodes need not share a disk. What is asked travels to them as JSON, every node opens tasks and models itself, and it
must come to the very same runs (their digests say so); records travel back as JSON, files that stay as one archive, and
the driver alone writes the store. The driver holds the claim of every run under way, so other commands on the store
stay away from them. When it dies, Ray ends its workers, and what they had under way is run again by whoever is next.

A worker is an actor with one thread, which keeps libraries, tasks and tokenizers in memory, as ``training.worker``
does. One that dies is replaced, wherever the cluster has room, and its run is tried again (``workers.TRIES``).
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from foretune import errors
from foretune.errors import ForetuneError, Interrupted, ResourceError, StoreError, UsageError
from foretune.records import RunRecord
from foretune.store.claims import claim
from foretune.store.upgrade import load_record
from foretune.training.worker import GROWTH, PAUSE, resident
from foretune.training.workers import BESIDE, PER_WEIGHT, Backend, Deaths, Site, Told, Work


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
    """The actor: runs what it is told to, one run after another. Every answer is JSON, and the files that stay.

    Args:
        module: as of ``Work``.
        asked: JSON, with the ``digest`` of the work and the driver's folder ``cwd``.
    """

    def __init__(self, module: str, asked: str) -> None:
        self.module, self.asked = module, json.loads(asked)
        self.host = socket.gethostname()

    def open(self) -> Answer:
        """Open the work on this node."""
        return self._answer(self._open)

    def run(self, wanted: str) -> Answer:
        """The record of the run that ``wanted`` names, and whether this process has grown too large."""
        return self._answer(partial(self._run, json.loads(wanted)))

    def _open(self) -> tuple[dict[str, Any], bytes]:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if os.path.isdir(self.asked["cwd"]):  # what is named relative to it is found where disks are shared
            os.chdir(self.asked["cwd"])
        import peft  # noqa: F401 - loaded once for all runs
        import torch

        torch.set_num_threads(1)
        site, come_to = importlib.import_module(self.module).on_node(self.asked)
        if come_to != self.asked["digest"]:
            raise UsageError(
                "what is asked comes to other runs than on the machine of the command. Have the same data, the same "
                "models and the same foretune on every node."
            )
        self.site: Site = site
        self.first = resident()
        return {}, b""

    def _run(self, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        with tempfile.TemporaryDirectory(prefix="foretune-", ignore_cleanup_errors=True) as root:
            record, folder = self.site(wanted, Path(root))
            files = packed(folder) if folder and folder.exists() else b""
        return {"record": record.to_json(), "grown": resident() > self.first + GROWTH}, files

    def _answer(self, work: Callable[[], tuple[dict[str, Any], bytes]]) -> Answer:
        try:
            said, files = work()
            return json.dumps(said), files
        except Interrupted:  # the node is going down: for the driver this worker is dead
            os._exit(Interrupted.exit_code)
        except ForetuneError as error:
            return json.dumps({"error": type(error).__name__, "message": f"On the node `{self.host}`: {error}"}), b""


Answer = tuple[str, bytes]


def packed(folder: Path) -> bytes:
    """The files of ``folder`` as one archive."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return held.getvalue()


def unpack(files: bytes, folder: Path) -> None:
    """Make ``folder`` what was packed, whole or not at all; what was there is gone.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
            new = Path(beside) / "new"
            new.mkdir()
            with zipfile.ZipFile(io.BytesIO(files)) as archive:
                archive.extractall(new)
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
    except OSError as error:
        raise StoreError(
            f"`{folder}` cannot be written: {error.strerror or error}. Name another store with --store or "
            "FORETUNE_STORE."
        ) from error


@dataclass
class Call:
    """What an actor was asked; without a job, to open the plan.

    Attributes:
        held: the claim of the job; it is let go once the record is in the store, or the run has failed to give one.
    """

    actor: Any
    job: Any = None
    held: ExitStack = field(default_factory=ExitStack)


class Driver:
    """Hands runs out to actors and writes what comes back into the store.

    Args:
        ray: the library, connected.
        work: what is missing, and where it goes.
        start: a new actor, for which the cluster may have no room yet.
        count: of actors.
    """

    def __init__(
        self, ray: Any, work: Work[Any], tell: Callable[[Told], None], start: Callable[[], Any], count: int
    ) -> None:
        self.ray, self.work, self.tell, self.start = ray, work, tell, start
        self.deaths = Deaths(count)
        self.calls: dict[Any, Call] = {}
        self.idle: list[Any] = []
        self.waiting: deque[Any] = deque()
        self.failed: ForetuneError | None = None

    def drive(self) -> ForetuneError | None:
        """Run what is missing until nothing is, or until no actor can go on: then why."""
        try:
            for _ in range(self.deaths.count):
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
            self.waiting = deque(self.work.missing())
            if not self.waiting:
                return False
        while self.idle and self.waiting:
            job, held = self.waiting.popleft(), ExitStack()
            mine = held.enter_context(claim(self.work.store.folder / "claims", job.digest))
            if mine and not self.work.finished(job):
                actor = self.idle.pop()
                self.calls[actor.run.remote(json.dumps(self.work.wanted(job)))] = Call(actor, job, held)
                self.tell(self.work.event("begin", job))
            else:
                held.close()
        return True

    def _hear(self, answer: Any) -> None:
        """Go on after a call that ended, however it ended."""
        call = self.calls.pop(answer)
        with call.held:
            try:
                said, files = self.ray.get(answer)
                told = json.loads(said)
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
                self.deaths.ended()
                self._take(call.job, load_record(told["record"], f"the record of {call.job.digest}"), files)
            if told.get("grown"):
                self.ray.kill(call.actor)
                self._begin()
            else:
                self.idle.append(call.actor)

    def _take(self, job: Any, record: RunRecord, files: bytes = b"") -> None:
        if files and (folder := self.work.folder(job)):
            unpack(files, folder)
        self.work.store.append(record)
        self.tell(self.work.event("end", job, record))

    def _replace(self, call: Call, error: Exception) -> None:
        """An actor died, or its node: another one takes its place, and its run is tried again."""
        self.ray.kill(call.actor)
        if call.job is None:
            self.deaths.unopened += 1
        elif self.deaths.again(call.job):
            self.waiting.appendleft(call.job)
        else:
            self._take(call.job, self.deaths.give_up(call.job))
        if self.deaths.hopeless:
            raise ResourceError(
                f"Workers on Ray die without ending a run: {_first_line(error)}. See whether every node has foretune "
                "and memory enough. What is done is in the store: the same command goes on."
            )
        self._begin()


def _drive(
    ray: Any, address: str, work: Work[Any], workers: int | None, tell: Callable[[Told], None]
) -> ForetuneError | None:
    asked = json.dumps({**work.asked, "digest": work.digest, "cwd": os.getcwd()})
    try:
        with _cluster(ray, address):
            count, each = slots(ray.nodes(), work.weights)
            actor = ray.remote(**each)(Worker)
            count = min(len(work.missing()), workers or count)
            return Driver(ray, work, tell, partial(actor.remote, work.module, asked), count).drive()
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
