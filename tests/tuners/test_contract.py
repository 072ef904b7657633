"""Every tuner keeps the contract on every toy that it serves, and refuses the others by name."""

from __future__ import annotations

from foretune.testing.contracts import TunerContract
from foretune.testing.toys import ARCHITECTURES, DECODERS, ENCODERS
from foretune.tuners import (
    IA3,
    Adaptive,
    BitFit,
    DoRA,
    Full,
    Head,
    LNTuning,
    LoRA,
    PrefixSubspace,
    PrefixTuning,
    PromptTuning,
    RsLoRA,
)

POOLED = tuple((name, "sequence") for name in ARCHITECTURES if name != "gemma3")
PER_TOKEN = (("bert", "token"), ("gpt2", "token"))
WRITING = (("llama", "language"), ("gpt2", "language"), ("t5", "language"))
ALL = (*POOLED, *PER_TOKEN, *WRITING)
WITH_BIASES = ("bert", "roberta", "distilbert", "deberta-v2", "gpt2")
PREFIXED = (*ALL, ("modernbert", "token"), ("t5", "token"), ("qwen3", "language"))
PREFIXED = (*PREFIXED, ("gemma3", "sequence"), ("gemma3", "language"))


class TestFull(TunerContract):
    tuner = Full()
    networks = ALL


class TestAdaptive(TunerContract):
    tuner = Adaptive(blocks=1, rate_decay=0.8)
    networks = ALL


class TestHead(TunerContract):
    tuner = Head()
    networks = (*POOLED, *PER_TOKEN)
    refused = WRITING


class TestBitFit(TunerContract):
    tuner = BitFit()
    networks = tuple(case for case in ALL if case[0] in WITH_BIASES)
    refused = tuple(case for case in ALL if case[0] not in WITH_BIASES)


class TestLNTuning(TunerContract):
    tuner = LNTuning()
    networks = ALL


class TestLoRA(TunerContract):
    tuner = LoRA(rank=2)
    networks = ALL


class TestRsLoRA(TunerContract):
    tuner = RsLoRA(rank=2, targets="attention", init="gaussian", dropout=0.1)
    networks = POOLED


class TestDoRA(TunerContract):
    tuner = DoRA(rank=2, targets="qv")
    networks = POOLED


class TestIA3(TunerContract):
    tuner = IA3()
    networks = ALL


class TestPromptTuning(TunerContract):
    tuner = PromptTuning(length=5)
    networks = (*((name, "sequence") for name in ENCODERS), *PER_TOKEN, ("t5", "token"), *WRITING)
    refused = (*((name, "sequence") for name in DECODERS), ("t5", "sequence"))


class TestPromptTuningFromNoise(TunerContract):
    tuner = PromptTuning(length=5, init="normal")
    networks = (("bert", "sequence"),)


class TestPrefixTuning(TunerContract):
    tuner = PrefixTuning(length=5)
    networks = PREFIXED


class TestPrefixTuningFromNearZero(TunerContract):
    tuner = PrefixTuning(length=5, init="small", position_mode="no_shift")
    networks = (("gpt2", "language"), ("bert", "sequence"))


class TestPrefixSubspace(TunerContract):
    tuner = PrefixSubspace(length=5)
    networks = PREFIXED
    head_copies = 3


class TestPrefixSubspaceWithOtherOptions(TunerContract):
    tuner = PrefixSubspace(
        length=5,
        n_vertices=6,
        init_std=0.5,
        init_scale="hold_rms",
        prefix_dropout=0.1,
        per="batch",
        layerwise=False,
        kv_shared=False,
        beta=1.0,
        train_pooler=True,
        position_mode="no_shift",
        weight_decay_vertices=0.01,
        dev_samples=2,
        dev_seed=1,
        predict="ensemble",
        predict_samples=3,
    )
    networks = (("bert", "sequence"), ("roberta", "token"), ("gemma3", "language"), ("t5", "sequence"))
    head_copies = 6


class TestPrefixSubspaceWithAnOrdinaryHead(TunerContract):
    tuner = PrefixSubspace(length=5, head_subspace=False)
    networks = (("roberta", "sequence"), ("llama", "sequence"))
