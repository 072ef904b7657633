"""The model card: README.md of the adapter folder, as the Hub reads it and as a stranger needs it.

It says how to load the adapter with stock peft and transformers, how good it is with interval, count and floors, and
what it must not be used for. Unlike the report it may be published: it holds no row of the data and no local path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from foretune.records import Evaluation, RunRecord
from foretune.report import compare, displacement, sentences, simplex, units
from foretune.report.snippet import base_name, is_hub_id, library, load_and_predict, public

PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "choice": "text-classification",
    "generation": "text-generation",
}
LONGEST = 400


def card(record: RunRecord, verdict: Sequence[str] = ()) -> str:
    """The card of a run, ready to be written as ``adapter/README.md``.

    Args:
        verdict: ``page.verdict`` of the run folder, which pairs run and floors; by default from the record's intervals.

    >>> from foretune.records import ModelRef, Part, RunConfig, Schedule, TaskRef
    >>> config = RunConfig(ModelRef("bert-base-uncased", pooling="cls"), TaskRef("train.csv", "classification"),
    ...                    Part("lora"), Part("head"), Schedule(10))
    >>> card(RunRecord(config, "ok", labels=("no", "yes"))).splitlines()[:3]
    ['---', 'base_model: bert-base-uncased', 'library_name: peft']
    """
    split = sentences.judged_split(record.evaluations)
    if not verdict:
        differences = compare.differences(record, split, None, None) if split else ()
        verdict = (sentences.headline(record, split), *sentences.verdict(record, split, differences))
    parts = [
        f"---\n{_yaml(_header(record, split))}---",
        f"# {_plain(task_name(record))}: {record.config.tuner.name} on {_plain(base_name(record.config))}",
        " ".join(f"{_plain(sentence).rstrip('.')}." for sentence in verdict),
        f"## Results\n\n{_results(record)}",
        f"## How to use it\n\n```python\n{load_and_predict(record.config, record.stock_refusal)}```",
        f"## Limits\n\n{_limits(record)}",
        *_changed(record),
        f"## Cost\n\n{_cost(record)}",
        f"Run `{record.digest}` of foretune.",
    ]
    return "\n\n".join(parts) + "\n"


def task_name(record: RunRecord) -> str:
    """The task's name; of a file only its last part."""
    return record.card.name if record.card else public(record.config.task.source)


def _header(record: RunRecord, split: str | None) -> dict[str, Any]:
    config, kind = record.config, record.config.task.kind
    header: dict[str, Any] = {
        "base_model": base_name(record.config),
        "library_name": library(config, record.stock_refusal),
        "pipeline_tag": PIPELINES[kind],
        "tags": ["foretune", config.tuner.name, kind],
    }
    if is_hub_id(config.task.source) and config.task.source != "memory":
        header["datasets"] = [config.task.source]
    if split is None:
        return header
    header["metrics"] = [record.metric]
    header["model-index"] = [
        {
            "name": f"{config.tuner.name}-{record.digest}",
            "results": [_indexed(record, name, judged) for name, judged in record.evaluations.items() if name != "dev"],
        }
    ]
    if not header["model-index"][0]["results"]:
        del header["model-index"]
    return header


def _indexed(record: RunRecord, split: str, judged: Evaluation) -> dict[str, Any]:
    """One split in the Hub's model-index form; scores that are no number are left out."""
    metrics = []
    for name, value in judged.scores.items():
        if units.score(name, value) == units.NONE:
            continue
        bounds = units.interval(name, judged.intervals.get(name))
        title = units.metric(name).title + (f", 95 % interval {bounds}" if bounds else "")
        metrics.append({"type": name, "value": round(float(value), 6), "name": f"{title}, n = {judged.n}, 1 seed"})
    kind = record.config.task.kind
    return {
        "task": {"type": PIPELINES[kind], "name": kind},
        "dataset": {"name": task_name(record), "type": task_name(record), "split": split},
        "metrics": metrics,
    }


def _results(record: RunRecord) -> str:
    if not record.evaluations:
        return "Nothing was evaluated."
    metric = record.metric
    lines = [f"| Split | n | This adapter, {units.metric(metric).title} | Floors |", "|---|---:|---:|---|"]
    for split, judged in record.evaluations.items():
        floors = "; ".join(
            f"{units.floor_title(name)} {_scored(metric, splits[split])}"
            for name, splits in record.floors.items()
            if split in splits
        )
        title = _plain(units.split_title(split))
        lines.append(f"| {title} | {units.count(judged.n)} | {_scored(metric, judged)} | {floors or units.NONE} |")
    gaps = [f"- {_plain(sentences.gap(gap, compare.greater_is_better(gap.metric)))}" for gap in record.gaps]
    note = "Intervals are 95 % over examples, from one seed. Dev chose the checkpoint and is therefore optimistic."
    if record.landscape is not None:
        note += f" {simplex.scores(record.landscape)}"
    return "\n".join([*lines, "", note, *(["", *gaps] if gaps else [])])


def _limits(record: RunRecord) -> str:
    config = record.config
    rows = record.card.rows.get("train") if record.card else None
    learned = f"on {units.plural(rows, 'training row')}" if rows else "on few rows"
    said = [
        f"It was tuned {learned} with one seed; another draw of the rows gives another score.",
        f"Text beyond {units.plural(config.model.max_length, 'token')} is cut.",
    ]
    if not any(split.startswith("ood:") for split in record.evaluations):
        said.append("It was not tested outside the domain of its training rows.")
    if record.labels:
        said.append(f"It knows {units.plural(len(record.labels), 'label')} and gives one of them to any text whatever.")
    said += [units.short(text, LONGEST) for text in (*record.warnings, *sentences.flags(record))]
    return "\n".join(f"- {_plain(sentence)}" for sentence in said)


def _changed(record: RunRecord) -> list[str]:
    """Which of the base's weights are other ones now, where the tuner could say."""
    if record.displacement is None:
        return []
    return ["## What it changed\n\n" + "\n".join(f"- {_plain(text)}" for text in displacement.words(record))]


def _cost(record: RunRecord) -> str:
    cost = record.cost
    share = 100 * cost.trainable_parameters / max(cost.total_parameters, 1)
    return (
        f"{units.seconds(cost.train_seconds)} of training, {units.large(cost.tokens)} tokens, "
        f"{units.size(cost.peak_bytes)} of memory above the baseline, {units.large(cost.trainable_parameters)} trained "
        f"parameters ({share:.3g}{units.NBSP}%), {units.size(cost.adapter_bytes)} on disk."
    )


def _scored(metric: str, judged: Evaluation) -> str:
    return units.scored(metric, judged.scores.get(metric), judged.intervals.get(metric))


def _plain(text: str) -> str:
    """User's words inside Markdown: one line, nothing that Markdown or HTML would obey.

    >>> _plain("a|b\\n<script>_x_")
    'a\\\\|b &lt;script&gt;\\\\_x\\\\_'
    """
    flat = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split(" ")).replace("\n", " ")
    return re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", flat.replace("\r", " "))


def _flat(value: Any) -> Any:
    """Every text on one line, for a line of three hyphens would end the header."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, Mapping):
        return {key: _flat(item) for key, item in value.items()}
    return [_flat(item) for item in value] if isinstance(value, list) else value


def _yaml(plain: Mapping[str, Any]) -> str:
    import yaml

    text: str = yaml.safe_dump(_flat(plain), sort_keys=False, allow_unicode=True, width=100)
    return text
