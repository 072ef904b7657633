"""What may be said of a comparison: words follow adjusted intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import verdict_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.records import ALL, CellResult, CellRun, Contrast, Measured, Verdict
from foretune.report import units, verdict_sentences, verdict_warnings
from foretune.report.comparison_page import render, summary

PRAISE = ("better", "worse", "beats", "outperform", "superior", "wins", "improves")
METHODS = ("full", "lora", "icl")
ENDS = st.floats(-1, 1) | st.just(math.nan)
SHARES = st.floats(0, 1) | st.just(math.nan)


@st.composite
def contrasts(draw) -> Contrast:
    first, second = draw(st.permutations(METHODS))[:2]
    ends = sorted((draw(ENDS), draw(ENDS), draw(ENDS)), key=lambda end: (math.isnan(end), end))
    seeds, items = draw(st.integers(1, 10)), draw(st.none() | st.integers(2, 9000))
    return Contrast(
        *(first, second, draw(st.sampled_from(["cola", "rte", ALL])), draw(st.sampled_from([None, 2, 16]))),
        Measured(ends[1], ends[0], ends[2], "crossed", n_seeds=seeds, n_items=items),
        *(draw(SHARES), draw(SHARES), draw(st.integers(1, 50)), draw(SHARES)),
        metric=draw(st.sampled_from(["accuracy", "mcc", "rmse"])),
        margin=draw(st.none() | st.just(0.01)),
        equivalence_p=draw(st.none() | SHARES),
        refused=draw(st.none() | st.just("the runs are copies")),
    )


@st.composite
def verdicts(draw) -> Verdict:
    found = tuple(draw(st.lists(contrasts(), max_size=6)))
    cell = CellResult("lora", "cola", 16, 32, "accuracy", True, (CellRun(0, 0, "ok", 0.5),), Measured(0.5, 0.4, 0.6))
    return Verdict("d", "y", "m", "t", METHODS, ("cola", "rte"), (2, 16), (cell,), found)


def supports(contrast: Contrast) -> bool:
    """Whether the figures alone allow a claim of a difference: the rule, written a second time."""
    low, high = contrast.difference.low, contrast.difference.high
    return (
        contrast.adjusted_p <= 0.05
        and (low > 0 or high < 0)
        and contrast.difference.n_seeds > 1
        and contrast.refused is None
    )


@given(contrasts())
def test_better_is_said_just_when_the_adjusted_interval_excludes_zero(contrast):
    text = verdict_sentences.claim(contrast).lower()
    assert any(word in text for word in PRAISE) == supports(contrast)


@given(contrasts())
def test_equivalence_is_said_only_after_the_two_one_sided_tests(contrast):
    text = verdict_sentences.claim(contrast)
    if "equivalent" in text:
        assert contrast.margin is not None
        assert contrast.equivalence_p <= 0.05
        assert "TOST" in text


@given(contrasts())
def test_no_difference_found_stands_with_what_would_have_been_found(contrast):
    text = verdict_sentences.claim(contrast)
    if "No difference found" in text:
        assert not supports(contrast)
        assert "would have been found" in text or "not known" in text


@given(contrasts())
def test_a_sentence_names_methods_seeds_and_items(contrast):
    text = verdict_sentences.claim(contrast).replace(units.NBSP, " ")
    assert f"`{contrast.first}`" in text
    assert f"`{contrast.second}`" in text
    if contrast.kind != "refused" and math.isfinite(contrast.difference.low + contrast.difference.high):
        assert units.plural(contrast.difference.n_seeds, "seed").replace(units.NBSP, " ") in text
        if contrast.difference.n_items is not None:
            assert f"{contrast.difference.n_items:,} test rows" in text


@given(contrasts(), st.floats(1e-4, 0.5), st.floats(0, 0.3), st.booleans())
def test_the_winner_is_named_first_and_its_interval_is_positive(contrast, low, width, up):
    ends = (low, low + width) if up else (-low - width, -low)
    found = Measured((ends[0] + ends[1]) / 2, *ends, n_seeds=5)
    contrast = replace(contrast, difference=found, adjusted_p=0.01, refused=None)
    text = verdict_sentences.claim(contrast)
    winner = contrast.first if contrast.kind == "better" else contrast.second
    assert text.startswith(f"`{winner}` is better than")
    assert units.MINUS not in text.partition("[")[2].partition("]")[0]


@settings(max_examples=30)
@given(verdicts())
def test_the_whole_page_praises_nothing_that_the_figures_do_not_support(verdict):
    told = " ".join([render(verdict), *summary(verdict)]).lower()
    if not any(supports(contrast) for contrast in verdict.contrasts):
        assert not any(word in told for word in PRAISE)


@given(verdicts())
def test_the_headline_names_a_leader_only_if_it_is_better_than_every_other(verdict):
    text = verdict_sentences.headline(verdict)
    if "is better than" in text:
        name = text.partition("`")[2].partition("`")[0]
        for group in verdict_sentences.scopes(verdict).values():
            others = {m for c in group for m in (c.first, c.second)} - {name}
            beaten = {c.second for c in group if c.first == name and c.kind == "better"}
            beaten |= {c.first for c in group if c.second == name and c.kind == "worse"}
            assert beaten == others


def test_an_interval_that_ends_beside_zero_is_shown_with_the_digits_that_say_so():
    found = replace(samples.usual().contrasts[1], difference=Measured(0.02, 0.0002, 0.04, n_seeds=5), adjusted_p=0.04)
    assert "[0.02," in verdict_sentences.claim(found)


def test_a_difference_that_was_found_within_the_margin_says_both():
    small = Measured(0.004, 0.002, 0.006, n_seeds=10)
    found = replace(samples.usual().contrasts[1], difference=small, adjusted_p=0.001, margin=0.01, equivalence_p=0.002)
    text = verdict_sentences.claim(found).replace(units.NBSP, " ")
    assert "is better than" in text
    assert "nevertheless within 1 point (TOST" in text


def test_a_single_seed_has_no_claim():
    verdict = samples.single_seed()
    assert verdict_sentences.headline(verdict) == "Nothing can be claimed from these runs"
    assert "a single seed does not tell" in verdict_sentences.claim(verdict.contrasts[0])


def test_one_leader_everywhere_becomes_the_headline():
    won = Measured(0.05, 0.02, 0.08, n_seeds=5)
    pairs = (("lora", "full"), ("lora", "icl"))
    cell = samples.single_seed().cells[0]
    cells = tuple(replace(cell, method=method, shots=n) for n in (2, 16) for method in METHODS)
    found = tuple(Contrast(*pair, "cola", n, won, 0.001, 0.002, 4, 0.03) for n in (2, 16) for pair in pairs)
    verdict = Verdict("d", "y", "m", "t", METHODS, ("cola",), (2, 16), cells, found)
    text = verdict_sentences.headline(verdict)
    assert text == "`lora` is better than each of the 2 other methods on `cola` with every label budget"
    lost = replace(found[0], difference=Measured(0.01, -0.02, 0.04, n_seeds=5), adjusted_p=0.5)
    depends = verdict_sentences.headline(replace(verdict, contrasts=(lost, *found[1:])))
    assert depends == "Which method leads depends on the number of labels"


def test_nobody_is_ahead_everywhere_of_a_method_that_gave_no_score():
    won = Measured(0.05, 0.02, 0.08, n_seeds=5)
    cell = samples.single_seed().cells[0]
    cells = tuple(replace(cell, method=method, task=task) for task in ("cola", "rte") for method in METHODS)
    found = tuple(Contrast("lora", "full", task, 32, won, 0.001, 0.002, 4, 0.03) for task in ("cola", "rte"))
    whole = Verdict("d", "y", "m", "t", METHODS, ("cola", "rte"), (32,), cells, found)
    assert verdict_sentences.headline(whole).endswith("on every task")
    failed = replace(whole, cells=(*cells[:-1], replace(cells[-1], score=None)))
    assert verdict_sentences.headline(failed) == f"`lora` leads where there are scores; 1{units.NBSP}cell without one"
    never_ran = replace(whole, tasks=("cola", "rte", "sst2"))
    assert f"{len(METHODS)}{units.NBSP}cells without" in verdict_sentences.headline(never_ran)


def test_failures_gaps_and_constant_answers_are_told():
    verdict = samples.usual()
    lacking = " ".join(verdict_warnings.failures(verdict) + verdict_warnings.absent(verdict)).replace(units.NBSP, " ")
    assert "of 5 runs, 5 ran out of memory" in lacking
    assert "of 5 runs, 1 diverged" in lacking
    assert "5 runs are missing" in lacking
    constant = " ".join(verdict_warnings.constants(verdict)).replace(units.NBSP, " ")
    assert "`zero-shot`, learned on `rte` with 8, 32 and 128 labels per class" in constant
    assert "to every row of `hans`: a constant classifier" in constant


def test_a_gap_is_named_a_loss_a_gain_or_not_found():
    verdict = samples.usual()
    cell = next(cell for cell in verdict.cells if cell.outside)
    for gap, says in (
        (Measured(0.05, 0.02, 0.08), "loses 5.0 points of accuracy on `hans` [2.0, 8.0]"),
        (Measured(-0.05, -0.08, -0.02), "gains 5.0 points of accuracy on `hans` [2.0, 8.0]"),
        (Measured(0.05, -0.02, 0.08), "no gap found on `hans`"),
    ):
        told = verdict_warnings.gap(verdict, cell, replace(cell.outside[0], gap=gap))
        assert says in told.replace(units.NBSP, " ")


def test_a_flag_is_told_once_in_plain_words_with_all_its_places():
    cells = tuple(replace(cell, flags=("replicated_runs: 2 of 5 differ",)) for cell in samples.usual().cells[:3])
    (found,) = verdict_warnings.warned(replace(samples.usual(), cells=cells, flags=()))
    assert found.meaning.startswith("Runs that should differ gave the very same predictions")
    assert len(found.places) == 3
