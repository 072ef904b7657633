"""A tuner's options as flags of their own."""

from __future__ import annotations

import pytest

from foretune.cli.flags import with_tuner_options
from foretune.errors import UsageError

OWN = ["source", "tuner", "option", "lr", "weight_decay"]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("--tuner lora --rank 16", "--tuner lora --option rank=16"),
        ("--rank=16 --tuner=lora", "--option rank=16 --tuner=lora"),
        ("--tuner prefix-subspace --n-vertices 6", "--tuner prefix-subspace --option n_vertices=6"),
        ("--tuner dynamic-subset --reset", "--tuner dynamic-subset --option reset=true"),
        ("--tuner dynamic-subset --no-gather", "--tuner dynamic-subset --option gather=false"),
        ("--tuner dynamic-subset --reset=false", "--tuner dynamic-subset --option reset=false"),
        ("--tuner dynamic-subset --weight-decay 0.1", "--tuner dynamic-subset --weight-decay 0.1"),
        ("--tuner", "--tuner"),
        ("--tuner lora --labl x --help", "--tuner lora --labl x --help"),
        ("--sourc x --tuner lora", "--sourc x --tuner lora"),
    ],
)
def test_flags_that_are_fields_of_the_tuner_become_options_and_others_stay(given: str, written: str):
    assert with_tuner_options(["train.csv", *given.split()], OWN) == ["train.csv", *written.split()]


def test_a_value_may_look_like_anything():
    words = ["--tuner", "lora", "--targets", "--odd", "a b.csv"]
    assert with_tuner_options(words, OWN) == ["--tuner", "lora", "--option", "targets=--odd", "a b.csv"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--rank 16", "`--rank` is an option of `lora`, .*: name one with `--tuner`"),
        ("--tuner lora --density 0.1", "`--density` is an option of .*`dynamic-subset`.*, not of `lora`"),
        ("--tuner lora --rnk 16", r"`--rnk` is no option of this command or of `lora`. Did you mean `--rank`\?"),
        ("--rnk 16", r"Such options go with `--tuner`. Did you mean `--rank`\?"),
        ("--tuner lora --rank", "`--rank` needs a value, but none follows"),
        ("--tuner lora --no-rank", "`--rank` takes a value"),
        ("--tuner lroa --rank 4", r"`lroa` is not a tuner.* Did you mean `lora`\?"),
    ],
)
def test_a_flag_that_the_tuner_does_not_have_is_refused_with_the_way_out(given: str, says: str):
    with pytest.raises(UsageError, match=says):
        with_tuner_options(["train.csv", *given.split()], OWN)


def test_the_tuner_may_stand_in_the_configuration(tmp_path):
    (tmp_path / "tuner.yaml").write_text("tuner: lora\n")
    words = ["--config", str(tmp_path / "tuner.yaml"), "--rank", "4"]
    assert with_tuner_options(words, [*OWN, "config"]) == [*words[:2], "--option", "rank=4"]
    with pytest.raises(UsageError, match="not of `ia3`"):
        with_tuner_options([*words, "--tuner", "ia3"], [*OWN, "config"])
