"""Methods that answer through the language-model head stand in one table with those that train a head."""

from __future__ import annotations

from pathlib import Path

from foretune.comparison.harness import opened
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
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
    against = next(c for c in verdict.contrasts if (c.first, c.second) == ("zero-shot", "full"))
    assert against.difference.n_seeds == 2
    assert not any(flag.startswith("same_init") for cell in found.values() for flag in cell.flags)
