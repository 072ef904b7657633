"""One worker: takes the next run that nobody has, runs it, and sees that there is a record, until nothing is missing.

A worker reads what to do as one line of JSON from its input and says what it does as lines of JSON. When its input
ends, which the death of the process that started it brings about too, it stops as Ctrl-C would: at the next step, with
its state saved. Libraries, tasks and tokenizers are loaded once for all its runs, and the weights of the model lie in
the memory that the operating system keeps of the file.
"""

from __future__ import annotations

import datetime as dt
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from foretune.errors import ForetuneError, Interrupted
from foretune.records import RunConfig, RunRecord
from foretune.store.claims import claim
from foretune.store.folder import RUN_FILE, read_run

Say = Callable[[Mapping[str, Any]], None]

PAUSE = 0.5
"""Seconds between two looks at what others are running."""

GROWTH = 1_000_000_000
"""Bytes by which a worker may have grown since its first run before another one takes its place."""

RENEWED = 75
"""The status with which a worker ends that has grown: whoever started it starts another."""


class Named(Protocol):
    """Whatever can be claimed."""

    @property
    def digest(self) -> str:
        """Its identity."""


J = TypeVar("J", bound=Named)


def share(
    claims: Path, missing: Callable[[], Sequence[J]], finished: Callable[[J], bool], run: Callable[[J], None]
) -> None:
    """Run what is missing until nothing is, or until what is missing is being run by others, and wait for that.

    Args:
        claims: folder of the claims, one for all who share the work.
        missing: what is to be run, in the order in which it is tried.
        finished: whether one of them has been run meanwhile.
        run: does it; afterwards it is finished.

    Raises:
        SystemExit: with ``RENEWED``, between two runs, where the memory of earlier ones does not come back.
    """
    first: int | None = None
    while waiting := missing():
        ran = False
        for job in waiting:
            with claim(claims, job.digest) as mine:
                if mine and not finished(job):
                    run(job)
                    ran, held = True, resident()
                    first = held if first is None else first
                    if held > first + GROWTH:
                        sys.exit(RENEWED)
        if not ran:
            time.sleep(PAUSE)


def attempt(config: RunConfig, folder: Path, run: Callable[[], RunRecord]) -> RunRecord:
    """The record of ``run``, or the one in ``folder`` where the run had ended before the store knew.

    Whatever goes wrong, there is a record.

    Args:
        config: what is run, with every fingerprint filled in.
        folder: where ``run`` writes and goes on.

    Raises:
        Interrupted, KeyboardInterrupt, SystemExit: by the user; ``folder`` holds what is needed to go on.
    """
    record = _unrecorded(folder, config)
    if record is not None:
        return record
    _tidy()
    try:
        return run()
    except (Interrupted, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # a failed run is a record, whatever failed in it
        return _failed(folder, config, error)


def serve(work: Callable[[Mapping[str, Any], Say], None]) -> None:
    """Be a worker: see the module.

    Args:
        work: gets what was asked, and ``say``.
    """
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_with_input, daemon=True).start()

    def say(event: Mapping[str, Any]) -> None:
        print(json.dumps(event), flush=True)

    import peft  # noqa: F401 - loaded once, and then left alone by every collection of garbage
    import torch

    torch.set_num_threads(asked["threads"])
    gc.freeze()
    try:
        work(asked, say)
    except (Interrupted, KeyboardInterrupt):
        sys.exit(Interrupted.exit_code)
    except ForetuneError as error:
        say({"event": "error", "type": type(error).__name__, "message": str(error)})
        sys.exit(error.exit_code)


def now() -> str:
    """The time in records."""
    return dt.datetime.now(dt.UTC).isoformat()


def _unrecorded(folder: Path, config: RunConfig) -> RunRecord | None:
    """A run that had ended when its worker was killed, before the store knew."""
    if not (folder / RUN_FILE).exists():
        return None
    try:
        record = read_run(folder)
    except ForetuneError:
        return None
    return record if record.status == "ok" and record.digest == config.digest else None


def _failed(folder: Path, config: RunConfig, error: Exception) -> RunRecord:
    """The record that ``train`` left, or one of our own where it could not even begin."""
    if (folder / RUN_FILE).exists():
        record = read_run(folder)
        if record.digest == config.digest and record.status not in ("ok", "running"):
            return record
    return RunRecord(config, "failed", error=f"{type(error).__name__}: {error}", finished=now())


def resident() -> int:
    """Bytes that this process holds once what is free was given back."""
    import psutil

    _tidy()
    return int(psutil.Process().memory_info().rss)


def _tidy() -> None:
    """Give freed memory back, so that the next run's peak is measured from where a fresh process would begin."""
    import ctypes

    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except AttributeError:  # not glibc
            return


def _stop_with_input() -> None:
    """Wait for the end of the input, then stop this process as SIGTERM does."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)
