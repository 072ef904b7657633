"""What the cells that ran say: scores, seconds, paired differences over tasks and over seeds. Prints Markdown.

python -m experiments.recommender.analyse
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

from experiments.recommender.run import RESULTS, lines, protocol
from foretune.evaluation import over_seeds, sign_flip

Cells = dict[tuple[str, int, str], dict[str, Any]]
"""(task, seed, arm) -> its line."""


def whole_seeds(plan: dict[str, Any], cells: Cells) -> list[int]:
    """The seeds for which every arm has a score on every task."""

    def has(seed: int) -> bool:
        found = (cells.get((task, seed, arm)) for task in plan["tasks"] for arm in plan["arms"])
        return all(row is not None and row["test"] is not None for row in found)

    return [seed for seed in plan["seeds"] if has(seed)]


def scores(plan: dict[str, Any], cells: Cells, arm: str, seeds: list[int], column: str = "test") -> list[list[float]]:
    """``(tasks, seeds)`` values of one arm."""
    return [[cells[task, seed, arm][column] for seed in seeds] for task in plan["tasks"]]


def difference(plan: dict[str, Any], cells: Cells, seeds: list[int], better: str, than: str) -> str:
    """One row: a paired difference over tasks, and the same over seeds."""
    one, other = (scores(plan, cells, arm, seeds) for arm in (better, than))
    table = [[a - b for a, b in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]
    tasks = [statistics.mean(row) for row in table]
    over = over_seeds(tasks)
    p = sign_flip([statistics.mean(row) for row in one], [statistics.mean(row) for row in other]).p
    if -plan["margin"] < over.low and over.high < plan["margin"]:
        said = "none within the margin"
    else:
        said = "not known" if over.low <= 0 <= over.high else "differs"
    by_seed = [statistics.mean(column) for column in zip(*table, strict=True)]
    again = over_seeds(by_seed) if len(seeds) > 1 else None
    spread = f"[{again.low:+.3f}, {again.high:+.3f}]" if again else "one seed"
    wins, losses = sum(each > 0 for each in tasks), sum(each < 0 for each in tasks)
    worst = min(range(len(tasks)), key=tasks.__getitem__)
    ratio = math.exp(statistics.mean(_log_ratios(plan, cells, seeds, better, than)))
    return (
        f"| {better} - {than} | {over.value:+.3f} | [{over.low:+.3f}, {over.high:+.3f}], p {p:.3f} | {spread} | "
        f"{wins} : {losses} | {list(plan['tasks'])[worst]} {tasks[worst]:+.3f} | {ratio:.2f} | {said} |"
    )


def _log_ratios(plan: dict[str, Any], cells: Cells, seeds: list[int], better: str, than: str) -> list[float]:
    pairs = itertools.product(plan["tasks"], seeds)
    return [math.log(cells[t, s, better]["seconds"] / cells[t, s, than]["seconds"]) for t, s in pairs]


def main() -> None:
    """See the module's docstring."""
    plan, stamp = protocol()
    rows = [row for path in sorted(RESULTS.glob("cells*.jsonl")) for row in lines(path)]
    cells: Cells = {(row["task"], row["seed"], row["arm"]): row for row in rows}
    seeds, tasks = whole_seeds(plan, cells), list(plan["tasks"])
    planned = len(tasks) * len(plan["seeds"])
    ran = len({(row["task"], row["seed"]) for row in rows})
    print(f"Protocol {stamp['protocol']}, store {stamp['store']}. {ran} of {planned} tasks and seeds ran.")
    print(f"Whole seeds: {', '.join(map(str, seeds)) or 'none, so nothing is said'}.\n")
    if not seeds:
        return
    print("| arm | " + " | ".join(tasks) + " | mean | s | runs |\n" + "|---" * (len(tasks) + 4) + "|")
    for arm in plan["arms"]:
        by_task = [statistics.mean(row) for row in scores(plan, cells, arm, seeds)]
        spent, runs = (
            statistics.mean(map(statistics.mean, scores(plan, cells, arm, seeds, column)))
            for column in ("seconds", "runs")
        )
        told = " | ".join(f"{value:.3f}" for value in by_task)
        print(f"| {arm} | {told} | {statistics.mean(by_task):.3f} | {spent:.0f} | {runs:.1f} |")
    print("\n| difference | mean | over tasks, 95 % | over seeds | wins : losses | worst task | seconds | in words |")
    print("|---" * 8 + "|")
    for claim in plan["claims"]:
        print(difference(plan, cells, seeds, claim["better"], claim["than"]))
    for arm in ("recommended", "unguarded"):
        said = [cells[task, seed, arm] for task in tasks for seed in seeds]
        spoke = [row for row in said if row["interval"] is not None]
        held = sum(row["interval"][0] <= row["dev"] <= row["interval"][1] for row in spoke)
        print(
            f"\n{arm}: a score was foretold in {len(spoke)} of {len(said)} cells; its 80 % interval held dev in {held}."
        )
        print("Ran: " + ", ".join(f"{row['task']}/{row['seed']} {row['tuner']}" for row in said) + ".")


if __name__ == "__main__":
    main()
