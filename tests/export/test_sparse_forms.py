"""The command, for a subset in a format of stock PEFT; see ``test_formats`` for what such an export holds."""

import json
from pathlib import Path

from export_cases import Runs
from typer.testing import CliRunner

from foretune.cli.export import app


def test_the_command_says_how_well_the_format_holds_the_delta(runs: Runs, tmp_path: Path) -> None:
    words = [str(runs("subset")), "--to", "supertuning", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    said = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    delta = said["delta"]
    assert f"{delta['weights']} weights and {delta['padding']} zeros" in done.output
    assert f"by rounding in {delta['rounded']}, by at most" in done.output
    assert said["check"]["largest"] < 1e-6
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "a sparse delta in the format of Super-Tuning" in page
    assert "PeftModel.from_pretrained" in page
