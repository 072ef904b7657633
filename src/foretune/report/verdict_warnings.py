"""What a reader of a comparison must be told without asking: flags in plain words, failures, gaps, constant answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foretune.records import CellResult, Measured, MissingCell, Outside, Verdict
from foretune.report import units
from foretune.report import verdict_words as words

MEANINGS = {
    "replicated_runs": "Runs that should differ gave the very same predictions: they count as one run, not as several.",
    "same_sample": "Runs with different data seeds drew the same training rows.",
    "same_init": "Runs with different seeds began with the same weights.",
    "one_draw": "All runs learned from the same rows: what another draw would give is not known.",
    "constant_prediction": "Every row got the same answer: nothing was learned that depends on the text.",
    "at_or_below_majority": "Not above always giving the most frequent label, which reads no text.",
    "majority_not_excluded": "Above always giving the most frequent label, but by no more than chance may give.",
    "ood_at_chance": "Out of domain it is not shown to be above blind guessing.",
    "selected_on_test": "Something was chosen by looking at test rows: the score is optimistic.",
    "unequal_tuning": "The methods did not get the same effort of tuning.",
    "unequal_budget": "The methods did not train for as many steps, or on batches as large.",
    "eval_text_in_train": "Texts that are tested on were also trained on.",
    "label_budget_exceeded": "More labels were used than the budget allows.",
    "nan": "Some outputs are no number, so that there is no score.",
    "nan_loss": "The training loss was no number at some step.",
}
"""What a flag means to somebody who does not know its name."""

STATUSES = {
    "failed": "failed",
    "oom": "ran out of memory",
    "diverged": "diverged",
    "stopped": "was stopped",
    "running": "is not finished",
}

LONGEST = 300


@dataclass(frozen=True)
class Warned:
    """One flag, its meaning, and a sentence for every place where it was raised."""

    name: str
    meaning: str
    places: tuple[str, ...]


def warned(verdict: Verdict) -> tuple[Warned, ...]:
    """The flags of the comparison and of its cells, each told once with all its places."""
    found: dict[str, list[str]] = {}
    for where, flag in _raised(verdict):
        name, _, figures = flag.partition(":")
        told = units.short(figures, LONGEST)
        found.setdefault(name.strip(), []).append(": ".join(text for text in (where, told) if text) + ".")
    return tuple(Warned(name, meaning(name), tuple(dict.fromkeys(places))) for name, places in found.items())


def meaning(name: str) -> str:
    """A flag in plain words; an unknown one keeps its name.

    >>> meaning("teacher_missing")
    'Teacher missing.'
    """
    return MEANINGS.get(name, f"{name.replace('_', ' ').capitalize()}.")


def marks(cell: CellResult) -> str:
    """The names of a cell's flags, for a table.

    >>> marks(CellResult("full", "cola", 2, 4, "accuracy", True, (), flags=("same_init: 2 runs", "same_init: 3 runs")))
    'same init'
    """
    return ", ".join(dict.fromkeys(flag.partition(":")[0].strip().replace("_", " ") for flag in cell.flags))


def constants(verdict: Verdict) -> list[str]:
    """A sentence for every method that answers one label whatever the text, in or out of domain."""
    found: dict[tuple[str, str, str, str | None], list[int]] = {}
    for cell in verdict.cells:
        each = [(cell.constant, None), *((outside.constant, outside.name) for outside in cell.outside)]
        for answer, name in each:
            if answer is not None:
                found.setdefault((cell.method, cell.task, answer, name), []).append(cell.shots)
    said = []
    for (method, task, answer, name), shots in found.items():
        budgets = words.listed([words.budget(n) for n in shots])
        per = " per class" if verdict.shots_are == "per_class" and any(shots) else ""
        rows = "every test row" if name is None else f"every row of {words.code(name)}"
        said.append(
            f"{words.code(method)}, learned on {words.code(task)} with {budgets} labels{per}, answers "
            f"{units.quoted(answer)} to {rows}: a constant classifier, right on that label and on no other."
        )
    return said


def gaps(verdict: Verdict) -> str | None:
    """In how many cells a gap was found out of domain; None where no gap was measured."""
    found = [outside.gap for cell in verdict.cells for outside in cell.outside if outside.gap is not None]
    if not found:
        return None
    down, up = sum(each.low > 0 for each in found), sum(each.high < 0 for each in found)
    return (
        f"Of {units.plural(len(found), 'gap')}, {units.count(down)} show a loss out of domain, {units.count(up)} a "
        f"gain, and {units.count(len(found) - down - up)} neither. Each interval stands by itself, unadjusted."
    )


def gap(verdict: Verdict, cell: CellResult, outside: Outside) -> str | None:
    """What is lost out of domain, with its interval; None where there is no gap to speak of."""
    lost = outside.gap
    if lost is None:
        return None
    where = f"{words.code(cell.method)} {_where(verdict, cell)}"
    rests = f" ({words.basis(lost)})" if words.basis(lost) else ""
    by = f"{words.amount(cell.metric, lost.value)} on {words.code(outside.name)}"
    if lost.low > 0:
        return f"{where} loses {by} {words.bounds(cell.metric, lost)}{rests}."
    if lost.high < 0:
        turned = Measured(-lost.value, -lost.high, -lost.low)
        return f"{where} gains {by} {words.bounds(cell.metric, turned)}{rests}."
    return f"{where}: no gap found on {words.code(outside.name)}, {words.difference(cell.metric, lost)}{rests}."


def failures(verdict: Verdict) -> list[str]:
    """A sentence for every cell with runs that gave no score, with the first error of each kind."""
    said = []
    for cell in verdict.cells:
        if not cell.failed:
            continue
        lost = [run.status for run in cell.failed]
        told = ", ".join(
            f"{units.count(lost.count(status))} {STATUSES.get(status, status)}" for status in dict.fromkeys(lost)
        )
        errors = dict.fromkeys(units.short(run.error, LONGEST) for run in cell.failed if run.error)
        reason = f" {' '.join(errors)}" if errors else ""
        ran = units.plural(len(cell.runs), "run")
        said.append(f"{words.code(cell.method)} {_where(verdict, cell)}: of {ran}, {told}.{reason}")
    return said


def absent(verdict: Verdict) -> list[str]:
    """A sentence for every cell of the protocol of which runs are missing."""
    return [_absent(verdict, cell) for cell in verdict.missing]


def _absent(verdict: Verdict, cell: MissingCell) -> str:
    where = words.place(cell.task, cell.shots, verdict.shots_are, len(verdict.tasks))
    what = units.plural(len(cell.seeds), "run") if cell.seeds else "every run"
    verb = "is" if len(cell.seeds) == 1 or not cell.seeds else "are"
    pairs = ", ".join(f"{data}/{init}" for data, init in cell.seeds)
    seeds = f" (data/init seeds {units.short(pairs, 120)})" if pairs else ""
    reason = f": {units.short(cell.reason, LONGEST).rstrip('.')}" if cell.reason else ""
    return f"{words.code(cell.method)} {where}: {what} {verb} missing{seeds}{reason}."


def _where(verdict: Verdict, cell: CellResult) -> str:
    return words.place(cell.task, cell.shots, verdict.shots_are, len(verdict.tasks))


def _raised(verdict: Verdict) -> Iterator[tuple[str, str]]:
    for flag in verdict.flags:
        yield "", flag
    for cell in verdict.cells:
        where = f"{words.code(cell.method)} {_where(verdict, cell)}"
        for flag in cell.flags:
            yield where, flag
