"""Records -> tables of text. Every cell is a finished string, so that the template lays out and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from foretune.records import Evaluation, Plan, RunRecord
from foretune.report import units
from foretune.report.sentences import Difference, followed

LABEL_LIMIT = 80


@dataclass(frozen=True)
class Column:
    """A heading and how its cells are set: ``text``, ``number`` (right, tabular) or ``user`` (any script)."""

    name: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A caption, columns and rows of finished cells; on a phone, more than two columns become a block per row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]


def floors(record: RunRecord, split: str, differences: Sequence[Difference]) -> Table:
    """The result and each floor on one split, with the difference that the verdict used."""
    by_floor = {d.floor: d for d in differences}
    rows = [("this run", _scored(record.metric, record.evaluations[split]), units.NONE)]
    for name, splits in record.floors.items():
        if split in splits:
            rows.append(
                (units.floor_title(name), _scored(record.metric, splits[split]), _difference(by_floor.get(name)))
            )
    n = units.count(record.evaluations[split].n)
    title = units.metric(record.metric).title
    return Table(
        f"{title[0].upper()}{title[1:]} on {split}, n = {n}, 1 seed; 95 % intervals over examples",
        (Column("Method"), Column("Score", "number"), Column("Run minus floor", "number")),
        tuple(rows),
    )


def scores(record: RunRecord) -> Table:
    """Every metric of every split."""
    names = list(dict.fromkeys([record.metric, *(m for e in record.evaluations.values() for m in e.scores)]))
    columns = (Column("Metric"), *(Column(units.split_title(s), "number") for s in record.evaluations))
    rows = [
        (
            units.metric(name).title,
            *(_scored(name, e) if name in e.scores else units.NONE for e in record.evaluations.values()),
        )
        for name in names
    ]
    rows.append(("examples", *(units.count(e.n) for e in record.evaluations.values())))
    return Table("All scores with their 95 % intervals over examples, 1 seed", columns, tuple(rows))


def expected(plan: Plan | None, record: RunRecord) -> Table | None:
    """What the recommender foretold beside what came, or None where it foretold nothing; the score is that on dev."""
    chosen = followed(plan, record) if plan else None
    if chosen is None or (chosen.score is None and chosen.seconds is None and chosen.bytes is None):
        return None
    rows = []
    if chosen.score is not None:
        told = units.scored(record.metric, chosen.score, chosen.interval)
        for split in ("dev", "test"):
            if split in record.evaluations:
                name = f"{units.metric(record.metric).title}, {split}"
                rows.append(
                    (name, told if split == "dev" else units.NONE, _scored(record.metric, record.evaluations[split]))
                )
    if chosen.seconds is not None:
        rows.append(("whole run", units.seconds(chosen.seconds), units.seconds(record.cost.seconds)))
    if chosen.bytes is not None:
        rows.append(("peak memory", units.size(chosen.bytes), units.size(record.cost.peak_bytes)))
    columns = (Column("Quantity"), Column("Expected", "number"), Column("Achieved", "number"))
    return Table("Expected before the run, and achieved", columns, tuple(rows))


def gaps(record: RunRecord) -> Table:
    """Each out-of-domain set beside the test split."""
    rows = []
    for gap in record.gaps:
        judged = record.evaluations.get(f"ood:{gap.name}")
        own = _scored(gap.metric, judged) if judged else units.NONE
        n = units.count(judged.n) if judged else units.NONE
        bounds = units.interval(gap.metric, (gap.low, gap.high))
        rows.append((units.short(gap.name, LABEL_LIMIT), n, own, f"{units.difference(gap.metric, gap.value)} {bounds}"))
    columns = (
        Column("Set", "user"),
        Column("n", "number"),
        Column("Score", "number"),
        Column("Test minus set", "number"),
    )
    return Table("Out of domain: score and gap, with 95 % intervals", columns, tuple(rows))


def cost(record: RunRecord) -> Table | None:
    """What the run took; what was not measured is left out, and None is returned when nothing was."""
    spent = record.cost
    share = 100 * spent.trainable_parameters / max(spent.total_parameters, 1)
    rows = (
        (spent.seconds, "wall time, all together", units.seconds(spent.seconds)),
        (spent.peak_bytes, "peak memory above the baseline", units.size(spent.peak_bytes)),
        (
            spent.trainable_parameters,
            "trained parameters",
            f"{units.large(spent.trainable_parameters)} ({share:.3g}{units.NBSP}%)",
        ),
        (spent.total_parameters, "all parameters", units.large(spent.total_parameters)),
        (spent.adapter_bytes, "saved adapter", units.size(spent.adapter_bytes)),
        (spent.prompt_tokens, "tokens read per answer", f"{spent.prompt_tokens or 0:.1f}"),
        (spent.tokens, "training tokens, padding excluded", units.large(spent.tokens)),
        (spent.flops, "training operations, estimated", units.flops(spent.flops)),
    )
    found = tuple((name, text) for value, name, text in rows if value)
    if not found:
        return None
    return Table("Measured during the run; operations are estimated from parameters and tokens", _pair("number"), found)


def identity(record: RunRecord) -> Table:
    """What a rerun needs to know: digests, seeds, versions, times."""
    seeds = record.config.seeds
    rows = {
        "run (digest of the configuration)": record.digest,
        "model weights": record.config.model.fingerprint,
        "data rows": record.config.task.fingerprint,
        "trainable weights before the first step": record.initial_hash,
        "seeds": f"data {seeds.data}, init {seeds.init}, order {seeds.order}, dropout {seeds.dropout}",
        "started": record.started,
        "finished": record.finished,
        **record.surroundings,
    }
    found = tuple((name, str(value)) for name, value in rows.items() if value)
    return Table("Identity and surroundings", _pair("user"), found)


def data(record: RunRecord) -> Table | None:
    """The task's card, or None when the run kept none."""
    card = record.card
    if card is None:
        return None
    rows: dict[str, str] = {f"rows, {units.split_title(s)}": units.count(n) for s, n in card.rows.items()}
    if card.classes:
        rows |= {
            "classes": units.count(card.classes),
            "most frequent class": f"{100 * card.majority:.1f}{units.NBSP}% of the training rows",
            "label entropy": f"{card.label_entropy:.3g}{units.NBSP}nats",
        }
    rows |= {name.replace("_", " "): f"{value:.4g}" for name, value in card.features.items()}
    return Table("The task in numbers", _pair("number"), tuple(rows.items()))


def _pair(kind: str) -> tuple[Column, ...]:
    return Column("Quantity"), Column("Value", kind)


def _scored(name: str, judged: Evaluation) -> str:
    return units.scored(name, judged.scores.get(name), judged.intervals.get(name))


def _difference(found: Difference | None) -> str:
    if found is None:
        return units.NONE
    bounds = units.interval(found.metric, (found.low, found.high))
    return f"{units.difference(found.metric, found.value)} {bounds}".rstrip()
