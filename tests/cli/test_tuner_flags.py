"""A tuner's options as flags of their own."""

from __future__ import annotations

import pytest

from foretune.cli.flags import with_tuner_options

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
        ("--tuner lora --density 0.1", "--tuner lora --density 0.1"),
        ("--tuner lroa --rank 4", "--tuner lroa --rank 4"),
        ("--rank 4", "--rank 4"),
        ("--tuner lora --rank", "--tuner lora --rank"),
        ("--tuner", "--tuner"),
    ],
)
def test_flags_that_are_fields_of_the_tuner_become_options_and_others_stay(given: str, written: str):
    assert with_tuner_options(["train.csv", *given.split()], OWN) == ["train.csv", *written.split()]


def test_a_value_may_look_like_anything():
    words = ["--tuner", "lora", "--targets", "--odd", "a b.csv"]
    assert with_tuner_options(words, OWN) == ["--tuner", "lora", "--option", "targets=--odd", "a b.csv"]
