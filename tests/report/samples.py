"""Made-up runs that look like real ones: a record, its plan, its predictions and its floors' predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pyarrow as pa

from foretune.records import (
    Cost,
    Displacement,
    Evaluation,
    Gap,
    Landscape,
    LearningCurve,
    ModelRef,
    Part,
    Place,
    Plan,
    Point,
    Recommendation,
    RunConfig,
    RunRecord,
    Schedule,
    Seeds,
    Spread,
    TaskCard,
    TaskRef,
)

BANKING = (
    "activate_my_card",
    "card_arrival",
    "card_not_working",
    "exchange_rate",
    "lost_or_stolen_card",
    "pending_transfer",
    "top_up_failed",
    "wrong_amount_of_cash_received",
)
PHRASES = (
    "I still have not received my new card, I ordered over a week ago.",
    "How do I know which exchange rate you applied to my purchase in Zürich?",
    "The machine gave me 20 € instead of 50 €!",
    "my top up did not go thru, what now",
    "It has been three days and the transfer is still pending. Can you tell me when it will arrive?",
    "Card stolen. HELP",
)


@dataclass(frozen=True)
class Sample:
    """What ``render`` takes."""

    record: RunRecord
    plan: Plan | None = None
    predictions: pa.Table | None = None
    floors: pa.Table | None = None


def config(kind: str = "classification", source: str = "data/banking_8.csv") -> RunConfig:
    """A plausible LoRA run."""
    objective = {"classification": "head", "regression": "regression", "generation": "response"}[kind]
    return RunConfig(
        ModelRef("demo", fingerprint="53aa51172d142c89", pooling="mean", max_length=64),
        TaskRef(source, kind, columns={"text": "text", "label": "category"}, shots=16, fingerprint="0d1e6a7c55b2f901"),
        Part("lora", {"rank": 8, "alpha": 16}),
        Part(objective),
        Schedule(steps=240, lr=5e-4, head_lr=1e-3, batch_size=16),
        Seeds(),
    )


def banking(classes: int = 8, n: int = 320, sharp: float = 3.2) -> Sample:
    """Classification with dev, test, one out-of-domain set, a temperature and the floors' predictions."""
    labels = BANKING[:classes] if classes <= 8 else tuple(f"{BANKING[i % 8]}_{i // 8}" for i in range(classes))
    rng = np.random.default_rng(7)
    splits = {"dev": max(classes * 4, 16), "test": n, "ood:branch_2026": max(n // 4, 8)}
    tables, floor_tables, evaluations = [], [], {}
    floors: dict[str, dict[str, Evaluation]] = {"majority": {}, "tfidf": {}, "embedding": {}}
    for split, size in splits.items():
        truth = rng.integers(classes, size=size)
        edge = sharp * (0.6 if split.startswith("ood") else 1.0)
        tables.append(_classified(rng, split, labels, truth, edge))
        evaluations[split] = _judged(tables[-1])
        for floor, level in (("majority", None), ("tfidf", 1.9), ("embedding", 2.6)):
            made = _classified(rng, split, labels, truth, level)
            floor_tables.append(made.append_column("floor", pa.array([floor] * size)))
            floors[floor][split] = _judged(made)
    difference = evaluations["test"].scores["accuracy"] - evaluations["ood:branch_2026"].scores["accuracy"]
    record = RunRecord(
        config(),
        "ok",
        "accuracy",
        TaskCard(
            "banking, 8 intents" if classes == 8 else f"banking, {classes} intents",
            "classification",
            {"train": 96, **splits},
            classes,
            1 / classes,
            float(np.log(classes)),
            {"words_mean": 11.71, "words_p95": 28.0, "type_token_ratio": 0.431},
        ),
        _curve("accuracy", 0.2, 0.86),
        _cost(),
        evaluations,
        floors,
        (Gap("branch_2026", "accuracy", difference, difference - 0.09, difference + 0.09),),
        chosen_step=192,
        steps_done=240,
        temperature=1.38,
        initial_hash="b1946ac92492d234",
        labels=labels,
        surroundings={
            "python": "3.11.7",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
            "peft": "0.21.2",
            "device": "cpu, 2 threads",
        },
        notes=(
            "3 rows repeat others and were kept once: 41, 77, 203.",
            "12 texts are longer than 64 tokens and lost their end.",
        ),
        warnings=("Row 18 of test also stands in train; it was left out of the evaluation.",),
        started="2026-11-21T11:02:14Z",
        finished="2026-11-21T11:03:29Z",
    )
    return Sample(record, plan(record), pa.concat_tables(tables), pa.concat_tables(floor_tables))


def plan(record: RunRecord, score: float | None = 0.83) -> Plan:
    """A recommendation of the very pipeline that was run."""
    told = Recommendation(
        record.config.tuner,
        record.config.objective,
        record.config.schedule,
        score,
        (0.78, 0.88) if score else None,
        70.0 if score else None,
        640_000_000 if score else None,
    )
    return Plan((told,), "published-default", ("LoRA, rank 8, 5e-4: the published default for small encoders.",))


def silent() -> Sample:
    """The same run, planned by a recommender that foretells nothing, without floors' predictions."""
    made = banking()
    return Sample(made.record, plan(made.record, None), made.predictions)


@cache
def many() -> Sample:
    """77 classes and 10,000 test predictions."""
    return banking(classes=77, n=10_000, sharp=4.5)


def failed() -> Sample:
    """Out of memory before anything was evaluated."""
    return Sample(
        RunRecord(
            config(),
            "oom",
            steps_done=3,
            error="ResourceError: step 4 needed 9.1 GB, but 7.8 GB are free.\nUse --batch 4.",
        ),
    )


def constant() -> Sample:
    """A classifier that always says the same, without a test split."""
    made = banking()
    assert made.predictions is not None
    dev = made.predictions.slice(0, 32)
    said = made.record.labels[2]
    dev = dev.set_column(dev.column_names.index("prediction"), "prediction", pa.array([said] * len(dev)))
    judged = {"dev": Evaluation(32, {"accuracy": 0.125}, {"accuracy": (0.05, 0.28)}, ("constant",))}
    floors = {"majority": {"dev": Evaluation(32, {"accuracy": 0.125}, {"accuracy": (0.05, 0.28)})}}
    return Sample(replace(made.record, evaluations=judged, floors=floors, gaps=()), None, dev)


def regression(n: int = 400) -> Sample:
    """Numbers between 0 and 5, judged by Spearman's correlation."""
    rng = np.random.default_rng(3)
    truth = np.round(rng.uniform(0, 5, n), 1)
    said = 0.8 * truth + 0.5 + rng.normal(0, 0.5, n)
    table = _table("test", PHRASES, [f"{v:g}" for v in truth], [f"{v:.4f}" for v in said], [None] * n, [None] * n)
    record = RunRecord(
        config("regression", "similarity.tsv"),
        "ok",
        "spearman",
        curve=_curve("spearman", 0.1, 0.89),
        cost=_cost(),
        evaluations={
            "dev": Evaluation(40, {"spearman": 0.902, "rmse": 0.55}, {"spearman": (0.81, 0.95)}),
            "test": Evaluation(n, {"spearman": 0.913, "pearson": 0.92, "rmse": 0.57}, {"spearman": (0.89, 0.93)}),
        },
        floors={
            "mean": {"test": Evaluation(n, {"rmse": 1.44})},
            "tfidf": {"test": Evaluation(n, {"spearman": 0.42}, {"spearman": (0.33, 0.5)})},
        },
        chosen_step=240,
        steps_done=240,
    )
    return Sample(record, None, table)


def simplex(n: int = 3, metric: str = "accuracy") -> Sample:
    """A prefix subspace whose vertices drift together, with its landscape: a hill over the midpoint."""
    made = banking()
    record = made.record

    def place(*weights: float) -> Place:
        height = 0.62 + 0.24 * (1 - sum((w - 1 / n) ** 2 for w in weights)) + 0.05 * weights[0]
        return Place(weights, round(height * 32) / 32, 1.4 - height)

    corners = [tuple(float(i == j) for j in range(n)) for i in range(n)]
    if n == 3:
        between = [(i / 6, j / 6, (6 - i - j) / 6) for i in range(7) for j in range(7 - i)]
    else:
        between = [(1 - t, t, *(0.0,) * (n - 2)) for t in (0.25, 0.5, 0.75)]
    places = tuple(place(*w) for w in dict.fromkeys([*corners, (1 / n,) * n, *between]))
    points = []
    for step in range(0, 241, 24):
        cosine = 0.4 * step / 240
        numbers = {"vertex_cosine": cosine, "vertex_cosine_max": cosine + 0.05 * step / 240}
        numbers |= {"vertex_distance": 300 - 80 * cosine, "vertex_distance_min": 295 - 90 * cosine}
        points += [Point(step, "train", name, value) for name, value in numbers.items()]
        if step:
            points.append(Point(step, "dev", f"{metric}_member_mean", 0.8))
            points.append(Point(step, "dev", f"{metric}_monte_carlo_error", 0.011))
    record = replace(
        record,
        config=replace(record.config, tuner=Part("prefix-subspace", {"n_vertices": n})),
        metric=metric,
        curve=record.curve.add(*points),
        landscape=Landscape(metric, "dev", places, 10, 0.035),
    )
    return replace(made, record=record, plan=None)


KINDS = {
    "attention.self.query": 384 * 384,
    "attention.self.key": 384 * 384,
    "attention.self.value": 384 * 384,
    "attention.output.dense": 384 * 384,
    "intermediate.dense": 384 * 1536,
    "output.dense": 384 * 1536,
}


def displaced(
    layers: int = 12, shared: bool = False, stacks: tuple[str, ...] = ("bert.encoder.layer",)
) -> Displacement:
    """A subset of a small encoder that gathers in the upper layers where the matrices share a budget."""
    rng = np.random.default_rng(5)
    weights = np.tile(list(KINDS.values()), (layers * len(stacks), 1))
    density = np.full(weights.shape, 0.001)
    if shared:
        density *= rng.uniform(0.2, 1.0, weights.shape) * np.linspace(0.3, 2.5, len(weights))[:, None]
    chosen = (weights * density).astype(int)
    moved = chosen * rng.uniform(2e-4, 1.1e-3, weights.shape)
    bell = np.exp(-(((np.arange(17) - 9) / 3.2) ** 2))
    counts = np.floor(bell / bell.sum() * chosen.sum()).astype(int)
    counts[9] += chosen.sum() - counts.sum()
    lost = np.floor(counts * np.linspace(0.9, 0, 17) ** 2).astype(int)
    return Displacement(
        layers=tuple(f"{stack}.{i}" for stack in stacks for i in range(layers)),
        kinds=tuple(KINDS),
        weights=tuple(map(tuple, weights.tolist())),
        chosen=tuple(map(tuple, chosen.tolist())),
        moved=tuple(map(tuple, moved.tolist())),
        tensors=weights.size,
        silos=1 if shared else weights.size,
        first_bin=-22,
        counts=tuple(counts.tolist()),
        lost=tuple(lost.tolist()),
        rows=Spread(46_080, 512, 8_730),
        columns=Spread(41_472, 2_210, 8_100),
    )


def subset(shared: bool = False, lazy: bool = False) -> Sample:
    """A moving subset that settles; ``lazy``: all weights competed in some steps only, and silos were certified."""
    made = banking()
    points = []
    for i, step in enumerate(range(24, 241, 24)):
        points.append(Point(step, "train", "churn", 0.31 * float(np.exp(-1.4 * i))))
        points.append(Point(step, "train", "least_displacement", 2e-4 * (i + 1) ** 0.5))
        if lazy:
            points.append(Point(step, "train", "dense", min(1.0, 2 / (i + 1))))
            points.append(Point(step, "train", "certified", min(1.0, 0.14 * i)))
    record = replace(
        made.record,
        config=replace(made.record.config, tuner=Part("dynamic-subset", {"density": 0.001})),
        curve=made.record.curve.add(*points),
        displacement=displaced(shared=shared),
    )
    return replace(made, record=record, plan=None)


def generation() -> Sample:
    """Prompt -> response in three scripts."""
    prompts = [
        "Natalia sold clips to 48 friends in April, and half as many in May. How many altogether?",
        "Translate to Arabic: Good morning, how are you?",
        "Translate to Japanese: The meeting was moved to Friday.",
    ]
    wanted = ["48 + 24 = 72\n#### 72", "صباح الخير، كيف حالك؟", "会議は金曜日に変更されました。"]
    said = ["48 + 24 = 72\n#### 72", "صباح الخير كيف حالك", "会議は金曜日です。"]
    n = 24
    table = _table(
        "test", prompts, [wanted[i % 3] for i in range(n)], [said[i % 3] for i in range(n)], [None] * n, [None] * n
    )
    record = RunRecord(
        config("generation", "tasks.jsonl"),
        "stopped",
        "exact_match",
        curve=_curve("exact_match", 0.0, 0.33),
        cost=_cost(),
        evaluations={"test": Evaluation(n, {"exact_match": 1 / 3, "chrf": 0.612}, {"exact_match": (0.18, 0.53)})},
        floors={"majority": {"test": Evaluation(n, {"exact_match": 1 / 3}, {"exact_match": (0.18, 0.53)})}},
        chosen_step=120,
        steps_done=130,
        error="Interrupted: Ctrl-C after step 130.",
    )
    return Sample(record, None, table)


def hostile(label: str, text: str) -> Sample:
    """A run in which one label, one text, a note, a warning and the names all hold what a user should never write."""
    made = banking()
    labels = (label, *made.record.labels[1:])
    assert made.predictions is not None
    rows = made.predictions.to_pylist()
    for row in rows:
        for column in ("label", "prediction"):
            row[column] = label if row[column] == made.record.labels[0] else row[column]
        row["text"] = text
    record = replace(
        made.record,
        labels=labels,
        config=replace(made.record.config, model=ModelRef(label), task=replace(made.record.config.task, source=text)),
        card=replace(made.record.card, name=text) if made.record.card else None,
        notes=(text,),
        warnings=(label,),
        error=text,
        gaps=(replace(made.record.gaps[0], name=label),),
        surroundings={label: text},
    )
    evidence = Plan((plan(record).best,), label, (text,))
    return Sample(record, evidence, pa.Table.from_pylist(rows, schema=made.predictions.schema), made.floors)


def _classified(rng, split, labels, truth, edge):
    """Random logits with the truth raised by ``edge``; a majority floor when ``edge`` is None."""
    n, classes = len(truth), len(labels)
    if edge is None:
        probabilities = np.full((n, classes), 1 / classes)
    else:
        logits = rng.normal(0, 1, (n, classes))
        logits[np.arange(n), truth] += edge
        logits[np.arange(n), (truth + 1) % classes] += edge / 2.5
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        probabilities = probabilities**2.3 / (probabilities**2.3).sum(axis=1, keepdims=True)
    said = probabilities.argmax(axis=1)
    return _table(
        split,
        PHRASES,
        [labels[i] for i in truth],
        [labels[i] for i in said],
        probabilities.max(axis=1).tolist(),
        probabilities.tolist(),
    )


def _table(split, texts, label, prediction, probability, probabilities):
    n = len(label)
    return pa.table(
        {
            "split": [split] * n,
            "row": list(range(1, n + 1)),
            "text": [texts[i % len(texts)] for i in range(n)],
            "label": label,
            "prediction": prediction,
            "probability": pa.array(probability, pa.float64()),
            "probabilities": pa.array(probabilities, pa.list_(pa.float64())),
        }
    )


def _judged(table: pa.Table) -> Evaluation:
    rows = table.to_pylist()
    n = len(rows)
    share = sum(r["label"] == r["prediction"] for r in rows) / n
    half = 1.96 * np.sqrt(max(share * (1 - share), 0.25 / n) / n)
    return Evaluation(
        n,
        {"accuracy": share, "macro_f1": share - 0.004, "nll": 0.61, "ece": 0.041},
        {"accuracy": (max(share - half, 0.0), min(share + half, 1.0)), "nll": (0.52, 0.7)},
    )


def _curve(metric: str, start: float, end: float) -> LearningCurve:
    points = []
    for i in range(1, 11):
        share = 1 - np.exp(-i / 3)
        wobble = 0.02 * ((i * 7) % 3 - 1) - 0.03 * max(0, i - 8)
        points.append(Point(24 * i, "train", "loss", float(2.1 * np.exp(-i / 2.5) + 0.05)))
        points.append(Point(24 * i, "dev", metric, float(start + (end - start) * share + wobble)))
        points.append(Point(24 * i, "dev", "loss", float(2.0 * np.exp(-i / 3) + 0.45 + 0.01 * i)))
    return LearningCurve(tuple(points))


def _cost() -> Cost:
    return Cost(41.27, 6.1, 8.9, 5.2, 612_000_000, 268_000, 98_304 + 3_080, 22_713_216 + 101_384, 412_340, 3.62e13)
