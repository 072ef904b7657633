"""One LoRA run (200 examples, 10 epochs): foretune's loop, transformers' Trainer + peft, and a bare PyTorch loop.

Each contender runs in a process of its own, in turn, several rounds, over the same batches of the same rows with the
same adapter, optimizer and schedule; printed are ratios of the loop's seconds, median over rounds. The evaluation after
training is left out of all, and loading too: ``--whole`` counts the whole process instead. ``foretune-bf16`` is what
`foretune tune` runs by default where the processor multiplies bf16 natively; ``foretune`` is fp32, as the other two.

    python benchmarks/lora_against_trainer.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

EPOCHS, ROWS, BATCH, LR, SEED = 10, 200, 16, 5e-4, 0
CONTENDERS = ("foretune", "foretune-bf16", "trainer", "bare")


def config(precision: str = "fp32"):
    from foretune.records import ModelRef, Part, RunConfig, Schedule, Seeds
    from foretune.tasks import Task

    rows = [{"text": f"{t}", "label": y} for t, y in _rows()]
    task = Task.from_records(rows, text="text", label="label", kind="classification", test=rows[:16])
    steps = EPOCHS * -(-len(task.splits["train"]) // BATCH)
    schedule = Schedule(steps=steps, batch_size=BATCH, lr=LR, evaluations=1, weight_decay=0.0, precision=precision)
    from dataclasses import replace

    ref = replace(task.ref, dev_fraction=0.0)
    return task, RunConfig(ModelRef("demo"), ref, Part("lora", {"rank": 8}), Part("head"), schedule, Seeds.all(SEED))


def _rows() -> list[tuple[str, str]]:
    """200 rows of the packaged Banking77 subset (its train and part of its test split: speed does not care)."""
    from foretune.tasks.catalog import open as open_entry

    _, splits, _ = open_entry("banking77_demo")
    both = [row for split in ("train", "test") for row in splits[split].to_pylist()]
    seen = {row["text"]: row["label"] for row in both}
    return list(seen.items())[: ROWS + 16][-ROWS - 16 :]


def run_foretune(precision: str) -> float:
    from foretune.training.loop import fit
    from foretune.training.prepare import prepare

    task, wanted = config(precision)
    run = prepare(wanted, task)
    start = time.perf_counter()
    fit(run)
    return time.perf_counter() - start


def _others():
    """The same network, adapter, tensors and order for the two contenders that do not use our loop."""
    from foretune.training.batches import Order
    from foretune.training.prepare import prepare
    from foretune.training.surroundings import stream

    task, wanted = config()
    run = prepare(wanted, task)
    encoded = run.encoded["train"]
    order = Order(encoded.lengths, BATCH, stream("order", SEED))
    batches = [order.step(i) for i in range(wanted.schedule.steps)]
    return run, encoded, batches


def run_bare() -> float:
    import torch

    run, encoded, batches = _others()
    model = run.engine.bare
    parameters = [p for p in model.parameters() if p.requires_grad]
    held = [run.engine.objective.batch(encoded, rows, run.engine.checkpoint) for rows in batches]
    model.train()
    start = time.perf_counter()
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    warm = max(1, len(held) // 10)
    for step, batch in enumerate(held):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, (step + 1) / warm) * (1 - max(0, step - warm) / (len(held) - warm))
        mask = batch["attention_mask"]
        names = ("input_ids", "attention_mask", "token_type_ids")
        logits = model(**{k: batch[k] for k in names}).logits
        pooled = (logits * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        loss = torch.nn.functional.cross_entropy(pooled, batch["targets"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return time.perf_counter() - start


def run_trainer() -> float:
    import tempfile

    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    run, encoded, batches = _others()

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(encoded)

        def __getitem__(self, i):
            return {"input_ids": encoded.tokens[i].tolist(), "labels": int(encoded.targets[i])}

    class Ours(Trainer):
        def get_train_dataloader(self):
            collate = DataCollatorWithPadding(run.engine.checkpoint.tokenizer)
            per_epoch = len(batches) // EPOCHS

            class Batches(torch.utils.data.Sampler):
                epoch = 0

                def __iter__(self):
                    start = self.epoch * per_epoch
                    self.epoch += 1
                    yield from (b.tolist() for b in batches[start : start + per_epoch])

                def __len__(self):
                    return per_epoch

            loader = torch.utils.data.DataLoader(Rows(), batch_sampler=Batches(), collate_fn=collate)
            return self.accelerator.prepare(loader)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            logits = model(**inputs).logits
            mask = inputs["attention_mask"].unsqueeze(-1)
            pooled = (logits * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.cross_entropy(pooled, labels)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, learning_rate=LR, warmup_steps=0.1,
            weight_decay=0.0, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, logging_steps=500,
        )  # fmt: skip
        trainer = Ours(run.engine.bare, arguments, train_dataset=Rows())
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true", help="count whole processes, imports and loading included")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only:
        runs = {"trainer": run_trainer, "bare": run_bare}
        precision = "bf16" if asked.only.endswith("bf16") else "fp32"
        start = time.process_time()
        wall = runs[asked.only]() if asked.only in runs else run_foretune(precision)
        print(json.dumps({"seconds": wall, "cpu": time.process_time() - start}))
        return
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(asked.rounds):
        for name in CONTENDERS:
            command = [sys.executable, str(Path(__file__)), "--only", name]
            start = time.perf_counter()
            out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
            whole = time.perf_counter() - start
            taken[name].append(whole if asked.whole else json.loads(out.splitlines()[-1])["seconds"])
    median = {name: statistics.median(values) for name, values in taken.items()}
    for name, values in taken.items():
        print(f"{name:14} median {median[name]:7.2f} s   of {', '.join(f'{v:.2f}' for v in values)}")
    print(f"foretune / Trainer + peft      {median['foretune'] / median['trainer']:.2f}   (aim <= 0.70)")
    print(f"foretune bf16 / Trainer + peft {median['foretune-bf16'] / median['trainer']:.2f}   (aim <= 0.70)")
    print(f"foretune / bare loop           {median['foretune'] / median['bare']:.2f}   (aim <= 1.05)")


if __name__ == "__main__":
    main()
