"""Many small runs on one frozen MiniLM: one `foretune.compare`, against as many processes of `Trainer` + peft.

Both sides start from nothing, keep two processes going with one thread each, and do the same runs: the same rows of
the packaged Banking77 subset, the same LoRA or linear probe, as many steps of as many rows in fp32, one answer to every
test row, and predictions and adapter written at the end. That the comparison measures floors and judges is counted too.
A round is one side after the other, the first one taking turns; the ratio is that of wall times within a round.

    python benchmarks/comparison.py --runs 32 --rounds 3
    python benchmarks/comparison.py --runs 4              # a quick look
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AIM, PROCESSES, DRAWS, BATCH, LR, SHOTS = 0.35, 2, 4, 16, 5e-4, 8
PHASES = ("imports", "load", "tokenise", "train", "evaluate", "save")


def protocol(runs: int, steps: int, method: str):
    """``runs`` runs of one method: up to four draws, each with as many initial weights."""
    from foretune.comparison import Protocol

    draws = math.gcd(runs, DRAWS)
    return Protocol(
        tasks=["banking77_demo"], methods=[method], shots=[SHOTS], data_seeds=range(draws), steps=steps,
        init_seeds=range(runs // draws), batch_size=BATCH, contrasts="none",
    )  # fmt: skip


def compare(runs: int, steps: int, method: str, folder: Path) -> None:
    """Our side, in a process of its own: run and judge, then say where the time of the workers went."""
    from foretune.comparison.harness import opened, run_and_judge

    start = time.perf_counter()
    cells = opened(protocol(runs, steps, method), store=folder)
    run_and_judge(cells, workers=PROCESSES, keep_adapters=True)
    wall = time.perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    once = {job.digest: job for job in cells.known()}  # runs of one draw share the job of its floors
    for record in filter(None, map(cells.record, once.values())):
        for phase in ("setup", "train", "eval", "floor"):
            spent[phase] += getattr(record.cost, f"{phase}_seconds")
    spent["rest"] = PROCESSES * wall - sum(spent.values())
    print(json.dumps(spent))


def jobs(runs: int, steps: int, method: str) -> list[dict]:
    """What each process of the other side is told: rows, labels, adapter, seed; it needs nothing of ours."""
    from foretune.comparison.plan import Plan, draw_rows
    from foretune.models.locate import locate
    from foretune.tuners import make

    plan = Plan(protocol(runs, steps, method))
    made = []
    for cell in plan.cells(method, "banking77_demo", SHOTS):
        config = next(iter(plan.jobs(cell, (LR,)))).config
        rows = draw_rows(plan.task(cell.task), config.task, cell.data_seed)
        adapter = vars(make(config.tuner)) if method == "lora" else None
        tables = {name: getattr(rows, name).select(["text", "label"]).to_pylist() for name in ("train", "test")}
        labels = list(plan.task(cell.task).schema.labels)
        made.append(
            {"model": str(locate(config.model)), "labels": labels, "adapter": adapter, "seed": cell.init_seed,
             "steps": steps, **tables}
        )  # fmt: skip
    return made


def trainer(job: dict, folder: str) -> dict[str, float]:
    """One run as a user of stock libraries writes it; returns the seconds of each phase."""
    marks = [time.perf_counter()]
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    marks.append(time.perf_counter())
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForSequenceClassification.from_pretrained(job["model"], num_labels=len(job["labels"]))
    if job["adapter"]:
        told = job["adapter"]
        wanted = LoraConfig(
            task_type="SEQ_CLS", r=told["rank"], lora_alpha=told["alpha"], lora_dropout=told["dropout"],
            target_modules=told["targets"],
        )  # fmt: skip
        model = get_peft_model(model, wanted)
    else:
        model.base_model.requires_grad_(False)
    marks.append(time.perf_counter())
    encoded = {}
    for split in ("train", "test"):
        tokens = tokenizer([row["text"] for row in job[split]], truncation=True, max_length=256)["input_ids"]
        numbers = [job["labels"].index(row["label"]) for row in job[split]]
        encoded[split] = [{"input_ids": t, "labels": n} for t, n in zip(tokens, numbers, strict=True)]
    marks.append(time.perf_counter())
    arguments = TrainingArguments(
        folder, max_steps=job["steps"], per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
        learning_rate=LR, weight_decay=0.01, warmup_steps=0.1, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, logging_steps=job["steps"], seed=job["seed"],
    )  # fmt: skip
    made = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), encoded["train"])
    made.train()
    marks.append(time.perf_counter())
    answers = made.predict(encoded["test"]).predictions
    marks.append(time.perf_counter())
    if job["adapter"]:
        model.save_pretrained(folder)
    else:
        torch.save(model.classifier.state_dict(), f"{folder}/head.pt")
    np.save(f"{folder}/answers.npy", answers)
    marks.append(time.perf_counter())
    return dict(zip(PHASES, (after - before for before, after in itertools.pairwise(marks)), strict=True))


def timed_compare(asked: argparse.Namespace) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        out = child(["--only", "compare", "--folder", folder], asked)
        return time.perf_counter() - start, json.loads(out.splitlines()[-1])


def timed_trainers(asked: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Processes two at a time; the seconds of each phase summed, and as ``rest`` what lies around them."""
    told = jobs(asked.runs, asked.steps, asked.method)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(PROCESSES) as pool:
        for i, job in enumerate(told):
            (Path(folder) / str(i)).mkdir()
            (Path(folder) / str(i) / "job.json").write_text(json.dumps(job))
        start = time.perf_counter()
        said = list(
            pool.map(lambda i: child(["--only", "trainer", "--folder", f"{folder}/{i}"], asked), range(len(told)))
        )
        wall = time.perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    for out in said:
        for phase, seconds in json.loads(out.splitlines()[-1]).items():
            spent[phase] += seconds
    spent["rest"] = PROCESSES * wall - sum(spent.values())
    return wall, spent


def child(arguments: Sequence[str], asked: argparse.Namespace) -> str:
    """The output of this script in a process of its own."""
    size = ["--runs", str(asked.runs), "--steps", str(asked.steps), "--method", asked.method]
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, str(Path(__file__)), *arguments, *size]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def shares(name: str, walls: Sequence[float], spent: Sequence[dict[str, float]], runs: int) -> str:
    """Wall time, and where the time of the two processes went, in core-seconds of one run."""
    phases = {phase: statistics.median(each.get(phase, 0.0) for each in spent) / runs for phase in spent[0]}
    told = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in phases.items())
    return f"{name:18} {statistics.median(walls):7.1f} s   of one run, process-seconds: {told}"


def interval(ratios: Sequence[float]) -> str:
    """Student's t over rounds, of the logarithms."""
    if len(ratios) < 2:
        return "(one round: no interval)"
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    half = t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return f"[{math.exp(middle - half):.3f}, {math.exp(middle + half):.3f}] over {len(ratios)} rounds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--method", choices=("lora", "head"), default="lora")
    parser.add_argument("--only", choices=("compare", "trainer"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only == "compare":
        compare(asked.runs, asked.steps, asked.method, Path(asked.folder))
        return
    if asked.only == "trainer":
        print(json.dumps(trainer(json.loads((Path(asked.folder) / "job.json").read_text()), asked.folder)))
        return
    sides = {"one comparison": timed_compare, "Trainer + peft": timed_trainers}
    walls: dict[str, list[float]] = {name: [] for name in sides}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for i in range(asked.rounds):
        for name in list(sides)[:: 1 if i % 2 == 0 else -1]:
            wall, where = sides[name](asked)
            walls[name].append(wall)
            spent[name].append(where)
    for name in sides:
        print(shares(name, walls[name], spent[name], asked.runs))
    ours, theirs = walls.values()
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    aim = f"(aim <= {AIM})" if asked.runs >= 32 else "(aim is for 32 runs)"
    found = f"{statistics.median(ratios):.3f} {interval(ratios)}"
    print(f"{asked.runs} runs of {asked.method}, {asked.steps} steps: {found} {aim}")


if __name__ == "__main__":
    main()
