"""A plan of a collection says all that decides its runs, survives YAML, and refuses what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.collection import CollectionPlan
from foretune.errors import UsageError

PLANS = Path(__file__).parents[2] / "experiments" / "bundled_store"


@given(
    shots=st.lists(st.integers(1, 500), min_size=1, max_size=3, unique=True),
    configs=st.integers(2, 500),
    shared=st.floats(0.01, 1),
    repeats=st.floats(0, 1),
    seed=st.integers(0, 2**31),
    tuners=st.lists(st.sampled_from(("lora", "full", "ia3")), unique=True),
    test_rows=st.none() | st.integers(1, 99),
)
def test_yaml_gives_the_plan_back(tmp_path_factory, **fields):
    made = CollectionPlan.from_json({"tasks": ["cola", {"source": "cb", "shots": [4]}], **fields})
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    path.write_text(made.to_yaml(), encoding="utf-8")
    assert CollectionPlan.from_yaml(path) == made
    assert CollectionPlan.from_yaml(path).digest == made.digest
    common, own, further = made.counts
    assert common + own == made.configs
    assert common >= 1
    assert further % 2 == 0
    assert further <= 2 * common


@pytest.mark.parametrize(
    "change",
    [
        {"configs": 9}, {"shared": 0.3}, {"repeats": 0.2}, {"seed": 1}, {"steps": (5, 6)}, {"examples": 64},
        {"evaluations": 3}, {"precision": "bf16"}, {"dev_fraction": 0.5}, {"test_fraction": 0.3}, {"test_rows": 7},
        {"shots": (8,)}, {"tuners": ("lora",)}, {"objective": "pattern"}, {"models": ("other",)}, {"tasks": ("cb",)},
    ],
)  # fmt: skip
def test_every_field_is_part_of_the_identity(change):
    made = CollectionPlan(tasks=["cola"], configs=8)
    assert replace(made, **change).digest != made.digest


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tasks": []}, "`tasks` must have at least one entry"),
        ({"tasks": "cola"}, "Write `tasks: \\[cola\\]`"),
        ({"tasks": ["cola", "cola"]}, "`cola` is there twice"),
        ({"tasks": [{"source": "cola", "shoots": [4]}]}, "Did you mean `shots`"),
        ({"shots": [0]}, "whole numbers of 1 or more, but one is 0"),
        ({"shots": [4, 4]}, "`shots` must differ"),
        ({"shots": []}, "`cola` has no `shots`"),
        ({"configs": 1}, "configs=1"),
        ({"shared": 0}, "shared=0"),
        ({"repeats": 2}, "repeats=2"),
        ({"steps": [30, 20]}, "steps=\\(30, 20\\)"),
        ({"precision": "fp16"}, "precision='fp16'"),
        ({"steps": [30]}, "steps=\\(30,\\)|steps"),
        ({"tuners": ["frozen"]}, "`frozen` trains nothing"),
        ({"tuners": ["lroa"]}, "Did you mean `lora`"),
        ({"objective": "haed"}, "Did you mean `head`"),
        ({"config": 3}, "Did you mean `configs`"),
        ({"configs": "many"}, "`configs` of the plan of a collection"),
        ({"format": 2}, "format 1, but has 2"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(fields, words):
    with pytest.raises(UsageError, match=words):
        CollectionPlan.from_json({"tasks": ["cola"], **fields})


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be read"):
        CollectionPlan.from_yaml(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- cola\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds a list"):
        CollectionPlan.from_yaml(tmp_path / "list.yaml")


def test_the_plans_of_the_shipped_collection_leave_five_sources_out():
    plans = [CollectionPlan.from_yaml(path) for path in sorted(PLANS.glob("plan*.yaml"))]
    held_out = {"cola", "cr", "mrpc", "snli", "trec"}
    assert not held_out & {task.called for plan in plans for task in plan.tasks}
    assert len({task.called for plan in plans for task in plan.tasks}) >= 16
    cells = [sum(len(task.shots or plan.shots) for task in plan.tasks) for plan in plans]
    runs = [here * (plan.configs + plan.counts[2]) for here, plan in zip(cells, plans, strict=True)]
    assert sum(runs) >= 1_800
