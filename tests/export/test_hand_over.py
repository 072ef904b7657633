"""export(): nothing is called exported unless a fresh process reproduced the record; nothing else is left behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from export_cases import LABELS, Runs

from foretune.errors import ExportError, ModelError, StoreError, UsageError
from foretune.export import check, export


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copied(run: Path, place: Path) -> Path:
    return Path(shutil.copytree(run, place / "run"))


def corrupt(run: Path) -> None:
    """Change one tensor of the adapter, in one row: the norm that follows would undo a shift of all rows alike."""
    from safetensors.torch import load_file, save_file

    path = run / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "lora_B" in name)
    tensors[name][0] += 0.5
    save_file(tensors, path, metadata={"format": "pt"})


def test_an_export_says_what_was_checked_and_replaces_an_earlier_one(runs: Runs, tmp_path: Path) -> None:
    run = copied(runs("mean"), tmp_path)
    earlier = run / "export" / "peft"
    earlier.mkdir(parents=True)
    (earlier / "export.json").write_text("{}", encoding="utf-8")
    (earlier / "stale").touch()
    before = files(run / "adapter")
    done = export(run, "peft")
    assert done.folder == earlier
    assert 0 <= done.largest_difference <= done.tolerance == check.TOLERANCE
    assert sorted(path.name for path in earlier.parent.iterdir()) == ["peft"]
    assert set(done.files) == {*before, "README.md", "export.json"}
    assert done.files["README.md"] == (earlier / "README.md").stat().st_size
    said = json.loads((earlier / "export.json").read_text(encoding="utf-8"))
    assert said["check"]["rows"] == done.checked_rows >= 20
    assert said["labels"] == list(LABELS)
    assert {"pooling", "temperature", "max_length", "base", "digest"} <= set(said)
    assert "PeftModel.from_pretrained" in (earlier / "README.md").read_text(encoding="utf-8")
    assert files(run / "adapter") == before


def test_a_corrupted_adapter_is_refused_by_the_command_with_exit_code_7(runs: Runs, tmp_path: Path) -> None:
    run = copied(runs("mean"), tmp_path)
    corrupt(run)
    before = files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "foretune", "export", str(run), "--to", "merged", "--out", str(tmp_path / "a" / "b")],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "largest difference is 0." in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["peft", "onnx"])
def test_a_corrupted_adapter_passes_in_no_format(runs: Runs, tmp_path: Path, form: str) -> None:
    run = copied(runs("mean"), tmp_path)
    corrupt(run)
    with pytest.raises(ExportError, match="did not reproduce"):
        export(run, form)
    assert not (run / "export").exists()


@pytest.mark.slow
def test_the_command_prints_json_and_sizes(runs: Runs, tmp_path: Path) -> None:
    run = copied(runs("cls"), tmp_path)
    for words in (["--to", "onnx"], ["--to", "merged", "--json"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "foretune", "export", str(run), *words],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        if "--json" in words:
            found = json.loads(done.stdout)
            assert found["bytes"] == sum(found["files"].values())
            assert found["checked_rows"] > 0
        else:
            assert "model.onnx  " in done.stdout
            assert "largest difference" in done.stdout


def test_a_folder_that_holds_something_else_is_left_alone(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(UsageError, match="no earlier export"):
        export(runs("mean"), "peft", out=tmp_path / "thesis")
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.tex"]


def test_an_unknown_format_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Did you mean `merged`\? Known: decision, lora, merged, onnx, peft"):
        export(tmp_path, "merge")


def test_an_unfinished_run_has_nothing_to_hand_over(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match="unfinished"):
        export(tmp_path, "peft")


def test_a_refused_format_leaves_no_folder(runs: Runs, tmp_path: Path) -> None:
    run = copied(runs("prefix"), tmp_path)
    with pytest.raises(ModelError, match="--to peft"):
        export(run, "merged")
    assert not (run / "export").exists()


def test_another_base_model_is_not_taken(runs: Runs, tmp_path: Path) -> None:
    other = runs("cls").with_name("cls-base")
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    moved = Path(shutil.copytree(other, tmp_path / "other"))
    (moved / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-6}), encoding="utf-8")
    with pytest.raises(ModelError, match="fingerprint"):
        export(runs("cls"), "merged", model=str(moved))


def test_a_truncated_adapter_is_named(runs: Runs, tmp_path: Path) -> None:
    run = copied(runs("mean"), tmp_path)
    path = run / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="adapter"):
        export(run, "merged")
    assert not (run / "export").exists()
