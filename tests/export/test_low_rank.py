"""A subset as LoRA, which approximates it: the loss is said, and passes where the user allows it, not otherwise."""

import json
from pathlib import Path

import pytest
from export_cases import Runs
from typer.testing import CliRunner

import foretune
from foretune.cli.main import build
from foretune.errors import ExportError, UsageError
from foretune.export import check, export


def test_what_is_lost_is_measured_said_and_refused_unless_it_is_allowed(runs: Runs, tmp_path: Path) -> None:
    run, out = runs("subset"), tmp_path / "out"
    with pytest.raises(ExportError, match=r"0.001 is allowed.*Rank 1 loses 0\.\d+ of the change.*larger `--rank`"):
        foretune.load(run).export("lora", out, rank=1)
    assert not out.exists()
    words = ["export", str(run), "--to", "lora", "--rank", "1", "--tolerance", "0.9", "--out", str(out)]
    done = CliRunner().invoke(build("export"), words, catch_exceptions=False)
    assert done.exit_code == 0
    said = json.loads((out / "export.json").read_text(encoding="utf-8"))
    delta = said["delta"]
    assert delta["rank"] == 1
    assert 0.1 < delta["relative_error"] <= max(delta["by_matrix"].values()) < 1
    assert 0.001 < said["check"]["largest"] <= said["check"]["tolerance"] == 0.9
    sentence = f"Rank 1 loses {delta['relative_error']:.2g} of the change of {delta['weights']} weights"
    flat = " ".join(done.output.split())
    assert sentence in flat
    assert f"largest difference {said['check']['largest']:.2g}" in flat
    page = (out / "README.md").read_text(encoding="utf-8")
    assert sentence in page
    assert "**approximates**" in page
    assert "PeftModel.from_pretrained" in page
    assert [f"| `{name}` | {error:.2g} |" in page for name, error in delta["by_matrix"].items()] == [True] * 12


@pytest.mark.parametrize(
    ("to", "options", "says"),
    [
        ("supertuning", {"rank": 4}, r"`--rank` is for `--to lora`.*got `--to supertuning`"),
        ("merged", {"tolerance": 0.1}, r"`--tolerance` is for `--to lora`"),
        ("lora", {"tolerance": 1.5}, r"0 <= tolerance < 1.*tolerance=1.5"),
        ("lora", {"rank": 0}, "rank=0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    runs: Runs, tmp_path: Path, to: str, options: dict[str, float], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        export(runs("subset"), to, tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_a_run_without_a_subset_is_sent_to_its_own_format(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`--to lora` holds a sparse delta.*`lora` learns none. Use `--to peft`"):
        export(runs("mean"), "lora", tmp_path / "out")


def test_a_declared_tolerance_allows_for_so_many_other_texts_and_no_more() -> None:
    import pyarrow as pa

    rows, how = pa.table({"prediction": list("abcd")}), {"kind": "generation"}
    assert check.compare(how, rows, list("abcx"), 0.25).passed
    assert not check.compare(how, rows, list("abxx"), 0.25).passed
    assert not check.compare(how, rows, list("abcx")).passed


def test_a_declared_tolerance_says_from_where_on_a_label_is_another_one() -> None:
    import pyarrow as pa

    rows = pa.table({"probabilities": [[0.52, 0.48]], "prediction": ["0"]})
    close = check.compare({"kind": "classification"}, rows, [[0.49, 0.51]], 0.05)
    assert (close.other, close.passed) == (0, True)
    apart = check.compare({"kind": "classification"}, rows, [[0.49, 0.51]], 0.035)
    assert (apart.other, apart.passed) == (1, False)
