"""The section on the simplex: there when it was measured, every point in it, nothing claimed."""

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

from foretune.records import Landscape, LearningCurve, Place, Point, RunRecord
from foretune.report import figures, simplex
from foretune.report.markdown import card


def landscape(n: int = 3, metric: str = "accuracy") -> Landscape:
    found = samples.simplex(n, metric).record.landscape
    assert found is not None
    return found


def tiles(svg: str) -> dict[str, list[float]]:
    """Number in a tile -> the opacities of the tiles with that number."""
    found: dict[str, list[float]] = {}
    for opacity, text in re.findall(r'class="tile[^>]*fill-opacity="([\d.]+)"/><text[^>]*>([^<]+)</text>', svg):
        found.setdefault(text, []).append(float(opacity))
    return found


def drifting(*cosines: float) -> RunRecord:
    points = [
        Point(10 * i, "train", f"vertex_{name}", value)
        for i, cosine in enumerate(cosines)
        for name, value in (("cosine", cosine), ("cosine_max", cosine), ("distance", 10.0), ("distance_min", 9.0))
    ]
    return replace(samples.simplex().record, curve=LearningCurve(tuple(points)))


def said(record: RunRecord) -> str:
    assert record.landscape is not None
    return " ".join(simplex.words(record, record.landscape)).replace("\xa0", " ")


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_section_stands_after_the_learning_curve(n):
    html = page(samples.simplex(n))
    order = re.findall(r'<section id="([\w-]+)"', html)
    assert order[order.index("curve-section") + 1] == "simplex"
    assert re.findall(r'<li><a href="#([\w-]+)"', html) == order
    assert 'id="drift-title"' in html


@pytest.mark.parametrize("make", [make for make in ALL if make is not samples.simplex])
def test_without_a_landscape_there_is_no_section(make):
    html = page(make())
    assert 'id="simplex' not in html
    assert "#simplex" not in html


def test_a_landscape_without_a_curve_still_has_its_picture():
    made = samples.simplex()
    html = page(replace(made, record=replace(made.record, curve=LearningCurve())))
    assert 'id="simplex-figure-title"' in html
    assert 'id="drift-title"' not in html


def test_the_triangle_has_a_tile_for_every_point_and_frames_the_midpoint():
    svg = simplex.figure(landscape())
    assert sum(map(len, tiles(svg).values())) == 28
    assert svg.count('class="tile framed"') == 1
    middle = landscape().midpoint
    assert middle is not None
    assert re.findall(r'class="tile framed".*?>([\d.]+)</text>', svg) == [f"{100 * middle.score:.1f}"]
    for corner, place in enumerate(landscape().corners):
        assert f"vertex {corner}: {100 * place.score:.1f}\xa0%</text>" in svg
    assert all(0 <= c <= 420 for c in coordinates(svg))


@pytest.mark.parametrize(("metric", "best"), [("mcc", max), ("rmse", min)])
def test_the_best_tile_is_the_strongest_whichever_way_the_metric_goes(metric, best):
    found = landscape(metric=metric)
    shades = tiles(simplex.figure(found))
    wanted = f"{best(place.score for place in found.places):.3f}"
    assert all(len(set(each)) == 1 for each in shades.values())
    assert max(shades, key=lambda text: shades[text][0]) == wanted


def test_equal_scores_have_one_shade_and_no_scale():
    found = landscape()
    flat = replace(found, places=tuple(replace(place, score=0.5) for place in found.places))
    svg = simplex.figure(flat)
    assert len({shade for each in tiles(svg).values() for shade in each}) == 1
    assert "swatch" not in svg
    assert "swatch" in simplex.figure(found)


@pytest.mark.parametrize("n", [2, 6])
def test_other_sizes_have_a_line_per_point_with_the_midpoint_as_the_disc(n):
    svg = simplex.figure(landscape(n))
    assert svg.count('class="disc"') == 1
    assert svg.count('class="diamond"') == len(landscape(n).places) - 1
    assert "1/4 vertex 0, 3/4 vertex 1" in svg


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=10), st.sampled_from([3, 6]))
def test_scores_of_any_value_are_drawn_with_finite_coordinates(values, n):
    found = landscape(n)
    places = tuple(replace(place, score=value) for place, value in zip(found.places, values, strict=False))
    places += found.places[len(values) :]
    svg = simplex.figure(replace(found, places=places))
    assert all(map(math.isfinite, coordinates(svg)))
    assert not re.search(r'="[^"]*(nan|inf)', svg)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6))
def test_a_drift_of_any_values_is_drawn_with_finite_coordinates(values):
    svg = figures.drift(drifting(*values))
    assert svg is None or all(map(math.isfinite, coordinates(svg)))


def test_the_cosine_is_drawn_on_a_whole_scale():
    svg = figures.drift(drifting(0.001, 0.002))
    assert svg is not None
    heights = re.findall(r'class="curve own" d="M[\d.]+ ([\d.]+)L[\d.]+ ([\d.]+)"', svg)
    start, end = map(float, heights[0])
    assert abs(start - end) < 1


def test_the_table_holds_every_point():
    found = landscape()
    rows = simplex.table(found).rows
    assert len(rows) == 28
    assert rows[3][0] == "1/3, 1/3, 1/3"
    bare = replace(found, places=tuple(replace(place, nll=None) for place in found.places))
    assert {len(row) for row in simplex.table(bare).rows} == {2}


def test_the_words_give_the_step_of_one_example_where_it_is_one():
    assert "One of the 32 examples is 3.1 points." in said(samples.simplex().record)
    assert "One of the" not in said(samples.simplex(metric="mcc").record)


def test_the_words_give_midpoint_vertices_and_members_with_their_error():
    text = said(samples.simplex().record)
    assert "the midpoint of the simplex scores 87.5 %, the 3 vertices 68.8 % to 75.0 %" in text
    assert "10 members" in text
    assert "80.0 % on average, with a Monte-Carlo error of 1.1 points" in text
    assert "standard deviation of 3.5 points" in text


def test_where_only_the_midpoint_judged_no_members_are_told_of():
    record = samples.simplex().record
    assert record.landscape is not None
    alone = replace(record, landscape=replace(record.landscape, members=1, member_sd=None))
    assert "members" not in said(alone)
    assert "Monte-Carlo" not in said(alone)


@pytest.mark.parametrize(
    ("cosines", "what"),
    [
        ((0.0, 0.4), "drifted together"),
        ((0.4, 0.0), "drifted apart"),
        ((0.1, 0.12), "about as different as at the start"),
        ((0.2, 0.99), "nearly one vertex"),
    ],
)
def test_the_drift_is_said_as_it_was_measured(cosines, what):
    assert what in said(drifting(*cosines))
    assert "nearly one vertex" not in said(drifting(0.0, 0.4))


def test_one_measurement_is_no_drift():
    assert "cosine" not in said(drifting(0.3))
    assert "cosine" not in said(drifting(0.3, math.nan))


def test_nothing_is_claimed():
    text = said(samples.simplex().record)
    assert not any(word in text for word in PRAISE)
    assert "no claim rests" in text


def test_a_hostile_record_stays_words():
    hostile = "<script>x</script>\"'"
    made = samples.simplex()
    assert made.record.landscape is not None
    turned = replace(made.record.landscape, metric=hostile, split=hostile)
    html = page(replace(made, record=replace(made.record, metric=hostile, landscape=turned)))
    assert "<script" not in html
    assert Page(html).open == []


def test_a_landscape_of_some_other_method_without_vertices_is_shown_as_it_is():
    bare = Landscape("accuracy", "dev", (Place((0.5, 0.25, 0.25), 0.5),))
    made = samples.simplex()
    html = page(replace(made, record=replace(made.record, landscape=bare)))
    assert "On dev all 1 points 50.0\xa0%." in html


def test_the_card_has_one_sentence_of_it():
    assert "the midpoint of the simplex scores" in card(samples.simplex().record)
    assert "simplex" not in card(samples.banking().record)
