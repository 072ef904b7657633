"""Acceptance checks 15 and 16 of the comparison: what published models must reach, and the profile for a first look.

Check 15 needs weights from the Hub and a GPU: ``pytest -m "gpu and network" tests/comparison/test_outcome.py``. Data
sets lie under ``FORETUNE_DATA`` or come from the Hub. That what it runs can be run is tested here with a toy.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

import foretune
from foretune.cli.compare import PROFILES
from foretune.comparison.harness import opened
from foretune.comparison.protocol import Protocol, shorter
from foretune.comparison.verdict import judge
from foretune.comparison.worker import work
from foretune.records.verdict import CellResult
from foretune.report import comparison_page, units
from foretune.report import verdict_words as words
from foretune.tasks import catalog
from foretune.testing import toys

VANILLA = {"name": "vanilla", "tuner": "full", "lr": 1e-5}
MINIMAL = "{text} {pair} ? {answer}"
WORDS = {"entailment": "Yes", "not_entailment": "No"}


def vanilla(model: str, source: object, **more: object) -> Protocol:
    """Fine-tuning on every row there is; 3 passes, as for OPT-125M on CoLA."""
    asked = {"tasks": [source], "methods": [VANILLA], "model": model, "contrasts": "none", "data_seeds": [0]}
    return Protocol.from_json({**asked, "epochs": 3, "most_steps": 1_700, "warmup": 0.1, **more})


def few_shot(model: str, source: object, words: dict[str, str] = WORDS, **more: object) -> Protocol:
    """Pattern-based fine-tuning on 16 rows in total, 5 draws, 40 passes at a constant rate (Mosbach et al. 2023)."""
    method = {"name": "pattern", "lr": 1e-5, "objective_options": {"pattern": MINIMAL, "words": words}}
    asked = {"tasks": [source], "methods": [method], "model": model, "contrasts": "none", "data_seeds": list(range(5))}
    course = {"shots": [16], "shots_are": "total", "decay": "constant", "weight_decay": 0.0, "batch_size": 16}
    return Protocol.from_json({**asked, **course, "steps": 40, **more})


def two_classes(train: pa.Table, test: pa.Table, hans: pa.Table, folder: Path) -> dict[str, object]:
    """MNLI without its neutral rows, as Mosbach et al. and the reference code have it, and HANS beside it, as files."""
    for name, table in (("train", train), ("test", test), ("hans", hans)):
        kept = table.filter(pc.not_equal(table["label"], "neutral"))
        entails = pc.equal(kept["label"], "entailment")
        columns = {
            "text": kept["text"],
            "pair": kept["pair"],
            "label": pc.if_else(entails, "entailment", "not_entailment"),
            **({"heuristic": kept["group"]} if "group" in kept.column_names else {}),
        }
        pyarrow.csv.write_csv(pa.table(columns), folder / f"{name}.csv")
    options = {"text": "text", "pair": "pair", "test": str(folder / "test.csv"), "group": "heuristic"}
    return {
        "source": str(folder / "train.csv"),
        "name": "mnli",
        "ood": {"hans": str(folder / "hans.csv")},
        "options": options,
    }


def safe(name: str, folder: Path) -> str:
    """A model whose repository holds pickled weights alone, which are not loaded: written anew, as the refusal says."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = folder / name.replace("/", "-")
    AutoModelForCausalLM.from_pretrained(name).save_pretrained(place)
    AutoTokenizer.from_pretrained(name).save_pretrained(place)
    return str(place)


def only(protocol: Protocol, store: Path) -> CellResult:
    cells = opened(protocol, store=store)
    work(cells)
    (cell,) = judge(cells).cells
    assert [run.error for run in cell.runs if run.status != "ok"] == []
    return cell


@pytest.mark.gpu
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_check_15_opt_125m_on_all_of_cola_reaches_an_accuracy_of_78_to_82(tmp_path: Path):
    model, by_accuracy = safe("facebook/opt-125m", tmp_path), {"source": "cola", "options": {"metric": "accuracy"}}
    assert 0.78 <= only(vanilla(model, by_accuracy), tmp_path).score.value <= 0.82
    assert only(vanilla(model, "cola"), tmp_path).score.value > 0.4


@pytest.mark.gpu
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_check_15_opt_1_3b_with_16_rows_scores_62_on_two_classes_of_mnli_and_chance_on_hans(tmp_path: Path):
    """62 +- 4 was measured by others; on HANS models of this size are expected to guess."""
    _, splits, ood = catalog.open("mnli")
    task = two_classes(splits["train"], splits["test"], ood["hans"], tmp_path)
    made = only(few_shot(safe("facebook/opt-1.3b", tmp_path), task, test_rows=2_000), tmp_path)
    assert made.score.value == pytest.approx(0.62, abs=0.04)
    assert made.outside[0].score.value == pytest.approx(0.5, abs=0.05)


def pairs(n: int, labels: tuple[str, ...], word: str, groups: tuple[str, ...] = ()) -> pa.Table:
    rows = [
        {
            "text": f"{word} {toys.WORDS[i % 16]} film {i % 7} was {toys.WORDS[(3 * i) % 16]}",
            "pair": f"it was {toys.WORDS[i % 16]}",
            "label": labels[i % len(labels)],
            **({"group": groups[i % len(groups)]} if groups else {}),
        }
        for i in range(n)
    ]
    return pa.Table.from_pylist(rows)


def test_check_15_what_it_runs_can_be_run(tmp_path: Path):
    """With a toy in place of OPT and made-up pairs in place of MNLI: a few steps, scores that mean nothing."""
    model = str(toys.checkpoint(tmp_path / "llama", "llama", max_position_embeddings=256))
    classes = ("entailment", "neutral", "contradiction")
    task = two_classes(
        pairs(48, classes, "the"),
        pairs(24, classes, "a"),
        pairs(24, ("entailment", "non-entailment"), "and", ("lexical_overlap", "subsequence", "constituent")),
        tmp_path,
    )
    words = {"entailment": "good", "not_entailment": "bad"}
    few = only(few_shot(model, task, words, data_seeds=[0, 1], steps=2, test_rows=20), tmp_path / "store")
    assert few.labels == 16
    assert {part.kind for part in few.outside[0].parts} == {"label", "heuristic"}
    whole = only(vanilla(model, task, epochs=1, fewest_steps=2, most_steps=2), tmp_path / "store")
    assert whole.labels == 32


@pytest.mark.slow
def test_check_16_the_profile_for_a_first_look_runs_without_a_gpu_or_a_network(tmp_path: Path):
    """3 tasks, 2 methods, 3 seeds, with a page that shows seeds, interval, floor and cost of every cell."""
    sources = []
    for name in ("one", "two", "three"):
        rows = [{"text": f"{name} {row['text']}", "label": row["label"]} for row in toys.rows("classification")]
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), tmp_path / f"{name}.csv")
        sources.append(str(tmp_path / f"{name}.csv"))
    asked = {"tasks": sources, "methods": ["lora", "full", "head"], "shots": [8]}
    protocol = Protocol.from_json({**asked, "model": str(toys.checkpoint(tmp_path / "bert", "bert"))})
    verdict = foretune.compare(shorter(protocol, **PROFILES["cpu-small"]), store=tmp_path / "store")
    assert verdict.missing == ()
    assert len(verdict.cells) == 6
    for cell in verdict.cells:
        assert (cell.score.n_seeds, len(cell.runs)) == (3, 3)
        assert cell.floors.keys() >= {"majority", "tfidf", "embedding"}
        assert cell.spent.seconds["train"] > 0
        assert cell.spent.peak_bytes is not None
    assert "better" not in {c.kind for c in verdict.contrasts if c.difference.low <= 0}
    page = comparison_page.render(verdict)
    assert units.plural(3, "seed") in page
    for cell in verdict.cells:
        assert words.scored(cell.metric, cell.score) in page
        assert words.cost("peak_bytes", cell.spent.peak_bytes) in page
        assert all(words.scored(cell.metric, floor) in page for floor in cell.floors.values())
