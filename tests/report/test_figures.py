"""Figures: finite coordinates inside the drawing, marks where the numbers are."""

from __future__ import annotations

import re

import numpy as np
import pytest
import samples
from hypothesis import given
from hypothesis import strategies as st

from foretune.evaluation.metrics import ece
from foretune.records import Cost, LearningCurve, Point
from foretune.report import calibration, figures
from foretune.report.predictions import rows
from foretune.report.svg import padded, ticks

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(FINITE, st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_few_evenly_spaced_and_inside(low, length, about):
    found = ticks(low, low + length, about)
    assert len(found) <= 2 * about + 1
    slack = 1e-6 * max(abs(low), length)
    assert all(low - slack <= t <= low + length + slack for t in found)
    assert found == sorted(found)


@given(st.lists(FINITE | st.just(float("nan")), max_size=20))
def test_a_padded_range_has_a_length_and_holds_its_values(values):
    low, high = padded(values)
    assert low < high
    assert all(low <= v <= high for v in values if v == v)


def coordinates(svg: str) -> list[float]:
    return [float(n) for d in re.findall(r' (?:d|x|y|cx|cy|width|height)="([^"]+)"', svg) for n in numbers(d)]


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d+(?:\.\d+)?", text)


@given(
    st.lists(st.tuples(st.integers(0, 1000), st.floats(allow_nan=True, allow_infinity=True)), min_size=1, max_size=30)
)
def test_a_learning_curve_of_any_values_is_drawn_with_finite_coordinates(values):
    points = tuple(Point(s, split, m, v) for s, v in values for split, m in (("dev", "accuracy"), ("train", "loss")))
    record = samples.failed().record
    found = figures.curve(type(record)(record.config, "ok", curve=LearningCurve(points), chosen_step=values[0][0]))
    if found is not None:
        assert "nan" not in found
        assert "inf" not in found
        assert all(np.isfinite(coordinates(found)))


def test_the_kept_step_is_marked():
    svg = figures.curve(samples.banking().record)
    assert svg is not None
    assert "kept: step 192" in svg
    assert svg.count('class="ring"') == 1


def test_a_run_without_points_has_no_curve():
    assert figures.curve(samples.failed().record) is None


def test_the_bar_of_seconds_is_as_long_as_its_parts():
    svg = figures.seconds(Cost(train_seconds=3.0, eval_seconds=1.0))
    assert svg is not None
    widths = [float(w) for w in re.findall(r'y="4" width="([\d.]+)"', svg)]
    assert widths[0] == pytest.approx(300 - 1.5)
    assert widths[1] == pytest.approx(100 - 1.5)
    assert figures.seconds(Cost()) is None


def test_the_temperature_is_undone_exactly():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (50, 4))

    def softmax(z):
        raised = np.exp(z - z.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    assert np.allclose(calibration.uncalibrated(softmax(logits / 2.5), 2.5), softmax(logits))


def test_calibration_counts_every_row_once_and_agrees_with_the_recorded_error():
    made = samples.banking()
    judged = rows(made.predictions, "test")
    assert judged is not None
    found = calibration.measure(judged, made.record.labels, made.record.temperature)
    assert found is not None
    assert sum(b.n for b in found.after) == sum(b.n for b in found.before) == 320
    truth = [made.record.labels.index(y) for y in judged.label]
    assert found.error_after == pytest.approx(ece(truth, judged.probabilities))
    assert all(b.low <= b.accuracy <= b.high for b in found.after)


@pytest.mark.parametrize("temperature", [None, 1.0])
def test_without_a_temperature_there_is_no_before(temperature):
    made = samples.banking()
    found = calibration.measure(rows(made.predictions, "test"), made.record.labels, temperature)
    assert found is not None
    assert found.before == ()
    assert found.error_before is None
