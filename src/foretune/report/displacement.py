"""Where the budget of a subset went, in words and tables: layers and kinds of matrices, distances, when it settled.

Nothing is claimed of what that means: a subset that gathers somewhere is an observation of one run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from foretune.records import OUTSIDE, Displacement, RunRecord, Share, Spread
from foretune.report import units
from foretune.report.figures import ENDLESS
from foretune.report.tables import Column, Table

UNEVEN = 0.1
"""A density that is off the mean by a larger share of it is worth a picture and a word."""

GAP = f"|W{units.NBSP}{units.MINUS}{units.NBSP}W₀|"
"""The displacement of a weight."""


def words(record: RunRecord) -> tuple[str, ...]:
    """What was measured of a subset, a paragraph each for where it lies, how far from the base, and how it settled."""
    found = record.displacement
    said = (where(found), f"{middle(found)} {rounded(found)}") if found else ()
    return tuple(text for text in (*said, settled(record)) if text)


def where(found: Displacement) -> str:
    """How large the subset is and where it gathered."""
    whole = found.total
    name, most = max(kinds(found), key=lambda pair: pair[1].chosen)
    dense = [_densest(list(shares), whole) for shares in (kinds(found), layers(found))]
    said = [
        f"{units.count(whole.chosen)} of the {units.large(whole.weights)} tuned weights are in the subset "
        f"({percent(whole.chosen, whole.weights)}).",
        _silos(found),
        f"The largest share, {percent(most.chosen, whole.chosen)}, lies in {name}.",
    ]
    if any(dense):
        said.append(f"Densest: {'; '.join(filter(None, dense))}.")
    if found.rows and found.columns:
        said.append(
            f"Half of the subset lies in {_lines(found.rows)} rows, the outputs of linear maps, and in "
            f"{_lines(found.columns)} columns, their inputs; random weights, as many in every tensor, would take "
            f"{units.count(found.rows.by_chance)} and {units.count(found.columns.by_chance)}."
        )
    return " ".join(said)


def middle(found: Displacement) -> str:
    """The median displacement, read off the histogram, and the mean."""
    rest = found.total.chosen / 2 - found.at_base
    for i, count in enumerate(found.counts):
        if count and rest <= count:
            exponent = (found.first_bin + i + max(rest, 0.0) / count) / found.per_decade
            return (
                f"Half of the subset is within {power(10.0**exponent)} of the base; the mean distance is "
                f"{power(found.total.mean)}."
            )
        rest -= count
    return "Nothing in the subset has moved."


def rounded(found: Displacement) -> str:
    """What rounding to bf16 would leave of it."""
    if not found.same_in_bf16:
        return "Rounded to bf16, every weight in it still differs from the base."
    return (
        f"Rounded to bf16, {units.count(found.same_in_bf16)} of its weights "
        f"({percent(found.same_in_bf16, found.total.chosen)}) would be the base's again."
    )


def settled(record: RunRecord) -> str:
    """How the subset came to rest, as far as the curve tells."""
    churn, least = points(record, "churn"), points(record, "least_displacement")
    dense, certified = points(record, "dense"), points(record, "certified")
    said = []
    if len(churn) > 1:
        ends = [f"step {units.count(step)} exchanged {_exchanged(value)}" for step, value in (churn[0], churn[-1])]
        said.append(f"Of the subset, {', '.join(ends)}.")
    if len(least) > 1:
        ends = [power(value) for _, value in (least[0], least[-1])]
        said.append(f"The least displacement in a silo was {ends[0]} on average, then {ends[1]}.")
    if dense:
        step, value = dense[-1]
        said.append(f"All weights competed in {share_of(value)} of the {units.plural(step, 'step')}.")
    if certified:
        step, value = certified[-1]
        said.append(f"At step {units.count(step)}, {share_of(value)} of the silos were certified to keep their subset.")
    return " ".join(said)


def tables(found: Displacement) -> tuple[Table, Table]:
    """The bars in numbers: per kind of matrix, and per layer."""
    return (
        _table("Per kind of matrix", "Kind", [(share.name, share) for share in found.by_kind], found.total),
        _table("Per layer", "Layer", list(layers(found)), found.total),
    )


def power(value: float) -> str:
    """Two digits and a power of ten.

    >>> power(0.00032), power(0.25), power(0.0), power(float("nan"))
    ('3.2·10⁻⁴', '0.25', '0', '–')
    """
    if not math.isfinite(value):
        return units.NONE
    digits, exponent = f"{value:.1e}".split("e")
    return f"{value:.2g}" if value == 0 or -2 <= int(exponent) < 3 else f"{digits}·10{raised(int(exponent))}"


def stack_of(layer: str) -> tuple[str, str]:
    """The stack that a layer is in, and its number there.

    >>> stack_of("encoder.block.3"), stack_of("outside the layers")
    (('encoder.block', '3'), ('outside the layers', ''))
    """
    match = re.fullmatch(r"(.*)\.(\d+)", layer)
    return (match[1], match[2]) if match else (layer, "")


def stack_names(stacks: Sequence[str]) -> list[str]:
    """What tells the stacks apart.

    >>> stack_names(["t5.encoder.block", "t5.decoder.block"]), stack_names(["bert.encoder.layer"])
    (['encoder', 'decoder'], ['layer'])
    >>> stack_names(["outside the layers", "model.layers"])
    ['outside', 'layer']
    """
    counted = [stack.split(".") for stack in stacks if stack != OUTSIDE]
    if len(counted) < 2:
        return ["outside" if stack == OUTSIDE else "layer" for stack in stacks]
    while len({words[0] for words in counted}) == 1 and min(map(len, counted)) > 1:
        counted = [words[1:] for words in counted]
    while len({words[-1] for words in counted}) == 1 and min(map(len, counted)) > 1:
        counted = [words[:-1] for words in counted]
    named = iter(".".join(words) for words in counted)
    return ["outside" if stack == OUTSIDE else next(named) for stack in stacks]


def _endings(names: Sequence[str]) -> list[str]:
    """The shortest endings that tell names apart.

    >>> _endings(["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"])
    ['query', 'attention.output.dense', 'intermediate.dense', 'output.dense']
    """
    found = []
    for name in names:
        words = name.split(".")
        endings = [".".join(words[start:]) for start in range(len(words) - 1, -1, -1)]
        alone = [e for e in endings if sum(f".{other}".endswith(f".{e}") for other in names) == 1]
        found.append(alone[0] if alone else name)
    return found


def kinds(found: Displacement) -> Iterator[tuple[str, Share]]:
    """Each kind of matrix under its shortest name."""
    return zip(_endings(found.kinds), found.by_kind, strict=True)


def layers(found: Displacement) -> Iterator[tuple[str, Share]]:
    """Each layer under the name that the axis gives it: ``layer 3``, ``encoder 3``, ``outside``."""
    stacks = list(dict.fromkeys(stack_of(name)[0] for name in found.layers))
    names = dict(zip(stacks, stack_names(stacks), strict=True))
    for share in found.by_layer:
        stack, number = stack_of(share.name)
        yield f"{names[stack]} {number}".strip(), share


def cells(found: Displacement) -> Iterator[Share]:
    """Every kind of every layer, those that a layer has not included."""
    return (found.at(i, j) for i in range(len(found.layers)) for j in range(len(found.kinds)))


def _silos(found: Displacement) -> str:
    if found.silos == found.tensors > 1:
        return f"Each of the {units.count(found.tensors)} tensors has a budget of its own, by its size."
    budgets = "one budget" if found.silos == 1 else f"{units.count(found.silos)} budgets"
    return f"{units.plural(found.tensors, 'tensor')} shared {budgets}."


def _densest(shares: Sequence[tuple[str, Share]], whole: Share) -> str:
    """The densest of several, unless all are about alike."""
    name, most = max(((name, s) for name, s in shares if s.weights), key=lambda pair: pair[1].density)
    if most.density <= (1 + UNEVEN) * whole.density:
        return ""
    held, size = percent(most.chosen, whole.chosen), percent(most.weights, whole.weights)
    return f"{name}, with {held} of the subset and {size} of the weights"


def _lines(found: Spread) -> str:
    return f"{units.count(found.half)} of {units.count(found.lines)}"


def _exchanged(value: float) -> str:
    return "nothing" if value == 0 else f"less than 0.01{units.NBSP}%" if value < 1e-4 else share_of(value)


def _table(caption: str, first: str, shares: Sequence[tuple[str, Share]], whole: Share) -> Table:
    columns = (
        Column(first),
        Column("Tuned weights", "number"),
        Column("In the subset", "number"),
        Column("Density", "number"),
        Column("Share of the subset", "number"),
        Column(f"Mean {GAP}", "number"),
    )
    rows = tuple(
        (
            name,
            units.count(share.weights),
            units.count(share.chosen),
            percent(share.chosen, share.weights),
            percent(share.chosen, whole.chosen),
            power(share.mean),
        )
        for name, share in shares
    )
    return Table(caption, columns, rows)


def points(record: RunRecord, name: str) -> list[tuple[int, float]]:
    """The (step, value) points of a number that the tuner monitored, those that can be drawn."""
    steps, values = record.curve.of("train", name)
    return [(step, value) for step, value in zip(steps, values, strict=True) if abs(value) < ENDLESS]


def percent(part: float, whole: float) -> str:
    """A part of a whole, in percent."""
    return share_of(part / whole) if whole else units.NONE


def share_of(value: float) -> str:
    """A share in percent, two digits of it where it is small.

    >>> [share_of(v).replace(units.NBSP, " ") for v in (0.333, 0.00123, 1.0, 0.0)]
    ['33.3 %', '0.12 %', '100.0 %', '0 %']
    """
    text = "0" if value == 0 else f"{100 * value:.1f}" if value >= 0.01 else power(100 * value)
    return f"{text}{units.NBSP}%"


def raised(exponent: int) -> str:
    """A whole number as an exponent."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
