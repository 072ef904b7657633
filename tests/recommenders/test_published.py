"""The published default: a sane plan for every situation, with the source of every number and no invented score."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import ResourceError, UsageError
from foretune.objectives import for_kind
from foretune.recommenders import FAMILIES, Situation, plan
from foretune.records import KINDS, Part, Plan, TaskCard
from foretune.tuners import TUNERS, make

TRAINING = [name for name, tuner in TUNERS.items() if tuner.lr]


def situation(rows=96, kind="classification", **changes):
    known = {
        "family": "encoder",
        "parameters": 22_700_000,
        "tuner": None,
        "budget_seconds": None,
        "seconds_per_step": None,
    }
    return Situation(
        card=TaskCard("toy", kind, {"train": rows, "dev": 32, "test": 100}, classes=2),
        methods=TUNERS,
        objective=Part(for_kind(kind)),
        **{**known, **changes},
    )


@pytest.mark.parametrize("tuner", [None, *TRAINING])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_tuner_family_and_kind_has_a_plan_that_can_be_built(tuner, family, kind):
    best = plan(situation(kind=kind, family=family, tuner=tuner)).best
    built = make(best.tuner)
    assert built.name == (tuner or "lora")
    options = {**best.tuner.options, "lr": best.schedule.lr}
    assert options in type(built).space
    assert (best.schedule.head_lr is None) == (kind == "generation" or tuner == "head")
    assert best.objective.name == for_kind(kind)


def test_what_trains_nothing_gets_no_steps_and_no_rate():
    made = plan(situation(tuner="frozen", budget_seconds=10.0))
    assert (made.best.schedule.steps, made.best.schedule.lr, made.best.seconds) == (0, 0.0, None)
    assert "trains nothing" in " ".join(made.evidence)


def test_no_rate_is_planned_for_a_head_that_is_not_fresh():
    assert plan(situation(fresh_head=False)).best.schedule.head_lr is None


def test_an_encoder_gets_the_lora_of_the_paper():
    best = plan(situation()).best
    assert best.tuner == Part("lora", {"rank": 8, "alpha": 16.0, "targets": "all-linear"})
    assert (best.schedule.lr, best.schedule.decay, best.schedule.warmup) == (5e-4, "linear", 0.1)


@pytest.mark.parametrize("family", ["decoder", "encoder-decoder"])
def test_a_writing_model_gets_the_common_recipe(family):
    best = plan(situation(rows=3200, kind="generation", family=family, parameters=600_000_000)).best
    assert best.tuner == Part("lora", {"rank": 16, "alpha": 32.0, "targets": "all-linear"})
    schedule = best.schedule
    assert (schedule.lr, schedule.batch_size, schedule.decay, schedule.warmup) == (2e-4, 16, "cosine", 0.03)
    assert schedule.steps == 3 * 200


def test_the_largest_models_get_the_smaller_rate():
    assert plan(situation(family="decoder", parameters=70_000_000_000)).best.schedule.lr == 1e-4


@pytest.mark.parametrize(
    ("rows", "steps"), [(1, 200), (96, 200), (320, 400), (1_000, 1_260), (2_000, 2_000), (10**6, 2_000)]
)
def test_steps_are_epochs_between_two_bounds(rows, steps):
    assert plan(situation(rows)).best.schedule.steps == steps


@given(
    rows=st.integers(1, 10**6),
    family=st.sampled_from(FAMILIES),
    tuner=st.sampled_from([None, *TRAINING]),
    budget=st.floats(0.1, 1e5),
    each=st.floats(1e-4, 1e3),
)
def test_a_plan_fits_its_budget_or_is_refused_with_a_way_out(rows, family, tuner, budget, each):
    asked = situation(rows, family=family, tuner=tuner, budget_seconds=budget, seconds_per_step=each)
    if budget < each:
        with pytest.raises(ResourceError, match="--budget"):
            plan(asked)
        return
    best = plan(asked).best
    assert 1 <= best.schedule.steps <= 2_000
    assert best.schedule.steps * each <= budget * (1 + 1e-9)
    assert best.seconds == pytest.approx(best.schedule.steps * each)
    assert 1 <= best.schedule.batch_size <= rows
    assert 1 <= best.schedule.evaluations <= best.schedule.steps


def test_a_cut_is_said_and_so_is_less_than_one_epoch():
    free = plan(situation(1600)).evidence
    cut = plan(situation(1600, budget_seconds=150, seconds_per_step=1.0))
    short = plan(situation(1600, budget_seconds=50, seconds_per_step=1.0))
    assert not any("to fit" in line for line in free)
    assert cut.best.schedule.steps == 150
    assert any("Cut to 150 steps to fit 150 s" in line for line in cut.evidence)
    assert not any("less than one epoch" in line for line in cut.evidence)
    assert any("less than one epoch (100 steps)" in line for line in short.evidence)


def test_a_budget_that_is_ample_changes_nothing():
    ample = plan(situation(budget_seconds=1e6, seconds_per_step=0.1))
    assert ample.best.schedule == plan(situation()).best.schedule
    assert ample.evidence == plan(situation()).evidence


def test_a_budget_without_a_step_time_is_said_to_wait():
    waiting = plan(situation(budget_seconds=10.0))
    assert waiting.best.seconds is None
    assert any("not applied yet" in line for line in waiting.evidence)


def test_nothing_is_foretold_without_ground():
    best = plan(situation()).best
    assert (best.score, best.interval, best.bytes) == (None, None, None)


@pytest.mark.parametrize("tuner", [None, *TRAINING])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_evidence_names_every_number_of_the_plan(tuner, family):
    made = plan(situation(family=family, tuner=tuner))
    text = " ".join(made.evidence)
    schedule = made.best.schedule
    numbers = [f"{schedule.lr:g}", f"{schedule.warmup:.0%}", f"{schedule.weight_decay:g}", f"{schedule.steps:,} steps"]
    numbers += [f"batches of {schedule.batch_size}"] + ([f"{schedule.head_lr:g}"] if schedule.head_lr else [])
    assert [n for n in numbers if n not in text] == []
    assert all(line.endswith(".") for line in made.evidence)


def test_a_plan_survives_its_file():
    made = plan(situation())
    assert Plan.from_json(made.to_json()) == made
    assert made.recommender == "default"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean `lora`"):
        plan(situation(tuner="lroa"))


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "diffusion"},
        {"rows": 0},
        {"budget_seconds": 0.0},
        {"budget_seconds": -1.0},
        {"seconds_per_step": 0.0},
        {"seconds_per_step": math.nan},
    ],
)
def test_a_situation_that_cannot_be_is_refused(changes):
    with pytest.raises(UsageError):
        situation(**changes)


def test_the_room_loads_no_torch():
    loaded = "sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules))"
    code = f"import sys, foretune.recommenders, foretune.store; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
