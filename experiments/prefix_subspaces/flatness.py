"""How flat is what was learned? Test loss and score inside the simplex and under noise, n = 1 against n > 1.

    python experiments/prefix_subspaces/flatness.py --data-dir DATA [--minutes 15]

An extra beside the protocol, thought of after it was frozen: it trains cells of the protocol again, with its rates and
schedule, and measures each at equal noise (``foretune.training.landscape.measure_flatness``). Nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import replace
from typing import Any

from run import RESULTS, Runner, append, cells, chosen_rates, code_hash, lines, protocol

ARMS = ("n1", "n3-stochastic", "n6-stochastic")
TASKS, K, SEEDS, TEST_ROWS = ("cr",), 100, (0, 1, 2), 200
SIZES = (0.25, 0.5, 1.0)
PATH = RESULTS / "flatness.jsonl"


def measured(runner: Runner, cell: dict[str, Any]) -> dict[str, Any]:
    """What came of one cell: the scores at rest and what they lose around it."""
    from foretune.records import ModelRef, Part, RunConfig, Schedule, Seeds
    from foretune.training.landscape import measure_flatness
    from foretune.training.loop import fit
    from foretune.training.prepare import prepare

    plan, task = runner.plan, runner.task(cell["task"], TEST_ROWS)
    schedule = Schedule(**plan["schedule"], lr=cell["rate"], head_lr=plan["head_lr"]["default"])
    config = RunConfig(
        ModelRef(plan["model"]),
        replace(task.ref, shots=cell["shots"], dev_fraction=cell["dev_fraction"]),
        Part(cell["tuner"], cell["options"]),
        Part("head"),
        schedule,
        Seeds.all(cell["seed"]),
    )
    run = prepare(config, task, runner.data)
    fit(run)
    found = measure_flatness(run, "test", sizes=SIZES)
    assert found is not None
    names = list(found.rest)
    return {
        **{name: cell[name] for name in ("key", "arm", "task", "k", "seed", "rate")},
        "rest": dict(found.rest), "reach": found.reach, "rms": found.rms,
        "inside": {name: found.change(name) for name in names} if found.inside else None,
        "noise": {str(size): {name: found.change(name, size) for name in names} for size in SIZES},
    }  # fmt: skip


def said(parts: list[dict[str, float]]) -> str:
    """The mean change of the loss and, in brackets, of the accuracy."""
    loss, accuracy = (statistics.mean(part[name] for part in parts) for name in ("loss", "accuracy"))
    return f"{loss:+.3f} ({accuracy:+.3f})"


def table(rows: list[dict[str, Any]]) -> None:
    """Print means over tasks and seeds, of the seeds in which every arm and task was measured."""
    done = {(row["arm"], row["task"], row["seed"]): row for row in rows}
    whole = [seed for seed in SEEDS if all((arm, task, seed) in done for arm in ARMS for task in TASKS)]
    print(f"Seeds {whole}, tasks {', '.join(TASKS)}, K = {K}, {TEST_ROWS} test rows. Changes of loss (of accuracy).\n")
    print("| arm | loss | accuracy | inside | reach | " + " | ".join(f"noise {size:g}" for size in SIZES) + " |")
    print("|---" * (5 + len(SIZES)) + "|")
    for arm in ARMS:
        mine = [done[arm, task, seed] for task, seed in itertools.product(TASKS, whole)]
        if not mine:
            continue
        inside = said([row["inside"] for row in mine]) if mine[0]["inside"] else "one point"
        reach = f"{statistics.mean(row['reach'] for row in mine):.2f}" if mine[0]["inside"] else ""
        rest = [f"{statistics.mean(row['rest'][name] for row in mine):.3f}" for name in ("loss", "accuracy")]
        noise = [said([row["noise"][str(size)] for row in mine]) for size in SIZES]
        print(f"| {arm} | {' | '.join([*rest, inside, reach, *noise])} |")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--minutes", type=float, default=15.0)
    asked = parser.parse_args()
    plan, digest = protocol()
    stamp = {"protocol": digest, "code": code_hash()}
    runner, end = Runner(plan, asked.data_dir), time.monotonic() + 60 * asked.minutes
    rates = chosen_rates(plan, lines(RESULTS / "tuning.jsonl"))
    classes = {name: len(runner.task(name, TEST_ROWS).schema.labels) for name in plan["tasks"]}
    done = {row["key"] for row in lines(PATH)}
    for cell in cells(plan, rates, classes):
        wanted = cell["arm"] in ARMS and cell["task"] in TASKS and cell["k"] == K and cell["seed"] in SEEDS
        if wanted and cell["key"] not in done and time.monotonic() < end:
            append(PATH, {**measured(runner, cell), **stamp})
    table(lines(PATH))


if __name__ == "__main__":
    main()
