"""What the cells that ran say: rates, scores, paired differences with intervals. Prints Markdown.

python -m experiments.dynamic_subset.analyse
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from experiments.dynamic_subset.run import (
    Method,
    Row,
    chosen_rates,
    groups,
    merits,
    methods,
    protocol,
    results,
    tuned_methods,
)
from foretune.evaluation.paired import paired_t, sign_flip

FEW = 3
"""Seeds below which a difference is not put into words."""

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Method -> seed -> task -> test score."""


def table(rows: Sequence[Row], score: str) -> Scores:
    """``score`` of every cell that ran."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["status"] == "ok" and score in row:
            found[row["method"]][row["seed"]][row["task"]] = row[score]
    return found


def whole_seeds(plan: Row, scores: Scores, *wanted: Method) -> list[int]:
    """The seeds for which every task of the domain ran for all of ``wanted``."""
    tasks = set(plan["domains"][wanted[0].domain]["tasks"])
    return [seed for seed in plan["seeds"] if all(set(scores[str(m)][seed]) >= tasks for m in wanted)]


def score_rows(plan: Row, rows: Sequence[Row], domain: str, density: float | None) -> Iterator[str]:
    """A row per method: its rate, the mean of each task over whole seeds, and what was seen on the way."""
    rates, scores, tasks = chosen_rates(plan, results("tuning")), table(rows, "test"), plan["domains"][domain]["tasks"]
    for method in (m for m in methods(plan, density) if m.domain == domain):
        seeds = whole_seeds(plan, scores, method)
        mine = [row for row in rows if row["method"] == str(method) and row["seed"] in seeds]
        if not mine:
            continue
        means = [statistics.mean(scores[str(method)][seed][task] for seed in seeds) for task in tasks]
        cells = [f"{value:.3f}" for value in (*means, statistics.mean(means))]
        seen = [mean_of(mine, name) for name in ("nll", "train_loss", "parameters", "cpu_seconds")]
        churn = [row["followed"]["churn"] for row in mine if row.get("followed", {}).get("churn")]
        late = (
            f"{statistics.mean(c[0] for c in churn):.3f} > {statistics.mean(c[-1] for c in churn):.3f}" if churn else ""
        )
        rate = f"{rates[method]:g}" if method in rates else ""
        yield row_of(
            method.arm, rate, str(len(seeds)), *cells, *(f"{n:.3f}" if n < 100 else f"{n:.0f}" for n in seen), late
        )


def mean_of(rows: Sequence[Row], name: str) -> float:
    """NaN where no row has it."""
    values = [row[name] for row in rows if name in row]
    return statistics.mean(values) if values else math.nan


def row_of(*cells: str) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join("" if cell == "nan" else cell for cell in cells) + " |"


def head_of(*names: str) -> str:
    """The first two lines of a Markdown table."""
    return row_of(*names) + "\n|" + "---|" * len(names)


def difference(plan: Row, rows: Sequence[Row], better: Method, than: Method, score: str) -> str | None:
    """The gain of ``better`` over ``than`` as a row, None where no seed is whole; losses are turned round."""
    sign = 1.0 if score == "accuracy" else -1.0
    scores = table(rows, "test" if score in ("accuracy", "loss") else score)
    seeds = whole_seeds(plan, scores, better, than)
    if not seeds:
        return None
    one, other = ([scores[str(method)][seed] for seed in seeds] for method in (better, than))
    ours, theirs = ([sign * statistics.mean(by_task.values()) for by_task in side] for side in (one, other))
    gain, tested = paired_t(ours, theirs), sign_flip(ours, theirs)
    pairs = [sign * (a[task] - b[task]) for a, b in zip(one, other, strict=True) for task in a]
    won = f"{sum(d > 0 for d in pairs)} of {len(pairs)}"
    interval = f"[{gain.low:+.4f}, {gain.high:+.4f}]" if len(seeds) > 1 else "one seed"
    said = in_words(gain.low, gain.high, len(seeds), plan["margin"][better.domain] if score != "nll" else None)
    density = f"{better.density:g}"
    return row_of(
        density,
        f"{better.arm} - {than.arm}",
        str(len(seeds)),
        f"{gain.value:+.4f}",
        interval,
        f"{tested.p:.3f}",
        won,
        said,
    )


def in_words(low: float, high: float, seeds: int, margin: float | None) -> str:
    """What an interval allows to say."""
    if seeds < FEW or math.isnan(low):
        return f"fewer than {FEW} seeds: nothing" if seeds < FEW else "no spread: nothing"
    if margin and -margin < low and high < margin:
        return "none within the margin"
    return "not known" if low <= 0 <= high else "differs"


def rate_rows(plan: Row) -> Iterator[str]:
    """How the rates were found: what was tried, and whether the chosen one is an end of it."""
    trials = results("tuning")
    rates = chosen_rates(plan, trials)
    for method in tuned_methods(plan):
        known = merits(plan, trials, method)
        tried = ", ".join(f"{rate:g}: {-known[rate]:.3f}" for rate in sorted(known))
        rate = rates.get(method)
        edge = "" if rate is None or min(known) < rate < max(known) else "end of the ladder"
        yield row_of(str(method).replace("|", " "), f"{rate:g}" if rate else "not yet", tried, edge)


def main() -> None:
    """See the module's docstring."""
    plan, digest = protocol()
    trials, rows = results("tuning"), results("cells")
    made = {name: ", ".join(sorted({row[name] for row in (*trials, *rows)})) for name in ("protocol", "code", "base")}
    print(f"Protocol {digest} (of the lines: {made['protocol']}), code {made['code']}, decoder {made['base']}.")
    planned = [str(seed) for group in groups(plan) for _, _, seed in group]
    ran = [str(row["seed"]) for row in rows]
    by_seed = ", ".join(f"seed {seed}: {ran.count(seed)} of {planned.count(seed)}" for seed in dict.fromkeys(planned))
    failed = [row["key"] for row in (*trials, *rows) if row["status"] != "ok"]
    print(
        f"{len(trials)} tuning runs; cells: {by_seed}. {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}."
    )
    claims = plan["claims"]
    for domain, settings in plan["domains"].items():
        score = settings["score"]
        print(f"\n### {domain}: test {score}\n")
        for density in (*plan["densities"], None):
            if found := list(score_rows(plan, rows, domain, density)):
                print(f"\n{f'Density {density:g}' if density else 'References'}\n")
                more = ("mean", "NLL", "train loss", "weights", "CPU s", "churn first > last")
                print(head_of("arm", "rate", "seeds", *settings["tasks"], *more))
                print("\n".join(found))
        for judged in (score, "nll") if score == "accuracy" else (score,):
            print(f"\nGain in {judged}, mean over tasks\n")
            print(
                head_of(
                    "density", "difference", "seeds", "gain", "95 % over seeds", "sign-flip p", "pairs won", "in words"
                )
            )
            for density, arm in itertools.product(sorted(plan["densities"]), (*claims["than"], *claims["beside"])):
                other = Method(domain, arm, None if arm in claims["beside"] else density)
                if row := difference(plan, rows, Method(domain, claims["better"], density), other, judged):
                    print(row)
    print(f"\n### Rates\n\n{head_of('method', 'rate', 'dev loss of the rates tried', '')}")
    print("\n".join(rate_rows(plan)))


if __name__ == "__main__":
    main()
