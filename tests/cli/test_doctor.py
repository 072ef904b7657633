"""``foretune doctor``: what this machine can do, and what to do about the rest."""

import json
from dataclasses import replace

import pytest

from foretune.cli.doctor import package, store
from foretune.records import FORMAT
from foretune.store import JournalStore
from foretune.testing.store_contract import toy_record

WANTED = {
    *("python", "torch", "transformers", "peft", "device", "bf16", "threads", "free memory", "free disk"),
    *("HF_HOME", "Hugging Face Hub", "demo model", "store"),
}


def named(checks, name):
    return next(check for check in checks if check["name"] == name)


def test_it_looks_at_what_a_run_needs_and_every_warning_says_what_to_do(foretune, tmp_path):
    (tmp_path / "file").write_text("")
    env = {"FORETUNE_STORE": str(tmp_path / "file"), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = foretune("doctor", "--json", env=env)
    assert done.returncode == 0, done.stderr
    checks = json.loads(done.stdout)
    assert {check["name"] for check in checks} >= WANTED
    assert not named(checks, "store")["ok"]
    assert all(bool(check["advice"]) != check["ok"] for check in checks)
    assert named(checks, "HF_HOME")["found"] == str(tmp_path / "hf")
    assert named(checks, "Hugging Face Hub")["found"].startswith("offline")


def test_the_table_ends_with_a_summary(foretune):
    done = foretune("doctor", env={"HF_HUB_OFFLINE": "0"})
    assert done.returncode == 0, done.stderr
    assert "offline" not in done.stdout
    assert "Nothing is amiss." in done.stdout or "lines ask for something." in done.stdout


def test_the_store_is_counted_and_a_torn_line_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path))
    opened = JournalStore(tmp_path)
    opened.append(toy_record(0))
    opened.append(toy_record(1))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    count, torn = store()
    assert (count.ok, count.found) == (True, f"1 records in {tmp_path}")
    assert not torn.ok
    assert f"{file}, line 2" in torn.found


def test_a_store_of_a_newer_foretune_is_told_and_not_fatal(tmp_path, monkeypatch):
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path))
    JournalStore(tmp_path).append(replace(toy_record(0), format=FORMAT + 1))
    (check,) = store()
    assert not check.ok
    assert "Install a newer foretune" in check.advice


@pytest.mark.parametrize(
    ("line", "extra", "ok", "remedy"),
    [
        ("numpy>=1.0", "", True, ""),
        ("numpy>=999", "", False, "pip install 'numpy>=999'"),
        ("no-such-package-here>=1", "", False, "pip install 'no-such-package-here>=1'"),
        ("no-such-package-here>=1", "onnx", False, "pip install 'foretune[onnx]'"),
    ],
)
def test_a_package_that_is_absent_or_old_comes_with_its_remedy(line, extra, ok, remedy):
    from packaging.requirements import Requirement

    check = package(Requirement(line), extra)
    assert check.ok == ok
    assert check.advice.startswith(remedy)
