"""Every format of every kind of run: built here, reloaded in one fresh process, compared with the record."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from export_cases import LABELS, Runs

from foretune.errors import ModelError, UsageError
from foretune.export import FORMATS, check, readme
from foretune.export.source import Source
from foretune.models import build
from foretune.tasks.schema import SPLIT_COLUMNS
from foretune.training.predictor import Predictor
from foretune.tuners._peft import merge

ASKED = ("cloze", "cloze-pair", "asked-prefix", "asked-prompt", "asked-t5", "shown", "distilled")
"""Runs whose language model answers with words."""

HEADS = sorted(FORMATS.keys() - {"decision"})
"""Formats of runs that a head of the task's own answers."""

GIVEN = {
    "mean": ("peft", "merged", "onnx"),
    "cls": ("merged", "onnx"),
    "pair": ("merged", "onnx"),
    "last": ("peft", "merged"),
    "regression": ("peft", "merged", "onnx"),
    "choice": ("peft", "merged", "onnx"),
    "prefix": ("peft", "onnx"),
    "simplex": ("peft", "onnx"),
    "distil": ("onnx",),
    "fluent": ("peft",),
    "prompt": ("peft", "onnx"),
    "writer": ("merged",),
    "eos": ("peft", "merged"),
    "chat": ("peft", "merged"),
    "t5": ("peft", "merged"),
    "subset": ("supertuning", "shira", "lora", "merged", "onnx"),
    "static": ("supertuning", "shira", "merged"),
    **dict.fromkeys(ASKED, ("decision",)),
}
EVERY = [(name, form) for name, forms in GIVEN.items() for form in forms]
REFUSED = [
    ("cls", "peft", ModelError, "--to merged"),
    ("pair", "peft", ModelError, "--to merged"),
    ("prefix", "merged", ModelError, "--to peft"),
    ("prompt", "merged", ModelError, "--to peft"),
    ("distil", "peft", ModelError, "no prefix for `distilbert`.*foretune predict"),
    ("ensemble", "peft", UsageError, "10 members.*--collapse midpoint"),
    ("ensemble", "onnx", UsageError, "10 members.*--collapse midpoint"),
    ("last", "onnx", ModelError, "--to merged"),
    ("t5", "onnx", ModelError, "--to merged"),
    ("subset", "peft", ModelError, "`dynamic-subset`.*--to supertuning"),
    ("norms", "peft", ModelError, "Use `--to merged`"),
    ("norms", "supertuning", ModelError, "`bert.*LayerNorm.*--to merged"),
    ("norms", "shira", ModelError, "`bert.*LayerNorm.*--to merged"),
    ("norms", "lora", ModelError, "`bert.*LayerNorm.*`full`"),
    ("mean", "supertuning", ModelError, "`lora` learns none.*--to peft"),
    ("cls", "shira", ModelError, "`full` learns none.*--to merged"),
    ("mean", "decision", UsageError, "`head` has none.*--to merged"),
    ("prefix", "decision", UsageError, "`head` has none.*--to peft"),
    *[("cloze", form, ModelError, "`pattern` answers with words.*--to decision") for form in HEADS],
    ("distilled", "merged", ModelError, "`distillation` answers with words.*--to decision"),
]


class Built(NamedTuple):
    source: Source
    folder: Path
    rows: pa.Table
    how: dict[str, Any]
    answers: list[Any]


Exports = dict[tuple[str, str], Built]


@pytest.fixture(scope="module")
def exports(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Every export of ``EVERY`` with what one fresh process answered; for the gate see ``test_hand_over``."""
    home = tmp_path_factory.mktemp("exports")
    made = {}
    for name, form in EVERY:
        source = Source.open(runs(name))
        folder = home / name / form
        folder.mkdir(parents=True)
        how = {**source.description(form), **FORMATS[form](source, folder)}
        (folder / "export.json").write_text(json.dumps(how), encoding="utf-8")
        rows = check.recorded(source)
        pq.write_table(rows, home / name / "rows.parquet")
        made[name, form] = Built(source, folder, rows, how, [])
    jobs = [
        (built.folder, built.source.checkpoint.folder, built.folder.parent / "rows.parquet") for built in made.values()
    ]
    for built, found in zip(made.values(), check.answers(jobs, home), strict=True):
        built.answers.extend(found)
    return made


@pytest.fixture(scope="module")
def predictors(runs: Runs) -> Callable[[str], Predictor]:
    known: dict[str, Predictor] = {}

    def load(name: str) -> Predictor:
        return known.setdefault(name, Predictor.load(runs(name)))

    return load


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_a_fresh_process_reproduces_what_the_run_recorded(exports: Exports, name: str, form: str) -> None:
    built = exports[name, form]
    compared = check.compare(built.how, built.rows, built.answers)
    assert compared.passed, compared
    assert compared.largest < 1e-4
    assert compared.rows >= 12


@pytest.mark.parametrize("name", GIVEN)
def test_the_recorded_predictions_differ_from_row_to_row(runs: Runs, name: str) -> None:
    """Otherwise the test above would pass on a constant."""
    rows = pq.read_table(runs(name) / "predictions.parquet")
    column = "probability" if rows["probability"].null_count == 0 else "prediction"
    assert len(set(rows[column].to_pylist())) > 3


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_the_answers_of_another_row_do_not_pass(exports: Exports, name: str, form: str) -> None:
    built = exports[name, form]
    assert not check.compare(built.how, built.rows, built.answers[1:] + built.answers[:1]).passed


@pytest.mark.parametrize(("name", "form", "error", "way_out"), REFUSED)
def test_a_form_that_the_run_does_not_have_is_refused_in_one_sentence(
    runs: Runs, tmp_path: Path, name: str, form: str, error: type[Exception], way_out: str
) -> None:
    with pytest.raises(error, match=way_out):
        FORMATS[form](Source.open(runs(name)), tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # these three are stock PEFT's
@pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")
@pytest.mark.parametrize(("name", "form"), EVERY)
def test_the_lines_in_the_readme_give_what_predict_gives(
    exports: Exports,
    predictors: Callable[[str], Predictor],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    form: str,
) -> None:
    built = exports[name, form]
    lines = readme.snippet(built.source, form)
    lines = lines.replace(f"path/to/{built.source.base_name}", str(built.source.checkpoint.folder))
    row: dict[str, Any] = {"row": 1, "text": "a text", "pair": None, "choices": None, "label": None}
    if built.how["kind"] == "choice":
        row |= {"text": "good film was", "choices": ["nice food", "bad"]}
        lines = lines.replace("the question", "good film was")
        lines = lines.replace('"one answer", "another answer"', '"nice food", "bad"')
    else:
        row |= {"text": "good film was", "pair": "poor" if built.how["pairs"] else None}
        lines = lines.replace('"a text"', '"good film was"').replace('"a prompt"', '"good film was"')
        lines = lines.replace('"the second text"', '"poor"')
    monkeypatch.chdir(built.folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(lines, "README", "exec"), {})
    (expected,) = predictors(name)(pa.Table.from_pylist([row], schema=SPLIT_COLUMNS)).to_pylist()
    words = printed.getvalue().strip()
    if built.how["kind"] == "generation":
        assert words == expected["prediction"]
    elif built.how["kind"] == "regression":
        assert float(words) == pytest.approx(float(expected["prediction"]), abs=1e-3)
    else:
        label, probability = words.rsplit(" ", 1)
        assert label == expected["prediction"]
        assert float(probability) == pytest.approx(expected["probability"], abs=1e-4)


@pytest.mark.parametrize("name", ["cls", "last"])
def test_a_pipeline_shows_the_users_labels(exports: Exports, name: str) -> None:
    from transformers import pipeline

    (answer,) = pipeline("text-classification", model=str(exports[name, "merged"].folder))("good film", truncation=True)
    assert answer["label"] in LABELS


def test_a_pair_goes_through_a_pipeline_as_the_readme_says(exports: Exports) -> None:
    from transformers import pipeline

    built = exports["pair", "merged"]
    said = readme.page(built.source, "merged", check.Comparison(1, 0, 0.0, "probability"))
    assert '{"text": "a text", "text_pair": "the second text"}' in said
    answer = pipeline("text-classification", model=str(built.folder))({"text": "good film", "text_pair": "poor"})
    assert answer["label"] in built.how["labels"]


def test_a_merged_writer_writes_greedily_and_as_long_as_it_was_trained_to(exports: Exports) -> None:
    import transformers

    built = exports["chat", "merged"]
    settings = transformers.GenerationConfig.from_pretrained(built.folder)
    assert settings.max_new_tokens == built.how["max_new_tokens"]
    assert not settings.do_sample
    assert settings.eos_token_id == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")
@pytest.mark.parametrize("form", ["supertuning", "shira"])
@pytest.mark.parametrize("name", ["subset", "static"])
def test_check_09_stock_peft_gives_the_predictions_and_the_weights_but_for_roundings_that_are_counted(
    exports: Exports, name: str, form: str
) -> None:
    """PEFT adds where a subset replaces, and base + (tuned - base) may miss the tuned value by its last bit."""
    from peft import PeftModel

    built = exports[name, form]
    assert check.compare(built.how, built.rows, built.answers).passed
    source, delta = built.source, built.how["delta"]
    base = build(source.checkpoint, source.outputs).module
    before = {key: value.clone() for key, value in base.state_dict().items()}
    tuned = source.restored().state_dict()
    merged = merge(PeftModel.from_pretrained(base, str(built.folder))).state_dict()
    heads = [key for key in tuned if key.startswith("classifier")]
    assert all(tuned[key].equal(merged[key]) for key in heads)
    moved = sum(int((tuned[key] != before[key]).sum()) for key in tuned if key not in heads)
    off = torch.cat([(merged[key] - tuned[key]).abs().flatten() for key in tuned])
    assert moved == delta["weights"] > 100
    assert int(off.count_nonzero()) == delta["rounded"] < moved / 4
    assert float(off.max()) == delta["largest_rounding"] < 1e-7


@pytest.mark.parametrize(("name", "form"), EVERY)
def test_nothing_tells_where_the_base_model_lay(exports: Exports, name: str, form: str) -> None:
    """But for the run's own recipe, which travels with a PEFT folder so that `foretune predict` reads it."""
    built = exports[name, form]
    place = str(built.source.checkpoint.folder.parent)
    texts = [p for p in built.folder.rglob("*") if p.suffix in {".json", ".md"} and p.name != "foretune.json"]
    assert texts
    assert not [p.name for p in texts if place in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("form", ["peft", "merged", "onnx"])
def test_an_export_holds_no_pickle_and_nothing_that_is_not_named(exports: Exports, form: str) -> None:
    names = {path.name for path in exports["mean", form].folder.iterdir()}
    common = {"export.json", "tokenizer.json", "tokenizer_config.json"}
    own = {
        "peft": {"adapter_config.json", "adapter_model.safetensors", "foretune.json"},
        "merged": {"config.json", "model.safetensors"},
        "onnx": {"model.onnx"},
    }
    assert names == common | own[form]
