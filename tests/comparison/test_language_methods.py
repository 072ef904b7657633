"""Methods that answer through the language-model head stand in one table with those that train a head."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretune.comparison.harness import opened
from foretune.comparison.plan import Plan
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.errors import DataError, ForetuneError
from foretune.testing import toys

OPTIONS = {"pattern": "{text} {answer}", "words": {"good": "good", "bad": "bad"}}


def test_zero_shot_in_context_pattern_and_distillation_are_methods_by_name(protocol, tmp_path: Path):
    llama = toys.checkpoint(tmp_path / "llama", "llama", max_position_embeddings=256)
    shown = {"icl": {"demonstrations": 100}, "distillation": {"demonstrations": 5}}  # too many; no multiple of two
    names = ("zero-shot", "icl", "pattern", "distillation")
    methods = [{"name": name, "objective_options": {**OPTIONS, **shown.get(name, {})}} for name in names]
    cells = opened(protocol(methods=[*methods, "full"], model=str(llama)), store=tmp_path / "store")
    work(cells)
    verdict = judge(cells)
    found = {name: verdict.cell(name, "kind", 4) for name in (*names, "full")}
    assert {run.status for cell in found.values() for run in cell.runs} == {"ok"}
    assert len(found["zero-shot"].runs) == 1
    assert (found["zero-shot"].labels, found["icl"].labels) == (0, 8)
    assert "zero-shot" in found["full"].floors
    assert found["zero-shot"].score.interval == "over test rows"
    assert found["icl"].spent.trainable_parameters == found["zero-shot"].spent.trainable_parameters == 0
    assert found["icl"].spent.prompt_tokens > 4 * found["pattern"].spent.prompt_tokens
    assert any(
        note.startswith("distillation on kind with 4 labels: the teacher with its demonstrations has accuracy")
        for note in verdict.notes
    )
    assert all(front.cost and "zero-shot" in {p.method for p in front.points} for front in verdict.fronts)
    against = next(c for c in verdict.contrasts if (c.first, c.second) == ("zero-shot", "full"))
    assert against.difference.n_seeds == 2
    assert not any(flag.startswith("same_init") for cell in found.values() for flag in cell.flags)


def test_the_untrained_model_is_a_floor_wherever_a_method_reads_with_words(protocol, tmp_path: Path):
    llama = str(toys.checkpoint(tmp_path / "llama", "llama", max_position_embeddings=256))
    pattern = {"name": "pattern", "objective_options": OPTIONS}
    cells = opened(protocol(methods=[pattern, "full"], model=llama), store=tmp_path / "store")
    work(cells)
    verdict = judge(cells)
    assert verdict.missing == ()
    floors = [cell.floors["zero-shot"] for cell in verdict.cells]
    assert len(floors) == 2
    assert {cell.method for cell in verdict.cells} == {"pattern", "full"}

    listed = [pattern, {"name": "untrained", "tuner": "frozen", "objective": "pattern", "objective_options": OPTIONS}]
    cells = opened(protocol(methods=listed, model=llama), store=tmp_path / "store")
    assert not cells.missing()  # it is the very run that was the floor, which is measured once
    verdict = judge(cells)
    assert "zero-shot" not in verdict.cell("pattern", "kind", 4).floors
    assert verdict.cell("pattern", "kind", 4).floors["untrained"].value == floors[0].value
    assert Plan(protocol(methods=["lora", "full"], model=llama)).zero_shot("kind") is None


@pytest.mark.parametrize("method", ["icl", "distillation"])
def test_rows_that_do_not_fit_behind_the_examples_are_refused_before_other_methods_have_run(
    protocol, kind: Path, tmp_path: Path, method: str
):
    llama = toys.checkpoint(tmp_path / "llama", "llama", max_position_embeddings=256)
    long = [{**row, "text": f"{row['text']} " * 80} for row in toys.rows("classification")[:3]]
    task = {"source": str(kind), "ood": {"long": str(toys.table(tmp_path / "long.csv", long))}}
    shown = {"name": method, "objective_options": {**OPTIONS, "demonstrations": 4}}
    with pytest.raises(DataError, match="3 of 3 rows of long do not") as refused:
        opened(protocol(tasks=[task], methods=["lora", shown], model=str(llama)), store=tmp_path / "store")
    assert "fewer demonstrations" in str(refused.value)
    opened(protocol(tasks=[task], methods=["lora", "full"], model=str(llama)), store=tmp_path / "store")


@pytest.mark.parametrize(
    ("family", "options", "says"),
    [
        ("llama", {"pattern": "{text} {pair} {answer}"}, "one text"),
        ("llama", {**OPTIONS, "words": {"good": "same", "bad": "same"}}, "same"),
        ("llama", {**OPTIONS, "words": {"god": "good"}}, "`god`"),
    ],
)
def test_what_cannot_answer_is_refused_before_other_methods_have_run(
    protocol, tmp_path: Path, family: str, options: dict[str, object], says: str
):
    model = toys.checkpoint(tmp_path / family, family, max_position_embeddings=256)
    asked = protocol(methods=["lora", {"name": "zero-shot", "objective_options": options}], model=str(model))
    with pytest.raises(ForetuneError, match=says):
        opened(asked, store=tmp_path / "store")
    assert not list((tmp_path / "store").glob("*.jsonl"))


def test_a_checkpoint_without_a_language_model_head_is_refused_before_other_methods_have_run(protocol, tmp_path: Path):
    from transformers import AutoModel

    bert = toys.checkpoint(tmp_path / "bert", "bert")
    AutoModel.from_pretrained(bert).save_pretrained(bert)
    asked = protocol(methods=["lora", "zero-shot"], model=str(bert))
    with pytest.raises(ForetuneError, match="holds no language-model head"):
        opened(asked, store=tmp_path / "store")
