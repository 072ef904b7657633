"""Flags fire on the faults they are for, and on nothing else."""

import numpy as np
import pytest

from foretune.evaluation import flags

# CoLA's development set: 719 acceptable sentences and 324 others.
COLA = np.array([1] * 719 + [0] * 324)


def test_a_constant_classifier_is_flagged_with_its_label():
    found = flags.constant_prediction(COLA.tolist(), [1] * 1043, ("unacceptable", "acceptable"))
    assert found == "constant_prediction: all 1043 predictions are `acceptable`"
    assert flags.constant_prediction([0, 1], [0, 1]) is None
    assert flags.constant_prediction([1, 1], [1, 1]) is None
    assert flags.constant_prediction([("a",), ("b",)], ["x", "x"]) == "constant_prediction: all 2 predictions are `x`"


@pytest.mark.parametrize("right", [0.418, 0.48, 0.641, 0.689])
def test_accuracies_below_the_majority_class_are_flagged(right):
    predictions = np.where(np.random.default_rng(0).permutation(1043) < right * 1043, COLA, 1 - COLA)
    assert flags.against_majority(COLA, predictions).startswith("at_or_below_majority")


def test_the_majority_classifier_itself_is_flagged():
    assert flags.against_majority(COLA, np.ones(1043)).startswith("at_or_below_majority: accuracy 0.689")


def test_a_small_lead_over_the_majority_is_named_but_not_called_below():
    predictions = np.ones(1043, dtype=int)
    predictions[719:723] = 0
    predictions[0] = 0
    found = flags.against_majority(COLA, predictions)
    # Four wins and one loss: 6 / 32.
    assert found.startswith("majority_not_excluded: accuracy 0.692")
    assert "p = 0.188" in found


def test_a_clear_lead_is_not_flagged():
    predictions = COLA.copy()
    predictions[:100] = 1 - predictions[:100]
    assert flags.against_majority(COLA, predictions) is None


def test_hans_at_one_half_is_at_chance_and_at_six_tenths_is_not():
    hans = np.array([0, 1] * 5000)
    assert flags.ood_at_chance(hans, np.zeros(10_000), 0.5).startswith("ood_at_chance: accuracy 0.500")
    better = np.where(np.arange(10_000) % 5 < 3, hans, 1 - hans)
    assert flags.ood_at_chance(hans, better, 0.5) is None


def test_outputs_that_are_not_finite_are_counted():
    assert flags.not_finite([1.0, np.inf, np.nan]) == "nan: 2 of 3 outputs are not finite"
    assert flags.not_finite([[0.5, 0.5]]) is None
