"""``foretune report`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys

from foretune.records import ModelRef, Part, RunConfig, RunRecord, Schedule, TaskRef
from foretune.store.folder import write_run


def foretune(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "foretune", *arguments], capture_output=True, text=True, timeout=120)


def run_folder(folder):
    config = RunConfig(ModelRef("demo"), TaskRef("t.csv", "classification"), Part("lora"), Part("head"), Schedule(10))
    write_run(folder, RunRecord(config, "stopped"))
    return folder


def test_it_writes_the_page_and_prints_its_path(tmp_path):
    done = foretune("report", str(run_folder(tmp_path)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(tmp_path / "report.html")
    assert "stopped early" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_another_place_and_json(tmp_path):
    page = tmp_path / "elsewhere" / "page.html"
    done = foretune("report", str(run_folder(tmp_path / "run")), "--out", str(page), "--json")
    assert json.loads(done.stdout) == {"report": str(page), "bytes": page.stat().st_size}


def test_a_page_is_not_written_under_the_name_of_another_format(tmp_path):
    done = foretune("report", str(run_folder(tmp_path / "run")), "--out", str(tmp_path / "x.pdf"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "written as .html, .htm, but" in done.stderr
    assert not (tmp_path / "x.pdf").exists()


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    done = foretune("report", str(tmp_path))
    assert done.returncode == 6
    assert "is not a run folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_writing_a_report_loads_neither_torch_nor_matplotlib(tmp_path):
    code = (
        "import sys; from pathlib import Path; from foretune.report.page import write; write(Path(sys.argv[1])); "
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run_folder(tmp_path))], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
