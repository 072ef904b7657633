"""Every option is read; what cannot be is refused; what was asked survives YAML."""

import inspect
from dataclasses import fields

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from foretune.cli.recommend import recommend as recommend_command
from foretune.cli.tune import COMMAND, merge
from foretune.cli.tune import tune as tune_command
from foretune.errors import ForetuneError, UsageError
from foretune.pipeline import TuneOptions, make_options, prepare_plan
from foretune.pipeline.options import parse_budget, read_yaml

CHANGED = {
    "model": "nowhere/at-all",
    "revision": "main",
    "text": "label",
    "pair": "label",
    "label": "text",
    "prompt": "text",
    "response": "label",
    "choices": ("text", "label"),
    "kind": "generation",
    "metric": "macro_f1",
    "dev": "DATA",
    "test": "DATA",
    "ood": ("DATA:far",),
    "shots": 4,
    "dev_fraction": 0.5,
    "test_fraction": 0.4,
    "seed": 3,
    "tuner": "full",
    "option": {"rank": 2},
    "objective": "regression",
    "objective_option": {"label_smoothing": 0.1},
    "lr": 0.1,
    "head_lr": 0.1,
    "epochs": 2.0,
    "steps": 7,
    "batch_size": 3,
    "micro_batch": 1,
    "weight_decay": 0.5,
    "warmup": 0.5,
    "decay": "constant",
    "clip": 0.0,
    "evaluations": 3,
    "patience": 2,
    "precision": "bf16",
    "max_length": 9,
    "pooling": "mean",
    "trust_remote_code": True,
    "pretrain": "DATA",
    "pretrain_steps": 3,
    "pretrain_lr": 0.1,
    "pretrain_seed": 2,
    "held_text": "held.txt",
    "budget": "1s",
    "mode": "grey-box",
    "refit": True,
}
"""Another value of every field but ``APART``; the word DATA stands for the data file."""

APART = {"data_dir", "recommender"}
"""Tested apart: here, and with earlier runs to learn from in ``test_recommend.py``."""


def outcome(data, **asked):
    """What would be run, or why not."""
    try:
        draft = prepare_plan(data, make_options(asked))
    except ForetuneError as error:
        return str(error)
    return draft.config.to_json()


@pytest.fixture(scope="module")
def usual(data, bert):
    found = outcome(str(data), model=bert)
    assert isinstance(found, dict), found
    return found


@pytest.mark.parametrize("name", CHANGED)
def test_every_option_changes_what_is_run_or_is_refused(name, data, bert, usual):
    plain = "fp32" if name == "precision" and usual["schedule"]["precision"] == "bf16" else CHANGED[name]
    value = plain.replace("DATA", str(data)) if isinstance(plain, str) else plain
    value = tuple(item.replace("DATA", str(data)) for item in plain) if name == "ood" else value
    assert outcome(str(data), **{"model": bert, name: value}) != usual
    assert outcome(str(data), model=bert) == usual


def test_the_data_dir_is_where_catalog_tasks_are_looked_for(tmp_path, bert):
    told = outcome("trec", model=bert, data_dir=str(tmp_path / "nothing-here"))
    assert "nothing-here" in told


def test_no_option_lacks_a_case_above():
    assert {*CHANGED, *APART} == {field.name for field in fields(TuneOptions)}


def test_the_command_line_offers_every_option_and_nothing_else():
    offered = set(inspect.signature(tune_command).parameters)
    assert offered - set(COMMAND) == {field.name for field in fields(TuneOptions)}
    assert set(inspect.signature(recommend_command).parameters) == offered - {"out", "dry_run", "overwrite", "remember"}


def test_reading_options_come_too_late_for_an_open_task(task, bert):
    for name, value in (("label", "text"), ("ood", ("a.csv",)), ("data_dir", "d")):
        with pytest.raises(UsageError, match=f"`{name}` says how a file is read"):
            prepare_plan(task, TuneOptions(model=bert, **{name: value}))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-9, 10),
            "seed": st.integers(-(2**40), 2**40),
            "clip": st.floats(0, 10),
            "ood": st.lists(st.text(min_size=1), max_size=3).map(tuple),
            "option": st.dictionaries(st.text(min_size=1), st.integers() | st.booleans() | st.text()),
            "label": st.text(),
            "trust_remote_code": st.booleans(),
        },
    )
)
def test_what_was_asked_makes_the_same_options_again_and_so_does_its_yaml(asked):
    options = TuneOptions(**asked)
    assert make_options(options.given()) == options
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in options.given().items()}
    assert make_options(yaml.safe_load(yaml.safe_dump(plain))) == options


def test_zero_and_no_are_given_and_none_is_not(tmp_path):
    given = {"clip": 0.0, "seed": 0, "lr": None, "refit": False, "ood": []}
    assert merge(given, None) == {"clip": 0.0, "seed": 0, "refit": False}
    (tmp_path / "options.yaml").write_text("refit: true\nlr: 0.1\n")
    assert merge(given, tmp_path / "options.yaml") == {"clip": 0.0, "seed": 0, "refit": False, "lr": 0.1}


def test_hyphens_and_underscores_are_one_in_yaml(tmp_path):
    (tmp_path / "c.yaml").write_text("weight-decay: 0.1\nbatch_size: 4\noption: {rank: 2}\nood: far.csv\n")
    assert make_options(merge({"weight_decay": 0.2}, tmp_path / "c.yaml")) == TuneOptions(
        weight_decay=0.2, batch_size=4, option={"rank": 2}, ood=("far.csv",)
    )
    (tmp_path / "c.yaml").write_bytes(b"lr: \xff")
    with pytest.raises(UsageError, match="is not YAML"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["", "s", "-1", "1e999", "nan", "10 minutes", "1d"])
def test_a_budget_that_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match=r"90s, 20m or 1\.5h"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"lr": float("nan")}, "`--lr` must be greater than 0 and finite, but got nan"),
        ({"lr": float("inf")}, "`--lr`"),
        ({"weight_decay": -1.0}, "`--weight-decay` must be 0 or more and finite, but got -1.0"),
        ({"dev_fraction": 2.0}, r"`--dev-fraction` must lie in \[0, 0.9\], but got 2.0"),
        ({"test_fraction": 0.0}, "`--test-fraction` must be greater than 0, but got 0. .* give `--test`"),
        ({"decay": "linaer"}, r"linear, cosine, constant.*Did you mean `linear`\?"),
        ({"precision": "fp8"}, "fp32, bf16, but got `fp8`"),
        ({"pooling": "meen"}, r"cls, mean.*Did you mean `mean`\?"),
        ({"max_length": 2}, "at least 4 tokens, but got 2"),
        ({"steps": 3, "epochs": 1.5}, "not both, but got 3 and 1.5"),
        ({"lrr": 1}, r"`lrr` is not an option of `tune`. Did you mean `lr`\?"),
        ({"steps": "many"}, "`--steps` does not fit: .*`many`"),
        ({"seed": None}, "`--seed` does not fit"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_rule(asked, says):
    with pytest.raises(UsageError, match=says):
        make_options(asked)


def test_a_revision_of_a_folder_is_refused(data, bert):
    assert "`--revision` is of a Hub id" in outcome(str(data), model=bert, revision="main")
