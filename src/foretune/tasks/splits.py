"""k-shot draws by seed: train and dev are both paid for out of the k, never out of test.

Every training row gets one random key from the task's own stream, ``PCG64(hash64(fingerprint, "sample", seed))``, and a
class is drawn in the order of its keys. Positions in that order decide everything, so draws nest by construction:

- the k-shot set of a class is its first k rows; position i belongs to dev where ``dev_count``, that is
  ``min(round(k f), k - 1)``, steps up from k = i to i + 1. So the labelled, the train and the dev set of k lie within
  those of every larger k;
- without ``shots`` all rows are drawn, and dev holds ``round(n f)`` rows, shared out over the classes by size;
- a dev split of the source pays too: with ``shots``, its first ``dev_count`` rows per class are used and train gives
  the rest; without, all of it is used and nothing of train is taken away;
- test is the source's whole test split; without one, ``round(n f_test)`` rows of train by a stream that does not know
  ``seed``: runs of several seeds are judged on the same rows, as paired and crossed intervals need.

Before any of this, rows of train that repeat an evaluation row (dev, test, out of domain), or an earlier row of train,
leave the pool; ``Draw.notes`` says which. The stream is a fingerprint of the splits without the out-of-domain sets: to
add one changes no draw, but for the rows it shares. The global generators of Python, NumPy and torch are never touched.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from foretune.errors import DataError, UsageError
from foretune.tasks.checks import name_rows
from foretune.tasks.keys import digest_rows, hash64, row_keys
from foretune.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Draw:
    """The rows of one run.

    Attributes:
        train, dev, test: tables with ``SPLIT_COLUMNS``, rows in the order of the source; dev may be empty.
        ids: split -> row numbers in the source.
        sha256: over the contents of the three tables.
        removed: ``leaks`` (rows of train that repeat an evaluation row) and ``repeats`` (of an earlier row of train).
        notes: what a reader should know about this draw, as sentences.
    """

    train: pa.Table
    dev: pa.Table
    test: pa.Table
    ids: dict[str, list[int]]
    sha256: str
    removed: Mapping[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def draw(
    task: Task, *, shots: int | None = None, dev_fraction: float = 0.25, test_fraction: float = 0.2, seed: int = 0
) -> Draw:
    """Draw train, dev and test; see the module's docstring for the rule.

    Args:
        task: what to draw from; it is not changed.
        shots: labelled rows per class (in total where there are no classes), dev included; None is all.
        dev_fraction: the share of the labelled rows that pays for selection, 0 <= f < 1.
        test_fraction: the share of train held out where the source has no test split, 0 < f < 1.
        seed: equal seeds give equal draws.

    Raises:
        UsageError: a number outside its range.
        DataError: a class with fewer than ``shots`` usable rows, or a pool that is empty.
    """
    _check_numbers(shots, dev_fraction, test_fraction)
    train = task.splits["train"]
    classes = _classes(task, train)
    keys = row_keys(train)
    leaks, repeats = _copies(task, keys)
    pool = np.setdiff1d(np.arange(train.num_rows), [*leaks, *repeats])
    notes = _removal_notes(train, leaks, repeats)
    if not len(pool):
        raise DataError(
            f"{task.name}: every training row is a copy of an evaluation row. Give other rows to one of them."
        )
    if "test" in task.splits:
        test = task.splits["test"]
    else:
        test_rows = _hold_out(pool, classes, test_fraction, hash64(task.draw_key, "test"))
        pool = np.setdiff1d(pool, test_rows)
        test = train.take(test_rows)
        notes.append(f"test: {test.num_rows:,} rows of train, held out; the same ones for every seed.")
    ranks = _random_order(task.draw_key, "sample", seed, train.num_rows)
    ordered = [pool[classes[pool] == c] for c in range(_count(task))]
    ordered = [rows[np.argsort(ranks[rows], kind="stable")] for rows in ordered]
    _check_classes_left(task, ordered)
    if "dev" in task.splits:
        chosen, dev = _with_given_dev(task, ordered, shots, dev_fraction, seed)
    else:
        _check_enough(task, [len(rows) for rows in ordered], shots)
        chosen, dev_rows = _cut_dev(ordered, shots, dev_fraction)
        dev = train.take(dev_rows)
    if not dev.num_rows:
        notes.append(
            "dev: empty, so no checkpoint can be chosen by its score; raise `--shots` or the dev fraction for that."
        )
    parts = {"train": train.take(np.sort(chosen)), "dev": dev, "test": test}
    sha256 = hashlib.sha256("".join(map(digest_rows, parts.values())).encode()).hexdigest()
    ids = {name: table["row"].to_pylist() for name, table in parts.items()}
    named = {"leaks": _row_numbers(train, leaks), "repeats": _row_numbers(train, repeats)}
    return Draw(**parts, ids=ids, sha256=sha256, removed=named, notes=tuple(notes))


def _check_numbers(shots: int | None, dev_fraction: float, test_fraction: float) -> None:
    if shots is not None and shots < 1:
        raise UsageError(f"`shots` must be at least 1, but got {shots}.")
    if not 0 <= dev_fraction < 1:
        raise UsageError(f"`0 <= dev_fraction < 1` must hold, but got {dev_fraction}.")
    if not 0 < test_fraction < 1:
        raise UsageError(f"`0 < test_fraction < 1` must hold, but got {test_fraction}.")


def _count(task: Task) -> int:
    return len(task.schema.labels) or 1


def _classes(task: Task, table: pa.Table) -> np.ndarray:
    """The class of every row, int64 ``(n,)``; all 0 where the task has no classes."""
    return task.targets(table) if task.schema.labels else np.zeros(table.num_rows, np.int64)


def _copies(task: Task, keys: Sequence[bytes]) -> tuple[list[int], list[int]]:
    """Positions in train that repeat an evaluation row, and of the others those that repeat an earlier one."""
    held = [task.splits[name] for name in ("dev", "test") if name in task.splits]
    evaluated = {key for table in (*held, *task.ood.values()) for key in row_keys(table)}
    seen: set[bytes] = set()
    leaks, repeats = [], []
    for i, key in enumerate(keys):
        if key in evaluated:
            leaks.append(i)
        elif key in seen:
            repeats.append(i)
        seen.add(key)
    return leaks, repeats


def _row_numbers(table: pa.Table, positions: Sequence[int]) -> list[int]:
    numbers: list[int] = table["row"].take(pa.array(positions, pa.int64())).to_pylist()
    return numbers


def _removal_notes(train: pa.Table, leaks: Sequence[int], repeats: Sequence[int]) -> list[str]:
    notes = []
    if leaks:
        named = name_rows(_row_numbers(train, leaks))
        notes.append(f"train: not drawn, as copies of an evaluation row (dev, test or out of domain): {named}.")
    if repeats:
        notes.append(f"train: not drawn, as copies of an earlier row: {name_rows(_row_numbers(train, repeats))}.")
    return notes


def _random_order(key: str, stream: str, seed: int, n: int) -> np.ndarray:
    """One key per row, float64 ``(n,)``: to remove a row leaves the order of the others as it was."""
    return np.random.Generator(np.random.PCG64(hash64(key, stream, seed))).random(n)


def _hold_out(pool: np.ndarray, classes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Positions of the held-out rows, in order; at least one, and every class keeps two rows."""
    ranks = np.random.Generator(np.random.PCG64(seed)).random(len(classes))
    groups = [pool[classes[pool] == c] for c in np.unique(classes)]
    wanted = max(1, _round(len(pool) * fraction))
    counts = share_out(wanted, [len(g) for g in groups], keep=2)
    chosen = [g[np.argsort(ranks[g], kind="stable")][:n] for g, n in zip(groups, counts, strict=True)]
    found: np.ndarray = np.sort(np.concatenate(chosen))
    if not len(found):
        raise DataError(
            "no row can be held out for testing: every class has two rows or fewer. Add rows or give `--test`."
        )
    return found


def share_out(total: int, sizes: Sequence[int], keep: int) -> list[int]:
    """Share ``total`` over groups by size (largest remainders first), leaving at least ``keep`` in each.

    >>> share_out(5, [10, 10, 5], keep=2), share_out(3, [2, 30], keep=2)
    ([2, 2, 1], [0, 3])
    """
    limits = np.maximum(np.array(sizes) - keep, 0)
    total = min(total, int(limits.sum()))
    exact = total * np.array(sizes) / max(sum(sizes), 1)
    counts = np.minimum(np.floor(exact).astype(int), limits)
    while counts.sum() < total:
        behind = np.where(counts < limits, exact - counts, -np.inf)
        counts[int(np.argmax(behind))] += 1
    return [int(count) for count in counts]


def _round(value: float) -> int:
    """Half upwards; a hair is added so that 0.25 * 2 and 0.1 * 5 count as the halves they are."""
    return math.floor(value + 0.5 + 1e-9)


def dev_count(k: int, fraction: float) -> int:
    """How many of the first k rows of a class pay for dev: ``round(k f)``, but never the only one.

    >>> [dev_count(k, 0.25) for k in (1, 2, 4, 8, 16)]
    [0, 1, 1, 2, 4]
    """
    return min(_round(k * fraction), k - 1)


def _cut_dev(ordered: list[np.ndarray], shots: int | None, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of train and of dev, each in the order of the source."""
    if shots is None:
        sizes = [len(rows) for rows in ordered]
        counts = share_out(_round(sum(sizes) * fraction), sizes, keep=1)
        dev = [rows[:n] for rows, n in zip(ordered, counts, strict=True)]
        train = [rows[n:] for rows, n in zip(ordered, counts, strict=True)]
    else:
        mask = np.diff([dev_count(k, fraction) if k else 0 for k in range(shots + 1)]) > 0
        dev = [rows[:shots][mask] for rows in ordered]
        train = [rows[:shots][~mask] for rows in ordered]
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(dev))


def _with_given_dev(
    task: Task, ordered: list[np.ndarray], shots: int | None, fraction: float, seed: int
) -> tuple[np.ndarray, pa.Table]:
    """Positions of train, and the dev table, where the source brings its own dev split."""
    dev = task.splits["dev"]
    if shots is None:
        return np.concatenate(ordered), dev
    ranks = _random_order(task.draw_key, "dev", seed, dev.num_rows)
    classes = _classes(task, dev)
    groups = [np.flatnonzero(classes == c) for c in range(_count(task))]
    paid = [g[np.argsort(ranks[g], kind="stable")][: dev_count(shots, fraction)] for g in groups]
    left = [shots - len(rows) for rows in paid]
    _check_enough(task, [len(rows) + len(p) for rows, p in zip(ordered, paid, strict=True)], shots)
    train = np.concatenate([rows[:n] for rows, n in zip(ordered, left, strict=True)])
    return train, dev.take(np.sort(np.concatenate(paid)))


def _check_classes_left(task: Task, ordered: list[np.ndarray]) -> None:
    for c, rows in enumerate(ordered):
        if not len(rows):
            of = f" of class `{task.schema.labels[c]}`" if task.schema.labels else ""
            raise DataError(
                f"{task.name}: no training rows{of} are left without test rows and copies of evaluation rows. Add "
                "examples that are not in dev, test or an out-of-domain set."
            )


def _check_enough(task: Task, sizes: list[int], shots: int | None) -> None:
    if shots is None or min(sizes) >= shots:
        return
    rarest = int(np.argmin(sizes))
    of = f" of class `{task.schema.labels[rarest]}`" if task.schema.labels else ""
    raise DataError(
        f"`shots` must be at most the usable rows of every class, but got shots={shots} and only {sizes[rarest]} rows"
        f"{of} are left without test rows and copies. Use `--shots {sizes[rarest]}` or less."
    )
