"""A replay in words and tables: for a terminal, as Markdown, and as one page.

Means never stand alone: beside each are its spread over the recommender's seeds, the worst task, and how far the
default was missed there. Every p stands beside the number of tasks it rests on.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from foretune.comparison.replay.entries import DEFAULT
from foretune.comparison.replay.run import FULL_SEEDS, Replay
from foretune.comparison.replay.standings import Pairing
from foretune.comparison.replay.thresholds import Threshold
from foretune.comparison.replay.unraced import RANDOM
from foretune.report import html, table_files, units
from foretune.report.tables import Column, Table

TEMPLATE = "replay.html.j2"


def write(replay: Replay, path: Path) -> Path:
    """Write the replay as ``.html``, ``.md`` or ``.json``, by the ending of ``path``; anything else is a page.

    Raises:
        StoreError: it cannot be written.
    """
    match path.suffix.lower():
        case ".md":
            return html.written(path, as_markdown(replay))
        case ".json":
            return html.written(path, json.dumps(replay.to_json(), indent=1, allow_nan=False) + "\n")
    return html.written(path, render(replay))


def render(replay: Replay) -> str:
    """The page as text."""
    values = {
        "headline": headline(replay),
        "facts": facts(replay),
        "sentences": sentences(replay),
        "tables": every(replay),
        "reading": READING,
    }
    return html.rendered(TEMPLATE, ("style.css", "comparison.css"), values)


def as_markdown(replay: Replay) -> str:
    """The sentences as a list, then the tables."""
    title, *tables = table_files.as_markdown(every(replay), headline(replay)).split("\n\n", 1)
    said = "\n".join(f"- {table_files.markdown(sentence)}" for sentence in sentences(replay))
    return "\n\n".join([title, said, *tables])


READING = (
    "A regret of 0 is the best candidate of a task's pool in hindsight, on test; 1 is among its worst twentieth. The "
    "candidate that is judged was chosen on dev.",
    "A full-run equivalent is the work of one whole run. What was run in part is judged by what its whole run scores: "
    "the recommendation is a configuration.",
    "Intervals are percentile bootstraps over groups of tasks; with few groups they are too narrow, and the sign test "
    "and Wilcoxon's beside them are the ones to believe. Of twenty pairs that are alike, one has a p below .05: Holm's "
    "is Wilcoxon's, adjusted for all pairs of the table.",
    "Under a control something was shuffled that a recommender might know. One that does as well there was lucky "
    "without it.",
)


def headline(replay: Replay) -> str:
    """What was raced on."""
    settings = replay.settings
    where = f" of `{settings['collection']}`" if settings["collection"] else ""
    return f"Replay on {units.plural(len(replay.fields), 'task')}{where}, {settings['protocol']}"


def facts(replay: Replay) -> list[tuple[str, str]]:
    """The settings, one by one."""
    settings = replay.settings
    pools = [field.candidates for field in replay.fields]
    past = [field.past_tasks for field in replay.fields]
    known = "half known elsewhere, the other half raced on" if settings["unseen"] else "all"
    return [
        ("tasks", units.count(len(replay.fields))),
        ("groups", units.count(settings["groups"])),
        ("candidates", _range(pools)),
        ("past tasks", _range(past)),
        ("configurations", known),
        ("learned from", f"{settings['learn_from']} scores of past tasks"),
        ("seeds", units.count(settings["seeds"])),
        ("budget in", "full runs" if settings["unit"] == "runs" else "seconds, thinking included"),
    ]


def sentences(replay: Replay) -> list[str]:
    """What may be said, the first budget first, and what was left out."""
    said = [_led(replay, budget) for budget in replay.budgets]
    first = replay.budgets[0]
    said += [_against(row) for row in replay.pairings if row.budget == first and "shuffled" not in row.first]
    said += [
        _worst(replay, name, first) for name in replay.laps if DEFAULT in replay.regrets and "shuffled" not in name
    ]
    said += [
        f"{control.replace('-', ' ').capitalize()} change nothing for {', '.join(names)}, so no row is shown: nothing "
        "that was shuffled is read there."
        for control, names in replay.unchanged.items()
    ]
    said += [_threshold(row) for row in replay.thresholds]
    said += _first_look(replay)
    if replay.noise is None:
        said.append(
            "No configuration was run with several seeds, so the noise floor is not known: a small gain may be none."
        )
    else:
        said.append(
            f"Noise floor: repeated seeds of {units.plural(replay.noise[1], 'configuration')} differ by "
            f"{replay.noise[0]:.3f} (standard deviation); a smaller gain is none."
        )
    copies = sorted({name for field in replay.fields for name in field.left_out})
    if copies:
        said.append(f"Copies were kept apart: {units.plural(len(copies), 'task')} stood on neither side of some fold.")
    if DEFAULT not in replay.regrets:
        here = sum(math.isfinite(field.default) for field in replay.fields)
        where = f"on {here} of {len(replay.fields)} tasks alone" if here else "nowhere here"
        said.append(f"The published default is known {where}, so nothing is held against it.")
    return [*said, *replay.notes]


def _first_look(replay: Replay) -> list[str]:
    """What the full protocol would add."""
    few = replay.settings["seeds"] < FULL_SEEDS
    without = [] if replay.settings["controls"] else ["without controls"]
    if not few and not without:
        return []
    had = [*([f"with {units.plural(replay.settings['seeds'], 'seed')}"] if few else []), *without]
    return [
        f"A first look, {' and '.join(had)}: the full protocol (`--full`) has {FULL_SEEDS} seeds, whose spread is part "
        "of the result, and controls, which tell knowledge from luck."
    ]


def every(replay: Replay) -> list[Table]:
    """The tables in the order of reading."""
    return [means(replay), worst(replay), against(replay), by_task(replay), fields(replay)]


def means(replay: Replay) -> Table:
    """Mean normalised regret by entry and budget."""
    columns = [Column("Recommender"), *(Column(_budget(b), "number") for b in replay.budgets)]
    rows = []
    for name in replay.entries:
        cells = []
        for budget in replay.budgets:
            row = replay.standing(name, budget)
            text = f"{row.mean:.3f}" + (f" ± {row.spread:.3f}" if math.isfinite(row.spread) else "")
            text += f" ({row.hindsight:.3f})" if name in replay.laps else ""
            cells.append(text + (f", {row.missing:.0%} without" if row.missing else ""))
        thinking = units.seconds(replay.thinking(name)) if name in replay.laps else units.NONE
        rows.append((name, *cells, thinking))
    n = replay.settings["groups"]
    caption = (
        f"Mean normalised regret on test, n = {n} groups of tasks, {units.plural(replay.settings['seeds'], 'seed')}; ± "
        "standard deviation over seeds; in brackets had the best been chosen on test. Less is better"
    )
    return Table(caption, (*columns, Column("Thinking per race", "number")), tuple(rows))


def worst(replay: Replay) -> Table:
    """The worst task beside the mean, and the worst against the default."""
    rows = []
    for name in replay.entries:
        for budget in (replay.budgets[0], replay.budgets[-1]):
            row = replay.standing(name, budget)
            behind = f"{row.behind:+.3f}" if math.isfinite(row.behind) else units.NONE
            rows.append(
                (name, _budget(budget), f"{row.mean:.3f}", f"{row.worst:.3f}", row.worst_task, behind, row.behind_task)
            )
    columns = (
        Column("Recommender"),
        Column("Budget", "number"),
        Column("Mean", "number"),
        Column("Worst", "number"),
        Column("Worst task", "user"),
        Column("Most above the default", "number"),
        Column("There", "user"),
    )
    return Table(
        "Worst task beside the mean; above the default means worse than it", columns, tuple(dict.fromkeys(rows))
    )


def against(replay: Replay) -> Table:
    """Every recommender against what needs no race, and against the baselines that raced."""
    rows = tuple(
        (
            f"{row.first} minus {row.second}",
            _budget(row.budget),
            f"{row.difference:+.3f}",
            f"[{row.low:+.3f}, {row.high:+.3f}]" if math.isfinite(row.low) else units.NONE,
            f"{row.wins} : {row.losses}",
            f"{row.sign_p:.2g}",
            f"{row.wilcoxon_p:.2g}",
            f"{row.holm_p:.2g}",
            units.count(row.n),
            "" if row.below_noise is None else "yes" if row.below_noise else "no",
        )
        for row in replay.pairings
    )
    names = (
        "Budget",
        "Difference",
        "95 % bootstrap",
        "Better : worse",
        "p, sign",
        "p, Wilcoxon",
        "Holm",
        "n",
        "Below noise",
    )
    columns = (Column("Pair"), *(Column(name, "number") for name in names))
    return Table("Paired over groups of tasks, in normalised regret; below 0 the first is better", columns, rows)


def by_task(replay: Replay) -> Table:
    """Regret task by task at the first budget, normalised and raw."""
    names = [name for name in replay.entries if "shuffled" not in name]
    columns = (Column("Task", "user"), *(Column(name, "number") for name in names))
    rows = tuple(
        (
            field.task,
            *(
                f"{replay.regrets[name][at, :, 0].mean():.3f} ({replay.raw[name][at, :, 0].mean():.4g})"
                for name in names
            ),
        )
        for at, field in enumerate(replay.fields)
    )
    caption = f"Regret by task at {_budget(replay.budgets[0])}: normalised, and in brackets in the unit of the metric"
    return Table(caption, columns, rows)


def fields(replay: Replay) -> Table:
    """What each task offered."""
    columns = (
        Column("Task", "user"),
        Column("Left out", "user"),
        Column("Metric"),
        *(Column(name, "number") for name in ("Candidates", "Past runs", "Past tasks", "Best", "Default")),
        Column("Copies kept apart", "user"),
    )
    rows = tuple(
        (
            field.task,
            field.fold,
            f"{field.metric}, {field.direction}, {'test' if field.on_test else 'dev'}",
            units.count(field.candidates),
            units.count(field.past_runs),
            units.count(field.past_tasks),
            f"{field.best:.4g}",
            f"{field.default:.4g}" if math.isfinite(field.default) else units.NONE,
            ", ".join(field.left_out) or units.NONE,
        )
        for field in replay.fields
    )
    return Table("Held-out tasks: pool, past and the scores in between", columns, rows)


def _led(replay: Replay, budget: float) -> str:
    raced = [name for name in replay.entries if "shuffled" not in name]
    rows = sorted((replay.standing(name, budget) for name in raced), key=lambda row: row.mean)
    best = rows[0]
    others = ", ".join(f"{row.entry} {row.mean:.3f}" for row in rows[1:])
    led = f"{best.entry} has the smallest mean regret, {best.mean:.3f} (worst task {best.worst:.3f})"
    return f"{_budget(budget)}: {led}; {others}." if others else f"{_budget(budget)}: {led}."


def _against(row: Pairing) -> str:
    direction = "below" if row.difference < 0 else "above" if row.difference > 0 else "from"
    p = f"Wilcoxon p = {row.wilcoxon_p:.2g}, {row.holm_p:.2g} among all pairs, n = {row.n}"
    noise = " That is less than a seed alone does." if row.below_noise else ""
    other = {RANDOM: "random search in expectation", DEFAULT: "the default"}.get(row.second, row.second)
    return (
        f"At {_budget(row.budget)} {row.first} is {abs(row.difference):.3f} {direction} {other}, better on {row.wins} "
        f"and worse on {row.losses} ({p}).{noise}"
    )


def _worst(replay: Replay, name: str, budget: float) -> str:
    row = replay.standing(name, budget)
    floor = replay.noise[0] if replay.noise else 0.0
    differences = (replay.regrets[name] - replay.regrets[DEFAULT])[..., 0].mean(axis=1)
    held = float((differences <= floor).mean())
    if row.behind <= 0:
        return f"At {_budget(budget)} {name} is nowhere worse than the default."
    return (
        f"At {_budget(budget)} {name} is not worse than the default on {held:.0%} of the tasks; at worst it is "
        f"{row.behind:.3f} above it, on `{row.behind_task}`."
    )


def _threshold(row: Threshold) -> str:
    return (
        f"Check {row.check} of the specification asks of {row.entry} at {_budget(row.budget)}: {row.asked}. Found: "
        f"{row.found}, {'met' if row.met else 'not met'}."
    )


def _budget(budget: float) -> str:
    return f"{budget:g}{units.NBSP}full run{'' if budget == 1 else 's'}"


def _range(values: list[int]) -> str:
    low, high = units.count(min(values)), units.count(max(values))
    return low if low == high else f"{low} to {high}"
