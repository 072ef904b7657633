"""Made-up comparisons that look like real ones: simulated answers, judged with the statistics of ``evaluation``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from foretune.evaluation import (
    Estimate,
    claims,
    crossed,
    front_probability,
    iqm,
    over_seeds,
    probability_of_improvement,
    wilson,
)
from foretune.evaluation.best_of import best_of
from foretune.records import (
    ALL,
    CellResult,
    CellRun,
    Contrast,
    Front,
    FrontPoint,
    Measured,
    MissingCell,
    Outside,
    OutsidePart,
    Spent,
    Summary,
    Tuning,
    Verdict,
)

METHODS = ("full", "lora", "adaptive", "prefix-subspace", "zero-shot")
TASKS = ("cola", "rte", "reviews_2026")
SHOTS = (8, 32, 128)
SEEDS = 5
ITEMS = 400
COST = {
    "full": (22_700_000, 210.0, 1.5e9, 90_900_000),
    "lora": (295_000, 120.0, 6.1e8, 1_190_000),
    "adaptive": (3_600_000, 95.0, 7.4e8, 14_300_000),
    "prefix-subspace": (184_000, 310.0, 5.6e8, 740_000),
    "zero-shot": (0, 0.0, 2.9e8, 0),
}
PROTOCOL = """model: all-MiniLM-L6-v2
tasks: [cola, rte, reviews_2026]
methods: [full, lora, adaptive, prefix-subspace, zero-shot]
shots: [8, 32, 128]
shots_are: per_class
data_seeds: [0, 1, 2, 3, 4]
selection: last
margin: 0.01
tuning: {trials: 8}
"""


def measured(found: Estimate) -> Measured:
    return Measured(**asdict(found))


@cache
def answers(method: str, task: str, shots: int, harder: float = 0.0) -> NDArray[np.float64]:
    """(seeds, items) right or wrong: an item's difficulty is shared by all, a seed's luck by one method."""
    gain = 0.0 if method == "zero-shot" else {8: 0.3, 32: 0.7, 128: 1.2}[shots]
    talent = {"full": 0.0, "lora": 0.06, "adaptive": -0.2, "prefix-subspace": 0.07, "zero-shot": 0.05}[method]
    level = {"cola": 0.35, "rte": 0.1, "reviews_2026": 0.6}[task]
    difficulty = np.random.default_rng(TASKS.index(task)).normal(0, 0.9, ITEMS)
    own = np.random.default_rng([METHODS.index(method), TASKS.index(task), shots, 7])
    luck = own.normal(0, 0.0 if method == "zero-shot" else 0.1, SEEDS)
    noise = own.normal(0, 0.35, (1 if method == "zero-shot" else SEEDS, ITEMS))
    scale = 0.35 if task == "rte" else 1.0
    inner = level + scale * (gain + talent) + luck[:, None] + difficulty + noise - harder
    return (inner > 0.4).astype(float)


def floors(task: str, shots: int) -> dict[str, Measured]:
    right = {"cola": 277, "rte": 211, "reviews_2026": 240}[task]
    gain = {8: -30, 32: 4, 128: 22}[shots]
    found = {"majority": right, "tfidf": right + gain, "embedding": right + gain + 9}
    return {name: Measured(n / ITEMS, *wilson(n, ITEMS), "Wilson", n_items=ITEMS) for name, n in found.items()}


def hans(method: str, shots: int, score: Measured) -> Outside:
    """HANS in miniature: zero-shot is a constant classifier there."""
    if method == "zero-shot":
        parts = tuple(
            OutsidePart(kind, name, Measured(value, value, value, "crossed", n_seeds=SEEDS, n_items=100))
            for kind, name, value in (
                ("label", "entailment", 1.0),
                ("label", "non-entailment", 0.0),
                ("heuristic", "lexical_overlap", 0.5),
                ("heuristic", "subsequence", 0.5),
                ("heuristic", "constituent", 0.5),
            )
        )
        flat = Measured(0.5, 0.45, 0.55, "crossed", n_seeds=SEEDS, n_items=ITEMS)
        gap = Measured(score.value - 0.5, score.value - 0.58, score.value - 0.42, "crossed", n_seeds=SEEDS)
        return Outside("hans", flat, gap, 0.5, parts, "entailment")
    table = answers(method, "rte", shots, 0.12)
    found = measured(crossed(table))
    parts = tuple(
        OutsidePart(kind, name, measured(crossed(table[:, start : start + 130])))
        for kind, name, start in (
            ("label", "entailment", 0),
            ("label", "non-entailment", 200),
            ("heuristic", "lexical_overlap", 0),
            ("heuristic", "subsequence", 130),
            ("heuristic", "constituent", 260),
        )
    )
    lost = score.value - found.value
    gap = Measured(lost, lost - 0.035, lost + 0.035, "crossed", n_seeds=SEEDS, n_items=2 * ITEMS)
    return Outside("hans", found, gap, 0.5, parts)


def cell(method: str, task: str, shots: int) -> CellResult:
    table = answers(method, task, shots)
    classes = 2
    parameters, seconds, memory, disk = COST[method]
    train = seconds * (shots / 32) ** 0.4
    phases = {"setup": 3.1, "train": train, "eval": 6.4} if seconds else {"setup": 3.1, "eval": 6.0}
    spent = Spent(
        *(parameters, 22_700_000, disk, memory, phases, 64.0 * shots * 40 if seconds else 0),
        prompt_tokens=0.0 if seconds else 96.0,
        item_seconds=0.004 if seconds else 0.011,
        labels=float(classes * shots) if seconds else 0.0,
    )
    runs = tuple(CellRun(s, s, "ok", float(row.mean()), f"{s:012x}") for s, row in enumerate(table))
    score = measured(crossed(table))
    rise = {"full": 0.21, "lora": 0.04, "adaptive": 0.07}.get(method)
    return CellResult(
        *(method, task, shots, classes * shots if seconds else 0, "accuracy", True, runs),
        score=score,
        over_seeds=measured(over_seeds(table.mean(axis=1))),
        floors=floors(task, shots),
        spent=spent,
        outside=(hans(method, shots, score),) if task == "rte" else (),
        forgetting=None if rise is None else Measured(rise, rise - 0.02, rise + 0.02, "t over seeds", n_seeds=SEEDS),
        flags=("majority_not_excluded: accuracy 0.545 is above 0.527, but not significantly (p = 0.310)",)
        if task == "rte" and shots == 8
        else (),
    )


def pairwise(shots: int, methods: Sequence[str]) -> list[Contrast]:
    pairs = list(combinations(methods, 2))
    found = {}
    for task in (ALL, *TASKS):
        for first, second in pairs:
            tables = [answers(first, t, shots) - answers(second, t, shots) for t in ((task,) if task != ALL else TASKS)]
            over = crossed(np.concatenate(tables, axis=1))
            found[task, first, second] = replace(over, n_tasks=len(TASKS)) if task == ALL else over
    made = claims({"|".join(key): value for key, value in found.items()}, margin=0.01)
    contrasts = []
    for (key, raw), claim in zip(found.items(), made.values(), strict=True):
        task, first, second = key
        costs = [COST[name] for name in (first, second)]
        ratios = {"seconds": costs[0][1] / costs[1][1]} if costs[1][1] else {}
        ratios["peak_bytes"] = costs[0][2] / costs[1][2]
        contrasts.append(
            Contrast(
                *(first, second, task, shots, measured(claim.difference), raw.p, claim.p, claim.contrasts),
                detectable=claim.detectable,
                unadjusted=measured(raw),
                margin=claim.margin,
                equivalence_p=claim.equivalence_p,
                ratios=ratios,
            )
        )
    return contrasts


def summaries(shots: int) -> list[Summary]:
    runs = {m: np.stack([answers(m, t, shots).mean(axis=1) for t in TASKS], axis=1) for m in METHODS}
    order = np.argsort(np.argsort([-table.mean(axis=0) for table in runs.values()], axis=0), axis=0) + 1
    made = []
    for i, (method, table) in enumerate(runs.items()):
        others = {
            other: measured(probability_of_improvement(table, theirs, seed=0, draws=200))
            for other, theirs in runs.items()
            if other != method
        }
        mean = replace(measured(over_seeds(table.mean(axis=1))), n_tasks=len(TASKS))
        made.append(
            Summary(
                *(method, shots, TASKS, mean, measured(iqm(table, seed=0, draws=200)), others),
                rank=float(order[i].mean()),
            )
        )
    return made


def front(task: str, shots: int, cost: str, cells: Sequence[CellResult]) -> Front:
    spent = {"seconds": lambda c: c.spent.seconds.get("train", 0.0), "peak_bytes": lambda c: c.spent.peak_bytes}
    of = spent.get(cost, lambda c: c.spent.trainable_parameters)
    table = [[run.score for run in c.runs] for c in cells]
    chances = front_probability(table, [of(c) for c in cells], seed=0, draws=400)
    points = tuple(FrontPoint(c.method, c.score, of(c), p) for c, p in zip(cells, chances, strict=True))
    return Front(task, shots, "accuracy", cost, points)


@cache
def usual() -> Verdict:
    """5 methods x 3 tasks x 3 budgets x 5 seeds; one cell failed, one is missing."""
    cells = [cell(m, t, s) for t in TASKS for s in SHOTS for m in METHODS]
    fronts = [
        front(t, s, cost, [c for c in cells if (c.task, c.shots) == (t, s)])
        for t in TASKS
        for s in SHOTS
        for cost in ("seconds", "peak_bytes", "trainable_parameters")
    ]
    broken = []
    for each in cells:
        if (each.method, each.task, each.shots) == ("full", "reviews_2026", 128):
            lost = tuple(
                replace(r, status="oom", score=None, error="OutOfMemoryError: 2.1 GB asked for, 0.4 GB free")
                for r in each.runs
            )
            each = replace(each, runs=lost, score=None, over_seeds=None, spent=Spent(), outside=(), forgetting=None)
        if (each.method, each.task, each.shots) == ("lora", "reviews_2026", 128):
            each = replace(each, runs=(*each.runs[:4], replace(each.runs[4], status="diverged", score=None)))
        broken.append(each)
    gone = ("adaptive", "reviews_2026", 128)
    kept = [c for c in broken if (c.method, c.task, c.shots) != gone]
    lost_names = {("full", "reviews_2026", 128), gone}
    contrasts = [
        c
        for s in SHOTS
        for c in pairwise(s, METHODS)
        if not {(c.first, c.task, s), (c.second, c.task, s)} & lost_names and not (c.task == ALL and s == 128)
    ]
    close = next(
        i
        for i, c in enumerate(contrasts)
        if (c.first, c.second, c.task, c.shots) == ("lora", "prefix-subspace", ALL, 32)
    )
    same = Measured(0.001, -0.008, 0.01, "crossed seeds and items", n_seeds=SEEDS, n_items=1200, n_tasks=3)
    contrasts[close] = replace(contrasts[close], difference=same, adjusted_p=0.8, detectable=0.011, equivalence_p=0.021)
    contrasts[3] = replace(contrasts[3], refused="`replicated_runs`: 5 runs of zero-shot hold 1 distinct result")
    rng = np.random.default_rng(3)
    tunings = []
    for method in ("full", "lora", "adaptive"):
        found = best_of(rng.uniform(0.55, 0.72, 8))
        tunings.append(Tuning(method, "cola", 32, "accuracy", found.expected, found.deviation))
    return Verdict(
        *("3f9ac2d17be0", PROTOCOL, "all-MiniLM-L6-v2", "2026-11-21T18:30:00+00:00", METHODS, TASKS, SHOTS),
        cells=tuple(kept),
        contrasts=tuple(contrasts),
        across=tuple(s for shots in SHOTS[:2] for s in summaries(shots)),
        fronts=tuple(f for f in fronts if (f.task, f.shots) != ("reviews_2026", 128)),
        tuning=tuple(tunings),
        flags=("unequal_tuning: zero-shot was not tuned, the others got 8 trials",),
        missing=(MissingCell(*gone, tuple((s, s) for s in range(5)), "the budget of 2 h was spent"),),
        shots_are="per_class",
        notes=("2 training rows of cola also stand in its test rows and were left out of every draw.",),
    )


def single_seed() -> Verdict:
    """One seed, two methods: scores without a claim."""
    cells, found = [], []
    for method in ("full", "lora"):
        whole = cell(method, "cola", 32)
        alone = measured(over_seeds([whole.runs[0].score]))
        cells.append(replace(whole, runs=whole.runs[:1], score=alone, over_seeds=alone))
    value = cells[0].score.value - cells[1].score.value
    nan = float("nan")
    found.append(
        Contrast("full", "lora", "cola", 32, Measured(value, nan, nan, "t over seeds", n_seeds=1), nan, nan, 1, nan)
    )
    return Verdict(
        *("aaaaaaaaaaaa", "seeds: 1\n", "tiny", "2026-11-21T18:30:00+00:00", ("full", "lora"), ("cola",), (32,)),
        cells=tuple(cells),
        contrasts=tuple(found),
    )


def nothing() -> Verdict:
    """No run has ended."""
    return Verdict(
        *("bbbbbbbbbbbb", "seeds: 5\n", "tiny", "", ("full", "lora"), ("cola",), (16,), ()),
        missing=(MissingCell("full", "cola", 16), MissingCell("lora", "cola", 16)),
    )


def hostile(text: str) -> Verdict:
    """The same text wherever a user's words can stand."""
    base = usual()
    renamed = {name: f"{text} {name}" for name in (*METHODS, *TASKS)}
    cells = tuple(
        replace(
            c,
            method=renamed[c.method],
            task=renamed[c.task],
            constant=text,
            floors={f"{text}{name}": found for name, found in c.floors.items()},
            flags=(f"{text}: {text}",),
            outside=tuple(
                replace(o, name=text, constant=text, parts=tuple(replace(p, name=text + p.name) for p in o.parts))
                for o in c.outside
            ),
            runs=tuple(replace(r, status="failed", error=text) for r in c.runs) if c.shots == 8 else c.runs,
            score=None if c.shots == 8 else c.score,
        )
        for c in base.cells
    )
    return replace(
        base,
        protocol=text,
        model=text,
        methods=tuple(renamed[m] for m in METHODS),
        tasks=tuple(renamed[t] for t in TASKS),
        cells=cells,
        contrasts=tuple(
            replace(c, first=renamed[c.first], second=renamed[c.second], task=renamed.get(c.task, c.task))
            for c in base.contrasts
        ),
        across=tuple(
            replace(
                s,
                method=renamed[s.method],
                tasks=tuple(renamed[t] for t in s.tasks),
                improvement={renamed[m]: v for m, v in s.improvement.items()},
            )
            for s in base.across
        ),
        fronts=tuple(
            replace(f, task=renamed[f.task], points=tuple(replace(p, method=renamed[p.method]) for p in f.points))
            for f in base.fronts
        ),
        tuning=tuple(replace(t, method=renamed[t.method], task=renamed[t.task]) for t in base.tuning),
        flags=(f"{text}: {text}",),
        missing=(MissingCell(text, text, 8, ((0, 0),), text),),
        notes=(text,),
    )
