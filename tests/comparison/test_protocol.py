"""A protocol is frozen, goes through YAML unchanged, and refuses what would make a comparison worthless."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretune.comparison import Method, Protocol
from foretune.comparison.methods import method, names
from foretune.comparison.protocol import ALL_ROWS, shorter
from foretune.errors import DataError, UsageError
from foretune.tuners import TUNERS

SIMPLE: dict[str, Any] = {"tasks": ["cola"], "methods": ["lora", "full"]}


def made(**fields: Any) -> Protocol:
    return Protocol.from_json({**SIMPLE, **fields})


rates = st.lists(st.floats(1e-6, 1e-1), min_size=3, max_size=3, unique=True).map(sorted)


@settings(max_examples=25, deadline=None)
@given(
    shots=st.lists(st.integers(0, 200), min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=2, max_size=6, unique=True),
    lr=rates,
    margin=st.none() | st.floats(1e-4, 0.2),
    selection=st.sampled_from(["last", "dev"]),
    name=st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12),
)
def test_yaml_out_and_in_gives_an_equal_protocol_with_an_equal_digest(shots, seeds, lr, margin, selection, name):
    own = {"name": name, "tuner": "lora", "options": {"rank": 4}, "lr": lr}
    asked = made(
        methods=[own, {"name": f"{name}x", "tuner": "full", "lr": lr}],
        shots=shots,
        data_seeds=seeds,
        margin=margin,
        selection=selection,
        tuning_trials=3,
    )
    again = Protocol.from_yaml(asked.to_yaml())
    assert again == asked
    assert again.digest == asked.digest


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": ["sst2"]}, {"methods": ["lora", "head"]}, {"model": "other"}, {"shots": [8]}, {"data_seeds": [1, 2]},
        {"init_seeds": [3]}, {"selection": "dev"}, {"steps": 7}, {"margin": 0.02}, {"contrasts": "first"},
        {"methods": ["lora", {"name": "full", "schedule": {"weight_decay": 0.1}}]}, {"test_rows": 5},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_is_declared_changes_the_digest(change: dict[str, Any]):
    assert made(**change).digest != made().digest


def test_a_protocol_is_frozen():
    with pytest.raises(FrozenInstanceError):
        made().steps = 3  # type: ignore[misc]


def test_names_stand_for_tasks_methods_and_the_model():
    asked = Protocol(tasks=["cola"], methods=["lora", "full+pattern"], model="demo", shots=[2], data_seeds=range(3))
    assert asked.model.name == "demo"
    assert asked.methods[1] == Method("full+pattern", "full", "pattern")
    assert asked.seeds == ((0, 0), (1, 1), (2, 2))


def test_data_and_init_seeds_are_crossed():
    assert made(data_seeds=[0, 1], init_seeds=[5, 6]).seeds == ((0, 5), (0, 6), (1, 5), (1, 6))


def test_all_rows_can_be_written_as_a_word():
    assert made(shots="all").shots == (ALL_ROWS,)


def test_the_default_contrasts_are_all_pairs_and_first_are_those_with_the_first():
    three = {"methods": ["lora", "full", "head"]}
    assert made(**three).pairs == (("lora", "full"), ("lora", "head"), ("full", "head"))
    assert made(**three, contrasts="first").pairs == (("lora", "full"), ("lora", "head"))
    assert made(**three, contrasts=[["head", "full"]]).pairs == (("head", "full"),)


def test_every_method_tries_as_many_rates_within_its_own_range():
    asked = made(tuning_trials=5, methods=["lora", "full", "adaptive", "ia3"])
    for each in asked.methods:
        tried = asked.trials(each)
        assert len(tried) == 5
        assert list(tried) == sorted(tried)
        assert tried[0] < TUNERS[each.tuner].lr < tried[-1]


def test_untuned_is_the_methods_own_rate():
    assert made().trials(made().methods[1]) == (TUNERS["full"].lr,)


@pytest.mark.parametrize("name", names())
def test_every_known_name_is_a_method(name: str):
    assert method(name).name == name


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"selection": "test"}, ["`selection` is `test`", "no estimate", "`last`"]),
    ({"selection": "ood"}, ["out-of-domain", "`ood`"]),
    ({"selection": "lsat"}, ["last, dev", "Did you mean `last`"]),
    ({"methods": ["lroa"]}, ["`lroa` is not a method", "Did you mean `lora`", "Known:"]),
    ({"methods": [{"name": "a", "tuner": "lroa"}]}, ["`lroa`", "Did you mean `lora`"]),
    ({"methods": [{"name": "lora", "options": {"rnak": 2}}]}, ["`rnak`", "Did you mean `rank`"]),
    ({"methods": [{"name": "lora", "lrs": [1]}]}, ["`lrs`", "Did you mean `lr`"]),
    ({"methods": [{"name": "lora", "schedule": {"seed": 1}}]}, ["`seed`", "for all methods alike"]),
    ({"methods": ["lora+haed"]}, ["`haed`", "Did you mean `head`"]),
    ({"methods": []}, ["`methods`", "empty"]),
    ({"methods": "lora"}, ["`methods` must be a list", "[lora]"]),
    ({"methods": ["lora", "lora"]}, ["`lora` is there twice"]),
    ({"tasks": ["cloa"]}, ["`cloa`", "foretune tasks"]),
    ({"tasks": []}, ["`tasks`", "empty"]),
    ({"tasks": [{"source": "cola", "odo": {}}]}, ["`odo`", "Did you mean `ood`"]),
    ({"tuning_trials": 2, "methods": [{"name": "lora", "lr": [1e-4]}, "full"]},
     ["as many trials", "`lora` gives 1 rates", "is 2", "--allow-unequal"]),
    ({"methods": ["lora", {"name": "full", "schedule": {"steps": 9}}], "steps": 3}, ["as many steps", "3", "`full` 9"]),
    ({"methods": ["lora", {"name": "full", "schedule": {"batch_size": 9}}]}, ["rows in a batch", "16", "`full` 9"]),
    ({"data_seeds": [4]}, ["at least 2 seeds", "1 (4)", "--seeds 5", "contrasts: none"]),
    ({"data_seeds": [0, 0]}, ["`0` is there twice"]),
    ({"data_seeds": [0, -1]}, ["-1"]),
    ({"data_seeds": ["x", 1]}, ["data_seeds", "'x'"]),
    ({"shots": []}, ["`shots`", "empty"]),
    ({"compute": "seconds"}, ["`compute` must be `steps`", "`seconds`"]),
    ({"margin": 0}, ["`margin` must be above 0", "0"]),
    ({"alpha": 1.5}, ["between 0 and 1", "1.5"]),
    ({"dev_fraction": 0.0, "selection": "dev"}, ["dev rows", "0"]),
    ({"contrasts": [["lora", "ful"]]}, ["`ful`", "Did you mean `full`"]),
    ({"contrasts": "al"}, ["Did you mean `all`"]),
    ({"contrasts": [["lora", "lora"]]}, ["two methods", "`lora`"]),
    ({"tuning_tasks": ["cola"], "tuning_trials": 2}, ["may not be chosen on a task", "`cola`"]),
    ({"tuning_tasks": ["sst2"], "tuning_trials": 2, "tuning_seeds": [1]}, ["others than `data_seeds`", "1 is in both"]),
    ({"tuning_tasks": ["sst2"]}, ["`tuning_trials` is 1"]),
    ({"tuning_seconds": 10}, ["(10)", "`tuning_trials` is 1"]),
    ({"step": 3}, ["`step` is not a field", "Did you mean `steps`"]),
    ({"steps": "many"}, ["`steps`", "'many'"]),
    ({"most_steps": 5}, ["`most_steps` must be at least 200", "5"]),
    ({"format": 9}, ["format 1", "9"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "says"), BAD, ids=[str(change) for change, _ in BAD])
def test_bad_input_is_refused_with_rule_values_and_way_out(change: dict[str, Any], says: list[str]):
    with pytest.raises((UsageError, DataError)) as caught:
        made(**change)
    for part in says:
        assert part in str(caught.value)


def test_a_first_look_takes_one_budget_one_rate_and_methods_that_train():
    asked = made(
        tasks=["cola", "rte"],
        methods=["zero-shot", "icl", "full", "lora", "head"],
        shots=[2, 16, 64],
        data_seeds=range(10),
        tuning_trials=8,
        tuning_tasks=["wnli"],
        tuning_seconds=60,
        contrasts=[["full", "lora"], ["icl", "full"]],
    )
    short = shorter(asked, steps=40, tasks=3, methods=2, seeds=3, test_rows=200)
    assert [method.name for method in short.methods] == ["full", "lora"]
    assert (short.shots, short.data_seeds, short.tuning_trials) == ((2,), (0, 1, 2), 1)
    assert short.pairs == (("full", "lora"),)
    assert short.digest != asked.digest
    few = shorter(
        made(methods=["zero-shot", "icl"], contrasts="none"), steps=1, tasks=1, methods=1, seeds=2, test_rows=9
    )
    assert [method.name for method in few.methods] == ["zero-shot"]


def test_unequal_budgets_are_possible_when_they_are_said():
    full = {"name": "full", "lr": [1e-5, 1e-4, 1e-3], "schedule": {"steps": 9}}
    asked = made(allow_unequal=True, tuning_trials=2, methods=["lora", full])
    assert [len(asked.trials(each)) for each in asked.methods] == [2, 3]


def test_a_single_seed_is_possible_without_a_claim():
    assert made(data_seeds=[3], contrasts="none").pairs == ()


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "tasks: [", "3"])
def test_a_file_that_holds_no_mapping_is_refused(text: str):
    with pytest.raises(UsageError, match="protocol"):
        Protocol.from_yaml(text, "`protocol.yaml`")


def test_a_file_of_the_users_is_a_task(kind: Path):
    assert made(tasks=[str(kind)]).tasks[0].called == "kind"
