"""Claims: nothing is better whose interval covers zero, equal methods are seldom told apart, and the refusals."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import UsageError
from foretune.evaluation import claims, iqm, over_seeds
from foretune.evaluation.claim import Claim
from foretune.evaluation.estimate import student

families = st.lists(
    st.tuples(st.floats(-0.2, 0.2), st.floats(0.001, 0.1), st.integers(1, 30)), min_size=1, max_size=8
).map(
    lambda drawn: {
        f"method {place}": student(value, error, df, "drawn", scale=1.0, n_seeds=df + 1)
        for place, (value, error, df) in enumerate(drawn)
    }
)


@given(families, st.none() | st.floats(0.005, 0.3), st.sampled_from([0.01, 0.05, 0.1]))
def test_check_16_better_and_worse_need_an_adjusted_interval_on_one_side_of_zero(family, margin, alpha):
    found = claims(family, margin=margin, alpha=alpha)
    assert list(found) == list(family)
    for name, claim in found.items():
        covers = claim.difference.low <= 0 <= claim.difference.high
        told = claim.kind in ("better", "worse")
        if abs(claim.p - alpha) > 1e-9:
            assert told == (not covers) == (claim.p <= alpha)
        assert not (told and covers)
        assert claim.kind != "better" or claim.difference.value > 0
        assert claim.kind != "worse" or claim.difference.value < 0
        assert (
            claim.difference.high - claim.difference.low >= family[name].high - family[name].low - 1e-12 or alpha > 0.05
        )
        assert claim.contrasts == len(family)


@given(families, st.floats(0.005, 0.3))
def test_check_16_equivalent_needs_a_margin_that_holds_the_interval(family, margin):
    for name, claim in claims(family, margin=margin).items():
        if claim.within_margin:
            assert abs(family[name].value) < margin
        if claim.kind == "equivalent":
            assert claim.difference.low <= 0 <= claim.difference.high
    assert not any(claim.within_margin for claim in claims(family).values())


@given(families)
def test_the_other_way_round_better_is_worse(family):
    turned = {
        name: dataclasses.replace(each, value=-each.value, low=-each.high, high=-each.low)
        for name, each in family.items()
    }
    opposite = {"better": "worse", "worse": "better"}
    kinds = [claim.kind for claim in claims(family).values()]
    assert [claim.kind for claim in claims(turned).values()] == [opposite.get(kind, kind) for kind in kinds]


def test_a_handmade_claim_cannot_say_better_over_zero():
    covering = student(0.02, 0.02, 9, "t", scale=1.0, n_seeds=10)
    assert Claim(covering, p=0.0, contrasts=1, detectable=0.1).kind == "undecided"
    clear = student(0.2, 0.02, 9, "t", scale=1.0, n_seeds=10)
    assert Claim(clear, p=0.2, contrasts=5, detectable=0.1).kind == "undecided"
    assert Claim(clear, p=0.0, contrasts=1, detectable=0.1).kind == "better"


def test_what_is_clear_alone_may_be_unclear_among_many():
    near = over_seeds([0.01, 0.03, 0.02, 0.00, 0.04])
    assert claims({"near": near})["near"].kind == "better"
    others = {str(place): over_seeds([0.01, -0.01, 0.02, -0.02, 0.00]) for place in range(9)}
    among = claims({"near": near} | others)["near"]
    assert among.kind == "undecided"
    assert among.difference.low < 0 < among.difference.high
    assert among.detectable > claims({"near": near})["near"].detectable


def test_a_family_is_as_large_as_it_was_declared_however_much_of_it_has_run():
    seen = {"a": over_seeds([0.05, 0.06, 0.04, 0.05, 0.07]), "b": over_seeds([0.01, -0.02, 0.01, 0.0, -0.01])}
    alone, early = claims(seen, margin=0.05), claims(seen, margin=0.05, declared=6)
    assert (alone["a"].contrasts, early["a"].contrasts) == (2, 6)
    assert early["a"].p == pytest.approx(3 * alone["a"].p)
    assert early["b"].equivalence_p > alone["b"].equivalence_p
    assert early["a"].difference.low < alone["a"].difference.low
    assert claims(seen, declared=1) == claims(seen)


def test_a_real_difference_may_still_be_too_small_to_matter():
    small = claims({"small": over_seeds([0.001, 0.002, 0.0015, 0.001, 0.002])}, margin=0.01)["small"]
    assert (small.kind, small.within_margin) == ("better", True)
    none = claims({"none": over_seeds([0.001, -0.002, 0.0015, 0.001, -0.002])}, margin=0.01)["none"]
    assert (none.kind, none.within_margin, none.margin) == ("equivalent", True, 0.01)


def test_no_spread_is_undecided():
    same = over_seeds([0.0, 0.0, 0.0])
    claim = claims({"same": same}, margin=0.01)["same"]
    assert (claim.kind, claim.p, claim.equivalence_p) == ("undecided", 1.0, 1.0)
    assert math.isnan(claim.detectable)


def test_a_single_seed_and_a_bootstrap_are_refused():
    with pytest.raises(UsageError, match=r"at least 2 seeds, but `lora - full` has 1.*Run more seeds"):
        claims({"lora - full": over_seeds([0.1])})
    with pytest.raises(UsageError, match="this one is `stratified bootstrap of runs`"):
        claims({"lora": iqm([[0.1, 0.2], [0.3, 0.5]], seed=0, draws=50)})


def test_percent_is_no_share():
    with pytest.raises(UsageError, match="between 0 and 1, but got -4"):
        claims({"lora - full": over_seeds([0.1, 0.2])}, alpha=5)
    with pytest.raises(UsageError, match="between 0 and 1, but got 95"):
        over_seeds([0.1, 0.2], level=95)


def test_check_12_families_of_equal_methods_hold_a_false_claim_in_at_most_5_percent():
    # Four contrasts each, ten seeds; 250 families: standard error 0.014.
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(250):
        scores = generator.normal(0.8, 0.02, (5, 10))
        found = claims({str(place): over_seeds(scores[place] - scores[0]) for place in range(1, 5)})
        wrong += any(claim.kind != "undecided" for claim in found.values())
    assert wrong / 250 <= 0.05 + 2 * 0.014
