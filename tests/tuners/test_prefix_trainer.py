"""Dev judged by members under the stock Trainer: what is computed, and that the best checkpoint is chosen by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import foretune
from foretune.errors import UsageError
from foretune.testing import toys
from foretune.tuners import LoRA, PrefixSubspace, get_peft_model

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")


def accuracy(prediction: Any) -> dict[str, float]:
    said, labels = prediction.predictions.argmax(-1), prediction.label_ids
    return {"accuracy": float((said == labels)[labels != -100].mean())}


def rows(labels: int = 3, count: int = 12) -> list[dict[str, Any]]:
    """Texts of different lengths, in no order."""
    lengths = tuple(4 + i * 5 % 7 for i in range(count))
    batch = toys.batch(toys.network("bert"), lengths)
    parts = zip(batch["input_ids"], batch["attention_mask"], lengths, strict=True)
    return [
        {"input_ids": ids[:n], "attention_mask": mask[:n], "labels": i % labels}
        for i, (ids, mask, n) in enumerate(parts)
    ]


def trainer(
    model: Any, folder: Path, callback: Any, dev: Any = None, more: tuple[Any, ...] = (), **options: Any
) -> Any:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    asked = TrainingArguments(
        str(folder),
        **{"max_steps": 4, "eval_steps": 1, "save_steps": 1, "learning_rate": 5e-2, **options},
        per_device_train_batch_size=6,
        per_device_eval_batch_size=5,
        eval_strategy="steps",
        save_strategy="steps",
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    collate = DataCollatorWithPadding(toys.tokenizer("bert"))
    dev = rows() if dev is None else dev
    return Trainer(model, asked, collate, rows(), dev, compute_metrics=accuracy, callbacks=[callback, *more])


def simplex(**options: Any) -> Any:
    return get_peft_model(toys.loud(toys.network("bert")), PrefixSubspace(length=3, **options))


def evaluated(job: Any, name: str) -> dict[int, float]:
    return {entry["step"]: entry[name] for entry in job.state.log_history if name in entry}


def test_the_numbers_are_those_of_the_members_one_by_one(tmp_path: Path) -> None:
    import torch

    model = simplex()
    job = trainer(model, tmp_path, foretune.StochasticDevCallback(accuracy, samples=4, seed=3))
    told = job.evaluate()
    ensemble = PrefixSubspace(dev_seed=3).ensemble(model, 12, 4)
    assert ensemble is not None
    right, losses = np.zeros((4, 12)), np.zeros((4, 12))
    for i, row in enumerate(rows()):
        batch = {name: torch.as_tensor(value)[None] for name, value in row.items()}
        for member in range(4):
            with torch.no_grad(), ensemble.at([member], np.array([i])):
                output = model.eval()(**batch)
            right[member, i], losses[member, i] = output.logits.argmax() == row["labels"], output.loss
    each = right.mean(1)
    assert each.std() > 0
    assert told["eval_members_accuracy"] == pytest.approx(right.mean())
    assert told["eval_members_accuracy_mean"] == pytest.approx(each.mean())
    assert told["eval_members_accuracy_monte_carlo_error"] == pytest.approx(each.std(ddof=1) / 2)
    assert told["eval_members_loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert told["eval_members_loss"] != pytest.approx(told["eval_loss"], rel=1e-3)
    assert {name: value for name, value in job.evaluate().items() if "members" in name} == {
        name: value for name, value in told.items() if "members" in name
    }


@pytest.mark.parametrize("metric", ["members_loss", "members_accuracy"])
def test_the_trainer_keeps_the_checkpoint_that_the_members_choose(metric: str, tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = simplex()
    job = trainer(
        model,
        tmp_path,
        foretune.StochasticDevCallback(accuracy, samples=4),
        metric_for_best_model=metric,
        load_best_model_at_end=True,
    )
    job.train()
    scores = evaluated(job, f"eval_{metric}")
    assert sorted(scores) == [1, 2, 3, 4]
    best = min if metric == "members_loss" else max
    chosen = best(scores, key=lambda step: (scores[step], -step if best is max else step))
    assert job.state.best_global_step == chosen
    assert job.state.best_metric == scores[chosen]
    kept = foretune.PrefixModel.from_pretrained(toys.loud(toys.network("bert")), tmp_path / f"checkpoint-{chosen}")
    assert torch.equal(model.vertices, kept.vertices)


def test_early_stopping_reads_what_the_members_say(tmp_path: Path) -> None:
    from transformers import EarlyStoppingCallback

    job = trainer(
        simplex(),
        tmp_path,
        foretune.StochasticDevCallback(accuracy, samples=2),
        more=(EarlyStoppingCallback(2),),
        max_steps=9,
        learning_rate=1e-12,
        metric_for_best_model="members_accuracy",
        load_best_model_at_end=True,
    )
    job.train()
    assert job.state.global_step == 3


def test_without_metrics_there_is_the_loss_and_each_dev_set_has_its_own(tmp_path: Path) -> None:
    job = trainer(simplex(), tmp_path, foretune.StochasticDevCallback(samples=2), {"one": rows(), "two": rows()[:7]})
    told = job.evaluate()
    found = {name for name in told if "members" in name}
    assert found == {"eval_one_members_loss", "eval_two_members_loss"}


def test_labels_and_logits_of_every_token_are_padded_as_the_trainer_pads_them(tmp_path: Path) -> None:
    from transformers import DataCollatorForTokenClassification, Trainer

    model = get_peft_model(toys.loud(toys.network("bert", "token")), PrefixSubspace(length=3))
    tagged = [{**row, "labels": (row["input_ids"] % 3).tolist()} for row in rows()]
    seen: list[Any] = []

    def watched(prediction: Any) -> Mapping[str, float]:
        seen.append(prediction)
        return accuracy(prediction)

    asked = trainer(simplex(), tmp_path, foretune.StochasticDevCallback()).args
    collate = DataCollatorForTokenClassification(toys.tokenizer("bert"))
    callback = foretune.StochasticDevCallback(watched, samples=2)
    told = Trainer(model, asked, collate, eval_dataset=tagged, callbacks=[callback]).evaluate()
    assert [one.predictions.shape[:2] for one in seen] == [(12, 10), (12, 10), (24, 10)]
    assert (seen[0].label_ids[0] == -100).sum() == 10 - len(tagged[0]["labels"])
    assert 0 < told["eval_members_accuracy"] < 1


def test_training_goes_on_as_it_would_without(tmp_path: Path) -> None:
    import torch

    learned = []
    for judged in (True, False):
        torch.manual_seed(0)
        model = simplex(beta=1.0)
        job = trainer(model, tmp_path, foretune.StochasticDevCallback(samples=2))
        if not judged:
            job.pop_callback(foretune.StochasticDevCallback)
        job.train()
        assert bool(evaluated(job, "eval_members_loss")) is judged
        learned.append(model.vertices.detach().clone())
    assert torch.equal(*learned)


def test_what_has_no_members_is_refused_before_the_first_step(tmp_path: Path) -> None:
    model = get_peft_model(toys.network("bert"), LoRA(rank=2))
    with pytest.raises(UsageError, match="Expected the model that `attach` returned, but got PeftModel"):
        trainer(model, tmp_path, foretune.StochasticDevCallback()).train()


def test_dev_without_a_length_or_without_labels_is_refused(tmp_path: Path) -> None:
    from datasets import Dataset

    plain = [{name: row[name] for name in ("input_ids", "attention_mask")} for row in rows()]
    with pytest.raises(UsageError, match="`labels` to be judged, but has input_ids, attention_mask"):
        trainer(simplex(), tmp_path, foretune.StochasticDevCallback(), plain).evaluate()
    stream = Dataset.from_list([{k: np.asarray(v).tolist() for k, v in row.items()} for row in rows()])
    with pytest.raises(UsageError, match="has no length"):
        trainer(simplex(), tmp_path, foretune.StochasticDevCallback(), stream.to_iterable_dataset()).evaluate()
