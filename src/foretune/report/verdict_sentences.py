"""A comparison in sentences. What may be said follows from the kind of a contrast, and that from its adjusted interval.

The rules that everything here keeps: "better" stands only where the adjusted interval lies wholly on one side of zero;
"equivalent" only after two one-sided tests against a margin that was declared before the runs; a difference that was
not found is said together with the least one that would have been.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from foretune.records import ALL, SCORE, Contrast, Verdict
from foretune.report import units
from foretune.report import verdict_words as words

Scope = tuple[str, int | None]
"""A task (or all of them) and a label budget (or None for all)."""

SINGLE = "a single seed does not tell what another one would give"


def claim(contrast: Contrast, shots_are: str = "total", n_tasks: int = 1) -> str:
    """One contrast as a sentence, with its interval, its p and what it rests on.

    >>> from foretune.records import Measured
    >>> found = Contrast("lora", "full", "cola", 16, Measured(0.012, -0.008, 0.032, n_seeds=5), 0.2, 0.4, 3, 0.031)
    >>> claim(found).replace(units.NBSP, " ")  # doctest: +NORMALIZE_WHITESPACE
    'No difference found between `lora` and `full` on `cola` with 16 labels: +1.2 points [−0.8, 3.2] of accuracy
    (p = 0.400, adjusted for 3 contrasts; 5 seeds). With these runs a true difference of 3.1 points would have been
    found with a probability of 80 %.'
    """
    tasks = contrast.difference.n_tasks or n_tasks
    where = words.measure(contrast) + words.place(contrast.task, contrast.shots, shots_are, tasks)
    kind = contrast.kind
    if kind in ("better", "worse"):
        return _won(contrast, where)
    both = f"{words.code(contrast.first)} and {words.code(contrast.second)}"
    if kind == "refused":
        reason = contrast.refused if contrast.refused is not None else SINGLE
        seen = f" ({_seen(contrast)})" if math.isfinite(contrast.difference.value) else ""
        return f"Nothing is claimed of {both} {where}{seen}: {reason.rstrip('.')}."
    if kind == "equivalent" and contrast.margin is not None:
        within = words.margin(contrast.metric, contrast.margin)
        tested = f"TOST, p {words.p_value(contrast.equivalence_p)}"
        return f"{both} are equivalent within {within} {where}: {_seen(contrast)} ({tested}, {_basis(contrast)})."
    if not math.isfinite(contrast.difference.low + contrast.difference.high):
        return (
            f"Nothing can be said of {both} {where} ({_seen(contrast)}): nothing varied between the runs, "
            "so that there is no interval."
        )
    return f"No difference found between {both} {where}: {_seen(contrast)} ({_tested(contrast)}). {power(contrast)}"


def power(contrast: Contrast) -> str:
    """The minimum detectable difference as a sentence."""
    if not math.isfinite(contrast.detectable):
        return "What these runs could have found is not known."
    least = units.difference(contrast.metric, abs(contrast.detectable)).removeprefix("+")
    return f"With these runs a true difference of {least} would have been found with a probability of 80{units.NBSP}%."


def headline(verdict: Verdict) -> str:
    """The one sentence that stands first."""
    groups = scopes(verdict)
    if not verdict.cells:
        return "No run has ended yet"
    if not groups:
        return "Nothing was set side by side: these are scores, not a comparison"
    found = {scope: leader(group) for scope, group in groups.items()}
    first = next(iter(found.values()))
    looked_at = [contrast for group in groups.values() for contrast in group]
    kinds = {contrast.kind for contrast in looked_at}
    silent = _scoreless(verdict)
    if first is not None and set(found.values()) == {first} and silent:
        return f"{words.code(first)} leads where there are scores; {units.plural(silent, 'cell')} without one"
    if first is not None and set(found.values()) == {first}:
        return f"{words.code(first)} is better than {_others(looked_at, first)} {_everywhere(verdict, list(groups))}"
    if any(found.values()):
        return f"Which method leads depends on {_depends(list(groups))}"
    if kinds & {"better", "worse"}:
        return "Some methods differ, but no single one leads"
    if kinds == {"refused"}:
        return "Nothing can be claimed from these runs"
    if kinds == {"equivalent"} and (within := words.common([_margin(c) for c in looked_at])):
        return f"All methods are equivalent within {within}"
    return "No difference found between the methods"


def _scoreless(verdict: Verdict) -> int:
    """How many cells of the protocol have no score: nobody is ahead "on every task" of methods that gave none."""
    cells = ((method, task, shots) for method in verdict.methods for task in verdict.tasks for shots in verdict.shots)
    return sum((cell := verdict.cell(*each)) is None or cell.score is None for each in cells)


def lead(verdict: Verdict) -> list[str]:
    """What follows the headline: how many contrasts said what, and who is not beaten where."""
    said = [tally(verdict.contrasts)] if verdict.contrasts else []
    for scope, group in scopes(verdict).items():
        where = words.place(*scope, verdict.shots_are, len(verdict.tasks))
        first = leader(group)
        if first is not None:
            said.append(f"{words.code(first)} is better than {_others(group, first)} {where}.")
        elif standing := unbeaten(group):
            said.append(f"Not shown to be below any other method {where}: {words.names(standing)}.")
    return said


def tally(contrasts: Sequence[Contrast]) -> str:
    """How many contrasts said what.

    >>> from foretune.records import Measured
    >>> tally([Contrast("lora", "full", "cola", 16, Measured(0.0), 1.0, 1.0, 1, 0.1)]).replace(units.NBSP, " ")
    'Of 1 contrast: in 1 no difference was found.'
    """
    kinds = [contrast.kind for contrast in contrasts]
    found = kinds.count("better") + kinds.count("worse")
    parts = [
        (found, "a difference was found"),
        (kinds.count("equivalent"), "the two are equivalent within the declared margin"),
        (kinds.count("undecided"), "no difference was found"),
        (kinds.count("refused"), "nothing is claimed"),
    ]
    told = "; ".join(f"in {units.count(n)} {what}" for n, what in parts if n)
    return f"Of {units.plural(len(contrasts), 'contrast')}: {told}."


def claims(verdict: Verdict, kinds: Sequence[str]) -> list[str]:
    """The sentences of all contrasts of some kinds: those across tasks first, then by the size of the difference."""
    chosen = [contrast for contrast in verdict.contrasts if contrast.kind in kinds]
    ordered = sorted(chosen, key=lambda c: (c.task != ALL, c.measure != SCORE, -_size(c)))
    return [claim(contrast, verdict.shots_are, len(verdict.tasks)) for contrast in ordered]


def scopes(verdict: Verdict) -> dict[Scope, list[Contrast]]:
    """The contrasts of the in-domain score that a reader cares for most: across tasks where there are any."""
    found = [contrast for contrast in verdict.contrasts if contrast.measure == SCORE]
    overall = [contrast for contrast in found if contrast.task == ALL]
    groups: dict[Scope, list[Contrast]] = {}
    for contrast in overall or found:
        groups.setdefault((contrast.task, contrast.shots), []).append(contrast)
    return groups


def leader(contrasts: Sequence[Contrast]) -> str | None:
    """The one method that is better than every other one of its group; None where there is none."""
    methods = {name for contrast in contrasts for name in (contrast.first, contrast.second)}
    for method in sorted(methods):
        if {_beaten(c) for c in contrasts if _winner(c) == method} == methods - {method}:
            return method
    return None


def unbeaten(contrasts: Sequence[Contrast]) -> list[str]:
    """The methods that no contrast shows to be worse than another; empty where no contrast shows anything."""
    beaten = {_beaten(contrast) for contrast in contrasts} - {None}
    methods = dict.fromkeys(name for contrast in contrasts for name in (contrast.first, contrast.second))
    return [name for name in methods if name not in beaten] if beaten else []


def _winner(contrast: Contrast) -> str | None:
    return {"better": contrast.first, "worse": contrast.second}.get(contrast.kind)


def _beaten(contrast: Contrast) -> str | None:
    return {"better": contrast.second, "worse": contrast.first}.get(contrast.kind)


def _won(contrast: Contrast, where: str) -> str:
    """The winner comes first, so that the interval is read with one sign."""
    won, lost = words.code(_winner(contrast) or ""), words.code(_beaten(contrast) or "")
    found = contrast.difference
    ends = (found.low, found.high) if contrast.kind == "better" else (-found.high, -found.low)
    shown = words.bounds(contrast.metric, type(found)(abs(found.value), *ends))
    small = (
        f" The difference is nevertheless within {words.margin(contrast.metric, contrast.margin)} "
        f"(TOST, p {words.p_value(contrast.equivalence_p)})."
        if contrast.within_margin and contrast.margin is not None
        else ""
    )
    by = words.amount(contrast.metric, found.value)
    return f"{won} is better than {lost} {where}, by {by} {shown} ({_tested(contrast)}).{small}"


def _seen(contrast: Contrast) -> str:
    form = units.metric(contrast.metric)
    of = "of" if form.scale == 100 else "in"
    return f"{words.difference(contrast.metric, contrast.difference)} {of} {form.title}"


def _tested(contrast: Contrast) -> str:
    return f"p {words.p_value(contrast.adjusted_p)}, {_basis(contrast)}"


def _basis(contrast: Contrast) -> str:
    rests = words.basis(contrast.difference)
    return f"adjusted for {units.plural(contrast.contrasts, 'contrast')}" + (f"; {rests}" if rests else "")


def _others(contrasts: Sequence[Contrast], method: str) -> str:
    others = {name for c in contrasts for name in (c.first, c.second)} - {method}
    return words.code(next(iter(others))) if len(others) == 1 else f"each of the {len(others)} other methods"


def _everywhere(verdict: Verdict, groups: Sequence[Scope]) -> str:
    if len(groups) == 1:
        return words.place(*groups[0], verdict.shots_are, len(verdict.tasks))
    tasks = dict.fromkeys(task for task, _ in groups)
    if len(tasks) > 1:
        return "on every task and with every label budget" if len(groups) > len(tasks) else "on every task"
    return f"{words.place(groups[0][0], None, '', len(verdict.tasks)).removesuffix(' and all label budgets')} " + (
        "with every label budget"
    )


def _depends(groups: Sequence[Scope]) -> str:
    tasks, budgets = ({scope[i] for scope in groups} for i in range(2))
    parts = [name for name, found in (("the task", tasks), ("the number of labels", budgets)) if len(found) > 1]
    return " and ".join(parts) or "what is compared"


def _margin(contrast: Contrast) -> str:
    return "" if contrast.margin is None else words.margin(contrast.metric, contrast.margin)


def _size(contrast: Contrast) -> float:
    """Relative to the scale of its metric, for the order alone."""
    value = abs(contrast.difference.value)
    return value if math.isfinite(value) else 0.0
