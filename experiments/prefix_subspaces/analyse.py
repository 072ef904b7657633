"""What the cells that ran say: one table per K, paired differences, which cells ran. Prints Markdown.

python experiments/prefix_subspaces/analyse.py
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from typing import Any

from run import RESULTS, chosen_rates, lines, protocol
from scipy import stats

FEW = 5
"""Seeds below which a table says nothing in words: an interval from two seeds can be as narrow as chance wants."""


def table(plan: dict[str, Any], rows: list[dict[str, Any]]) -> dict[tuple[str, int, int], dict[str, float]]:
    """(arm, K, seed) -> task -> test score."""
    found: dict[tuple[str, int, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row["status"] == "ok":
            found[row["arm"], row["k"], row["seed"]][row["task"]] = row["test"]
    return found


def sign_flip(differences: list[float]) -> float:
    """Exact two-sided p value of a mean difference when every sign could have been the other."""
    observed = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in flips]
    return sum(total >= observed - 1e-12 for total in sums) / len(sums)


def difference(plan: dict[str, Any], found: Any, better: str, than: str, k: int) -> str:
    """One row: the mean over tasks of a paired difference, with its 95 % t interval over seeds."""
    per_seed = []
    for seed in plan["seeds"]:
        one, other = found[better, k, seed], found[than, k, seed]
        if set(one) >= set(plan["tasks"]) and set(other) >= set(plan["tasks"]):
            per_seed.append(statistics.mean(one[task] - other[task] for task in plan["tasks"]))
    n = len(per_seed)
    if n < 2:
        return f"| {better} - {than} | {k} | {n} | {per_seed[0]:+.4f} | one seed: no interval | |" if n else ""
    mean = statistics.mean(per_seed)
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(per_seed) / n**0.5
    low, high = mean - half, mean + half
    margin = plan["margin"]
    if n < FEW:
        said = f"fewer than {FEW} seeds: nothing"
    elif -margin < low and high < margin:
        said = "none within the margin"
    else:
        said = "not known" if low <= 0 <= high else "differs"
    interval = f"[{low:+.4f}, {high:+.4f}], p {sign_flip(per_seed):.3f}"
    return f"| {better} - {than} | {k} | {n} | {mean:+.4f} | {interval} | {said} |"


def main() -> None:
    """See the module's docstring."""
    plan, digest = protocol()
    trials, rows = lines(RESULTS / "tuning.jsonl"), [r for p in sorted(RESULTS.glob("cells*.jsonl")) for r in lines(p)]
    found = table(plan, rows)
    arms, tasks = list(plan["arms"]), plan["tasks"]
    codes = sorted({row["code"] for row in (*trials, *rows)})
    print(f"Protocol {digest}, code {', '.join(codes)}. Rates: {chosen_rates(plan, trials)} ({len(trials)} trials).")
    planned = len(plan["seeds"]) * len(plan["k_total"]) * len(tasks) * len(arms)
    failed = [row["key"] for row in rows if row["status"] != "ok"]
    print(f"{len(rows)} of {planned} cells ran, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}.\n")
    print("| K | arm | seeds | " + " | ".join(tasks) + " | mean | dev - test | NLL | s |")
    print("|---" * (len(tasks) + 7) + "|")
    for k, arm in itertools.product(plan["k_total"], arms):
        mine = [row for row in rows if row["k"] == k and row["arm"] == arm and row["status"] == "ok"]
        whole = [seed for seed in plan["seeds"] if set(found[arm, k, seed]) >= set(tasks)]
        mine = [row for row in mine if row["seed"] in whole]
        if not mine:
            continue
        by_task = [statistics.mean(found[arm, k, seed][task] for seed in whole) for task in tasks]
        gap = statistics.mean(max(row["dev_curve"]) - row["test"] for row in mine)
        nll, seconds = (statistics.mean(row[name] for row in mine) for name in ("nll", "seconds"))
        scores = " | ".join(f"{score:.3f}" for score in by_task)
        means = f"{statistics.mean(by_task):.3f} | {gap:+.3f} | {nll:.3f} | {seconds:.0f}"
        print(f"| {k} | {arm} | {len(whole)} | {scores} | {means} |")
    print("\n| Difference of means over tasks | K | seeds | mean | 95 % interval over seeds | in words |")
    print("|---" * 6 + "|")
    for k, claim in itertools.product(plan["k_total"], plan["claims"]):
        if row := difference(plan, found, claim["better"], claim["than"], k):
            print(row)


if __name__ == "__main__":
    main()
