"""The section on where a budget went: there when it was measured, in numbers, and nothing claimed."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st
from test_figures import coordinates
from test_page import ALL, Page, page
from test_sentences import PRAISE

from foretune.records import Displacement, LearningCurve, Point, RunRecord
from foretune.report import displacement, displacement_figures
from foretune.report.markdown import card

T5 = ("t5.encoder.block", "t5.decoder.block")


def found_in(record: RunRecord) -> Displacement:
    assert record.displacement is not None
    return record.displacement


def said(record: RunRecord) -> str:
    return " ".join(displacement.words(record)).replace("\xa0", " ")


def section(html: str) -> str:
    match = re.search(r'<section id="displacement">.*?</section>', html, re.S)
    return match[0] if match else ""


def drawn(record: RunRecord) -> list[str]:
    return [re.findall(r'<title id="([\w]+)-title"', svg)[0] for svg, _ in displacement_figures.pictures(record)]


def settling(**lines: list[float]) -> RunRecord:
    points = [Point(10 * i, "train", name, v) for name, line in lines.items() for i, v in enumerate(line, 1)]
    return replace(samples.subset().record, curve=LearningCurve(tuple(points)), displacement=None)


def heights(svg: str) -> list[float]:
    return [float(h) for h in re.findall(r'class="bar"[^>]*height="([\d.]+)"', svg)]


def test_the_section_stands_after_the_learning_curve():
    html = page(samples.subset())
    order = re.findall(r'<section id="([\w-]+)"', html)
    assert order[order.index("curve-section") + 1] == "displacement"
    assert re.findall(r'<li><a href="#([\w-]+)"', html) == order


@pytest.mark.parametrize("make", [make for make in ALL if make is not samples.subset])
def test_a_run_without_it_has_no_section(make):
    assert "displace" not in page(make())


def test_check_20_share_distance_histogram_and_churn_are_drawn_where_the_budget_was_shared():
    assert drawn(samples.subset(shared=True).record) == ["budget", "distance", "histogram", "course"]


def test_where_each_tensor_has_its_own_budget_its_share_is_said_and_not_drawn():
    record = samples.subset().record
    assert drawn(record) == ["distance", "histogram", "course"]
    assert "Each of the 72 tensors has a budget of its own" in said(record)
    assert "Densest" not in said(record)


def test_the_words_give_size_place_distance_and_rounding():
    record = samples.subset(shared=True).record
    found, text = found_in(record), said(record)
    whole = found.total
    assert f"{whole.chosen:,} of the 21.2 million tuned weights are in the subset (0.085 %)." in text
    assert "72 tensors shared one budget." in text
    kind = max(found.by_kind, key=lambda share: share.chosen)
    assert f"The largest share, {100 * kind.chosen / whole.chosen:.1f} %, lies in {kind.name}." in text
    last = found.by_layer[11]
    assert f"layer 11, with {100 * last.chosen / whole.chosen:.1f} % of the subset and 8.3 % of the weights" in text
    assert "lies in 512 of 46,080 rows, the outputs of linear maps, and in 2,210 of 41,472 columns" in text
    assert "random weights, as many in every tensor, would take 8,730 and 8,100." in text
    share = 100 * found.same_in_bf16 / whole.chosen
    assert f"Rounded to bf16, {found.same_in_bf16:,} of its weights ({share:.1f} %) would be the base's again." in text


def test_the_median_is_read_off_the_histogram():
    found = replace(found_in(samples.subset().record), first_bin=-12, counts=(0, 2, 0, 2), lost=(0,) * 4)
    four = replace(found, weights=((9,),), chosen=((4,),), moved=((0.02,),), layers=("h.0",), kinds=("q",))
    assert "is within 3.2·10⁻³ of the base; the mean distance is 5.0·10⁻³." in displacement.middle(four)
    assert "still differs" in displacement.rounded(four)
    still = replace(four, counts=(), lost=(), at_base=4)
    assert displacement.middle(still) == "Nothing in the subset has moved."
    assert displacement_figures.histogram(still) is None


def test_check_20_dense_steps_and_certificates_are_said_where_they_are_on_the_curve_and_not_elsewhere():
    text = said(samples.subset(lazy=True).record)
    assert "All weights competed in 20.0 % of the 240 steps." in text
    assert "At step 240, 100.0 % of the silos were certified to keep their subset." in text
    exact = said(samples.subset().record)
    assert "competed" not in exact
    assert "certified" not in exact
    assert "step 24 exchanged 31.0 %, step 240 exchanged less than 0.01 %." in exact


def test_the_curve_is_drawn_for_an_unfinished_run_that_measured_nothing_else():
    record = settling(churn=[0.5, 0.1])
    assert drawn(record) == ["course"]
    assert 'id="displacement"' in page(replace(samples.subset(), record=record))
    assert drawn(settling(churn=[math.nan])) == []


def test_the_churn_alone_has_a_scale_of_its_own_and_shares_of_silos_one_to_the_whole():
    alone = displacement_figures.course(settling(churn=[0.02, 0.01]))
    beside = displacement_figures.course(settling(churn=[0.02, 0.01], dense=[1.0, 0.0], certified=[0.0, 0.5]))
    assert alone is not None
    assert beside is not None
    assert "2\xa0%</text>" in alone
    assert "100\xa0%</text>" not in alone
    assert "100\xa0%</text>" in beside
    assert [css for css in ("own", "dev", "other") if f'"curve {css}"' in beside] == ["own", "dev", "other"]


def test_bars_are_as_high_as_their_cell_is_dense_on_one_scale():
    found = samples.displaced(layers=3, shared=True)
    svg = displacement_figures.budget(found)
    assert svg is not None
    dense = [found.at(i, j).density for j in range(6) for i in range(3)]
    assert heights(svg) == pytest.approx([24 * d / max(dense) for d in dense], abs=0.6)


def test_a_matrix_that_a_layer_has_not_has_no_bar():
    found = samples.displaced(layers=2, shared=True)
    rows = tuple(tuple(0 if i == 0 and j == 5 else v for j, v in enumerate(row)) for i, row in enumerate(found.weights))
    chosen = tuple(
        tuple(0 if i == 0 and j == 5 else v for j, v in enumerate(row)) for i, row in enumerate(found.chosen)
    )
    svg = displacement_figures.distance(replace(found, weights=rows, chosen=chosen))
    assert len(heights(svg)) == 11


def test_two_stacks_of_layers_are_named_apart():
    found = samples.displaced(24, True, T5)
    svg = displacement_figures.budget(found)
    assert svg is not None
    assert [name for name in ("encoder", "decoder") if f">{name}</text>" in svg] == ["encoder", "decoder"]
    assert "decoder 23, with" in displacement.where(found)
    assert all(-1 <= c <= 420 for c in coordinates(svg))


@given(st.integers(1, 30), st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6))
def test_numbers_of_any_value_are_drawn_with_finite_coordinates(layers, values):
    found = samples.displaced(layers, shared=True)
    moved = tuple(tuple(abs(values[(i + j) % len(values)]) for j in range(6)) for i in range(layers))
    record = replace(settling(churn=values, dense=values), displacement=replace(found, moved=moved))
    for svg, _ in displacement_figures.pictures(record):
        assert all(map(math.isfinite, coordinates(svg)))
        assert not re.search(r'="[^"]*(nan|inf)', svg)
    assert displacement.words(record)


@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(-180, 150))
def test_a_histogram_of_any_counts_fits_its_frame(counts, first):
    found = replace(
        samples.displaced(1), first_bin=first, counts=tuple(counts), lost=tuple(c // 2 for c in counts), at_base=3
    )
    svg = displacement_figures.histogram(found) if any(counts) or not counts else None
    assert svg is None or all(-10 <= c <= 420 for c in coordinates(svg))


def test_the_hollow_part_of_a_bar_is_what_bf16_would_lose():
    found = replace(samples.displaced(1), first_bin=-12, counts=(100, 50, 20), lost=(100, 25, 0))
    svg = displacement_figures.histogram(found)
    assert svg is not None
    hollow = [float(h) for h in re.findall(r'class="hollow"[^>]*height="([\d.]+)"', svg)]
    assert hollow[:2] == pytest.approx([4 * hollow[1], hollow[1]], abs=0.3)
    assert heights(svg) == pytest.approx([hollow[1], hollow[1] * 0.8], abs=0.3)
    assert "bf16</text>" in svg
    assert "bf16</text>" not in str(displacement_figures.histogram(replace(found, lost=(0, 0, 0))))


def test_the_tables_hold_every_kind_and_every_layer():
    kinds, layers = displacement.tables(found_in(samples.subset(shared=True).record))
    assert [row[0] for row in kinds.rows] == list(samples.KINDS)
    assert [row[0] for row in layers.rows] == [f"layer {i}" for i in range(12)]
    for table in (kinds, layers):
        shares = [float(row[4].removesuffix("\xa0%")) for row in table.rows]
        assert sum(shares) == pytest.approx(100, abs=0.6)


def test_every_figure_says_its_numbers_to_those_who_do_not_see_it():
    html = section(page(samples.subset(shared=True)))
    told = dict(re.findall(r'<desc id="(\w+)-desc">(.*?)</desc>', html))
    assert told.keys() == {"budget", "distance", "histogram", "course"}
    assert "query 8.4\xa0%" in told["budget"]
    assert "exchanged" in told["course"]


def test_nothing_is_claimed():
    text = said(samples.subset(shared=True, lazy=True).record)
    assert not any(word in text for word in PRAISE)


def test_the_card_says_it_too():
    text = card(samples.subset().record)
    assert "## What it changed\n\n- 21,192 of the 21.2\xa0million tuned weights" in text
    assert "What it changed" not in card(samples.banking().record)


def test_a_hostile_record_stays_words():
    hostile = "<script>x</script>\"'`|"
    made = samples.subset(shared=True)
    turned = replace(
        found_in(made.record), layers=(hostile, *(f"{hostile}.{i}" for i in range(11))), kinds=(hostile,) * 6
    )
    record = replace(made.record, displacement=turned)
    html = page(replace(made, record=record))
    assert "<script" not in html
    assert Page(html).open == []
    assert "<script" not in card(record)


def test_the_page_stays_small():
    assert len(section(page(samples.subset(shared=True, lazy=True)))) < 40_000
