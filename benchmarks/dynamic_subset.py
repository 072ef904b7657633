"""Dynamic subset tuning against full AdamW, LoRA of equal budget, and PEFT's SHiRA and Super-Tuning: time and memory.

One training step on the same batch of 16 x 32 tokens; contenders take turns in one process (``side_by_side``).
Peak memory is measured in a process each, as bytes above a process that has tuned a toy. All tune the matrices of the
layer stack; the budget of all but full tuning is that of LoRA with rank 8 (``--rank``). Of the preset ``fast`` the time
of the whole run is shown, dense steps included, for a run of as many steps as there are rounds.

The aims are those of check 15: peak memory at most LoRA's + the largest tensor + 2 %, a step of ``dst exact`` at most
1.0 times that of full AdamW and 1.5 times LoRA's, and below SHiRA and Super-Tuning in both. They are printed beside
what was measured. ``llama-1b`` is in bf16 and by default only taken where there is a GPU.

    python benchmarks/dynamic_subset.py --rounds 20
    OMP_NUM_THREADS=1 python benchmarks/dynamic_subset.py --cpu-time --models demo
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from side_by_side import Turns, batch, device, network, show

LR, ROWS, WARM = 3e-4, 16, 2
FULL, LORA, SHIRA, SUPER = "full AdamW", "LoRA", "PEFT SHiRA", "PEFT Super-Tuning"
DST, FAST, DST_ADAMW = "dst exact", "dst fast", "dst exact adamw"
CONTENDERS = (FULL, LORA, SHIRA, SUPER, DST, FAST, DST_ADAMW)
MODELS = ("demo", "bert-base", "llama-100m", "llama-1b")
LARGE = ("llama-1b",)
LLAMAS = {
    "llama-100m": (21000, 768, 2048, 12, 12),
    "llama-1b": (32000, 2048, 5632, 22, 32),
}
"""Vocabulary, width, inner width, layers and heads of the decoders."""
AIMS = {FULL: 1.0, LORA: 1.5, SHIRA: 1.0, SUPER: 1.0}


def made(model: str):
    """A classifier; the decoders are Llama's shape at random with about 100 million and 1.1 billion weights."""
    if model not in LLAMAS:
        return network(model)
    import torch
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    torch.manual_seed(0)
    words, width, inner, layers, attentions = LLAMAS[model]
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=attentions, num_key_value_heads=attentions, max_position_embeddings=64, pad_token_id=0,
        num_labels=2,
    )  # fmt: skip
    dtype = torch.bfloat16 if model in LARGE else torch.float32
    return AutoModelForSequenceClassification.from_config(config, dtype=dtype).to(device())


def budget(base, rank: int) -> tuple[int, float]:
    """Weights of LoRA with ``rank`` on all matrices of the layer stack, and their share of these."""
    from foretune.tuners.targets import linears, widths

    names = linears(base, ("classifier", "score"))
    sizes = [widths(base.get_submodule(name)) for name in names]
    k = sum(rank * (inner + outer) for inner, outer in sizes)
    return k, k / sum(inner * outer for inner, outer in sizes)


def contender(name: str, model: str, rank: int = 8, steps: int = 20):
    """The tuned network and its optimizer."""
    import peft
    import torch

    from foretune.records import Schedule
    from foretune.tuners import DynamicSubset, LoRA
    from foretune.tuners.targets import linears, written

    base = made(model)
    heads = [n for n in ("classifier", "score") if n in dict(base.named_modules())]
    _, share = budget(base, rank)
    names = linears(base, heads)
    if name == FULL:
        base.requires_grad_(False)
        for module in (*names, *heads):
            base.get_submodule(module).requires_grad_(True)
        tuned = base
    elif name == LORA:
        tuned = LoRA(rank=rank).attach(base, heads)
    elif name.startswith("dst"):
        rule, preset = "adamw" if name == DST_ADAMW else "adafactor", "fast" if name == FAST else "exact"
        tuner = DynamicSubset(density=share, optimizer=rule, preset=preset)
        tuned = tuner.attach(base, heads)
        parameters = [p for p in tuned.parameters() if p.requires_grad]
        schedule = Schedule(steps=steps, batch_size=ROWS)
        return tuned, tuner.optimizer_for(tuned, [{"params": parameters, "lr": LR, "weight_decay": 0.0}], schedule)
    elif name == SHIRA:
        config = peft.ShiraConfig(r=rank, target_modules=written(base, names), modules_to_save=heads)
        tuned = peft.get_peft_model(base, config)
    else:
        config = peft.SupertuningConfig(sparsity=1 - share, target_modules=written(base, names), modules_to_save=heads)
        tuned = peft.get_peft_model(base, config)
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    return tuned, torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)


def training_step(name: str, model: str, rank: int = 8, steps: int = 20) -> Callable[[], None]:
    tuned, optimizer = contender(name, model, rank, steps)
    held = batch(ROWS)
    tuned.train()

    def step() -> None:
        tuned(**held).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def peak(name: str, model: str, rank: int) -> int:
    """Bytes above the process that has tuned a toy, at the highest point of five training steps."""
    from foretune.testing import toys
    from foretune.training.meters import PeakMemory
    from foretune.tuners import get_peft_model

    get_peft_model(toys.network("bert"), "lora")
    meter = PeakMemory(device())
    step = training_step(name, model, rank)
    for _ in range(5):
        step()
    return meter.sample()


def ratio(mine: list[float], other: list[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def largest_tensor(model: str) -> int:
    """Bytes of the largest matrix that is tuned."""
    from foretune.tuners.targets import linears

    base = made(model)
    names = linears(base, ("classifier", "score"))
    return max(base.get_submodule(name).weight.nbytes for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rank", type=int, default=8, help="of the LoRA whose budget all have")
    parser.add_argument("--models", nargs="+", choices=MODELS)
    parser.add_argument("--cpu-time", action="store_true", help="CPU instead of wall seconds: for a busy machine")
    parser.add_argument("--peak", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore")
    if asked.peak:
        print(json.dumps(peak(asked.peak, asked.models[0], asked.rank)))
        return
    import torch

    models = asked.models or [name for name in MODELS if name not in LARGE or torch.cuda.is_available()]
    turns = Turns(asked.rounds, time.process_time if asked.cpu_time else time.perf_counter)
    print(f"{device().type}, {torch.get_num_threads()} threads, {'CPU' if asked.cpu_time else 'wall'} time")
    for model in models:
        k, share = budget(made(model), asked.rank)
        print(f"\n{model}, {'bf16' if model in LARGE else 'fp32'}: budget {k:,} weights, density {share:.2%}")
        steps = asked.rounds + WARM
        taken = turns({name: training_step(name, model, asked.rank, steps) for name in CONTENDERS}, WARM)
        for against, aim in AIMS.items():
            pair = {against: taken[against], DST: taken[DST], DST_ADAMW: taken[DST_ADAMW]}
            show(f"step against {against}", pair, against, aim)
            whole = sum(taken[FAST]) / sum(taken[against])
            print(f"{'':34} {FAST:18} {whole:8.2f}   (whole run; median step {ratio(taken[FAST], taken[against]):.2f})")
        found = {}
        for name in CONTENDERS:
            command = [
                sys.executable,
                str(Path(__file__)),
                "--peak",
                name,
                "--models",
                model,
                "--rank",
                str(asked.rank),
            ]
            found[name] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])
        allowed = 1.02 * found[LORA] + largest_tensor(model)
        for name, size in found.items():
            note = f"   (aim <= {allowed / 2**20:.1f})" if name.startswith("dst") else ""
            print(f"{'peak memory':34} {name:18} {size / 2**20:8.1f} MiB{note}")


if __name__ == "__main__":
    main()
