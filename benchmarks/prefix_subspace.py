"""A prefix subspace against stock PEFT prefix tuning: training steps, midpoint passes, ten members, memory, bytes.

Same network, batch (rows of 16 to 32 tokens), virtual tokens and optimizer, all in fp32. Models that are timed against
each other live in one process and take turns pass by pass, so that a busy machine slows them alike; a ratio is the
median over rounds of the ratios within a round, with its quartiles. Peak memory is measured in a process each. The part
``members`` is the measurement behind ``Engine``'s rule: one member after another on a CPU, stacked on a GPU.

    python benchmarks/prefix_subspace.py --rounds 40
    OMP_NUM_THREADS=1 python benchmarks/prefix_subspace.py --cpu-time --parts step --models demo --rows 16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from side_by_side import CLASSES, TOKENS, Turns, batch, device, network, show

LENGTH, MEMBERS, LR = 10, 10, 5e-3
STOCK, ONE, SIX = "stock PEFT", "foretune n=1", "foretune n=6"
CONTENDERS = (STOCK, ONE, SIX)
MODELS = ("demo", "bert-base")
PARTS = ("step", "midpoint", "members", "memory", "size")


def contender(name: str, model: str):
    """The network with a prefix of stock PEFT, or with one or six of ours."""
    import peft

    import foretune

    base = network(model)
    if name == STOCK:
        return peft.get_peft_model(base, peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH))
    vertices = 1 if name == ONE else 6
    config = foretune.PrefixSubspaceConfig(num_virtual_tokens=LENGTH, n_vertices=vertices)
    return foretune.get_peft_model(base, config).to(device())


def training_step(model, rows: int) -> Callable[[], None]:
    import torch

    held = batch(rows)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)
    model.train()

    def step() -> None:
        model(**held).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def midpoint_pass(model, rows: int) -> Callable[[], None]:
    import torch

    held = batch(rows, labelled=False)
    model.eval()

    def forward() -> None:
        with torch.inference_mode():
            model(**held)

    return forward


def compare_steps(models: list[str], rows: list[int], turns: Turns) -> None:
    for model in models:
        held = {name: contender(name, model) for name in CONTENDERS}
        for count in rows:
            works = {name: training_step(held[name], count) for name in CONTENDERS}
            show(f"training step, {model}, {count} x {TOKENS}", turns(works), STOCK, 1.05)


def compare_midpoints(models: list[str], rows: list[int], turns: Turns) -> None:
    for model in models:
        held = {name: contender(name, model) for name in CONTENDERS}
        for count in rows:
            works = {name: midpoint_pass(held[name], count) for name in CONTENDERS}
            show(f"midpoint pass, {model}, {count} x {TOKENS}", turns(works), STOCK, 1.00)


def compare_members(models: list[str], turns: Turns) -> None:
    """A dev set judged by every member, one after another and stacked, in the batches that ``Engine`` makes."""
    import torch

    from foretune.training.batches import by_length
    from foretune.training.engine import STACKED_ROWS
    from foretune.tuners import PrefixSubspace

    for model in models:
        tuner = PrefixSubspace(length=LENGTH, n_vertices=6)
        subspace = tuner.attach(network(model), ("classifier",)).to(device()).eval()
        for examples in (25, 100):
            held = batch(examples, labelled=False)
            lengths = held["attention_mask"].sum(1).cpu().numpy()
            ensemble = tuner.ensemble(subspace, examples, MEMBERS)
            assert ensemble is not None

            def evaluate(stacked: bool, held=held, lengths=lengths, ensemble=ensemble, subspace=subspace) -> None:
                for rows in by_length(lengths):
                    own = {key: value[torch.from_numpy(rows).to(value.device)] for key, value in held.items()}
                    size = max(1, STACKED_ROWS // len(rows)) if stacked else 1
                    for start in range(0, MEMBERS, size):
                        members = range(start, min(MEMBERS, start + size))
                        with torch.inference_mode(), ensemble.at(members, rows):
                            subspace(**{key: value.repeat(len(members), 1) for key, value in own.items()})

            works = {"looped": lambda run=evaluate: run(False), "stacked": lambda run=evaluate: run(True)}
            taken = turns(works, warm=1)
            ratio = statistics.median(b / a for a, b in zip(taken["looped"], taken["stacked"], strict=True))
            looped, stacked = (statistics.median(taken[name]) * 1000 for name in ("looped", "stacked"))
            winner, saved = ("stacked", 1 - ratio) if ratio < 1 else ("looped", 1 - 1 / ratio)
            what = f"{MEMBERS} members, {model}, {examples} rows, {device().type}"
            print(f"{what:34} looped {looped:.0f} ms, stacked {stacked:.0f} ms: {winner} takes {saved:.0%} less")


def peak(name: str, model: str, rows: int) -> int:
    """Bytes above the process without a model, at the highest point of five training steps."""
    from foretune.testing import toys
    from foretune.training.meters import PeakMemory
    from foretune.tuners import get_peft_model

    get_peft_model(toys.network("bert"), "prefix-tuning")  # what a first model loads besides itself
    meter = PeakMemory(device())
    step = training_step(contender(name, model), rows)
    for _ in range(5):
        step()
    return meter.sample()


def compare_memory(models: list[str], rows: list[int]) -> None:
    for model in models:
        for count in rows:
            found = {}
            for name in CONTENDERS:
                command = [sys.executable, str(Path(__file__)), "--peak", name, "--models", model, "--rows", str(count)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[name] = json.loads(out.splitlines()[-1])
            allowed = found[SIX]["state"] - found[STOCK]["state"] + found[SIX]["mixed"]
            for name, values in found.items():
                what = f"peak memory, {model}, {count} x {TOKENS}"
                more = (values["peak"] - found[STOCK]["peak"]) / 2**20
                note = f"   {more:+7.1f} MiB   (aim <= +{allowed / 2**20:.1f})" if name == SIX else ""
                print(f"{what:34} {name:13} {values['peak'] / 2**20:8.1f} MiB{note}")


def numbers(model, rows: int) -> dict[str, int]:
    """Bytes of training state (weight, gradient, two moments) and of the mixed keys and values of one pass."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    config = model.active_peft_config
    return {"state": 16 * trained, "mixed": 4 * rows * LENGTH * config.num_layers * 2 * config.token_dim}


def compare_sizes(models: list[str]) -> None:
    """Trainable numbers and bytes on disk, beside the formulas of both; the midpoint is in the file too."""
    for model in models:
        for name in CONTENDERS:
            made = contender(name, model)
            config, n = made.active_peft_config, 6 if name == SIX else 1
            prefix = LENGTH * config.num_layers * 2 * config.token_dim
            head = CLASSES * made.config.hidden_size + CLASSES
            stored = (n + 1) * (prefix + head) if n > 1 else prefix + head
            trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
            with tempfile.TemporaryDirectory() as folder:
                made.save_pretrained(folder)
                written = (Path(folder) / "adapter_model.safetensors").stat().st_size
            formula = f"{trained:>9,} trained (formula {n * (prefix + head):,})"
            bytes_ = f"{written:,} bytes (numbers alone {4 * stored:,})"
            print(f"{f'size, {model}':34} {name:13} {formula}, {bytes_}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rows", nargs="+", type=int, default=(16, 32))
    parser.add_argument("--cpu-time", action="store_true", help="CPU instead of wall seconds: for a busy machine")
    parser.add_argument("--peak", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an old name of transformers
    if asked.peak:
        (model,), (rows,) = asked.models, asked.rows
        found = {"peak": peak(asked.peak, model, rows)}
        print(json.dumps(found | numbers(contender(asked.peak, model), rows)))
        return
    import torch

    turns = Turns(asked.rounds, time.process_time if asked.cpu_time else time.perf_counter)
    clock = "CPU" if asked.cpu_time else "wall"
    print(f"{device().type}, {torch.get_num_threads()} threads, {clock} time, {LENGTH} virtual tokens, fp32")
    if "step" in asked.parts:
        compare_steps(asked.models, asked.rows, turns)
    if "midpoint" in asked.parts:
        compare_midpoints(asked.models, asked.rows, turns)
    if "members" in asked.parts:
        compare_members(asked.models, Turns(max(2, asked.rounds // 8), turns.clock))
    if "memory" in asked.parts:
        compare_memory(asked.models, asked.rows)
    if "size" in asked.parts:
        compare_sizes(asked.models)


if __name__ == "__main__":
    main()
