"""``foretune runs``: earlier runs, found again and compared without claims that one seed cannot carry."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from foretune.cli.run_views import differences, flat, statement
from foretune.records import Evaluation
from foretune.store import JournalStore, write_run
from foretune.testing.store_contract import toy_record


def scoring(record, low, high):
    judged = Evaluation(40, {"accuracy": (low + high) / 2}, {"accuracy": (low, high)})
    return replace(record, evaluations={"test": judged})


@pytest.fixture
def store(tmp_path):
    opened = JournalStore(tmp_path / "store")
    for seed in (2, 0, 1):
        opened.append(toy_record(seed))
    opened.append(toy_record(5, "oom", source="other.csv", tuner="full"))
    return opened


def test_the_list_shows_the_newest_first_with_interval_count_and_floor(store, foretune):
    done = foretune("runs", "list")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "2026-11-01" in line]
    wanted = [toy_record(5, "oom", source="other.csv", tuner="full"), toy_record(2), toy_record(1), toy_record(0)]
    assert [line.split()[0] for line in lines] == [record.digest[:8] for record in wanted]
    ok = next(line for line in lines if toy_record(0).digest[:8] in line).replace("\u00a0", " ")
    assert "test accuracy 80.0 % [65.0, 90.0], n = 40, 1 seed" in ok
    assert "50.0 % majority class" in ok
    oom = next(line for line in lines if " oom " in line)
    assert "%" not in oom
    assert "0 ms" not in oom


def test_the_json_list_is_sorted_and_complete(store, foretune):
    listed = json.loads(foretune("runs", "list", "--json").stdout)
    assert [run["seeds"]["init"] for run in listed] == [5, 2, 1, 0]
    assert listed[0]["status"] == "oom"
    assert listed[0]["evaluations"] == {}
    assert listed[1]["evaluations"]["test"]["intervals"] == {"accuracy": [0.65, 0.9]}


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (["--tuner", "full"], [5]),
        (["--status", "ok"], [2, 1, 0]),
        (["--task", "OTHER"], [5]),
        (["--task", "toy", "--tuner", "lora"], [2, 1, 0]),
        (["--tuner", "gone"], []),
    ],
)
def test_filters_let_only_their_runs_through(store, foretune, words, seeds):
    listed = json.loads(foretune("runs", "list", "--json", *words).stdout)
    assert [run["seeds"]["init"] for run in listed] == seeds


def test_a_status_that_does_not_exist_is_answered_with_the_nearest(store, foretune):
    done = foretune("runs", "list", "--status", "fail")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean `failed`?" in done.stderr


def test_an_empty_store_and_an_unmatched_filter_are_told_apart(store, foretune, tmp_path):
    assert "No runs in" in foretune("runs", "list", "--store", tmp_path / "none").stdout
    assert "None of the 4 runs" in foretune("runs", "list", "--tuner", "gone").stdout


def test_of_a_run_recorded_twice_the_latest_record_is_listed(store, foretune):
    store.append(toy_record(0, "stopped"))
    listed = json.loads(foretune("runs", "list", "--json").stdout)
    assert [run["status"] for run in listed if run["seeds"]["init"] == 0] == ["stopped"]


def test_a_damaged_line_is_reported_on_stderr_and_the_rest_is_listed(store, foretune, tmp_path):
    (file,) = (tmp_path / "store").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"damage\n" + b"".join(lines[2:])[:-5])
    done = foretune("runs", "list", "--json")
    assert done.returncode == 0
    assert [run["seeds"]["init"] for run in json.loads(done.stdout)] == [2, 1]
    assert f"{file}: ignored line(s) 2, 4" in done.stderr


def test_show_prints_everything_that_is_known(store, foretune):
    record = toy_record(0)
    done = foretune("runs", "show", record.digest[:10])
    text = done.stdout.replace("\u00a0", " ")
    assert done.returncode == 0, done.stderr
    for part in (
        record.digest,
        "tuner.options.rank",
        "out of domain: other",
        "majority class",
        "Warning: <script>",
        "2 texts",
    ):
        assert part in text
    assert json.loads(foretune("runs", "show", record.digest, "--json").stdout) == record.to_json()


def test_show_reads_a_run_folder(foretune, tmp_path):
    write_run(tmp_path / "runs" / "first", toy_record(7, "diverged"))
    done = foretune("runs", "show", "runs/first")
    assert "diverged (RuntimeError: made up)" in done.stdout


def test_a_prefix_of_several_runs_is_refused_with_their_names(store, foretune):
    prefixes = {}
    for seed in range(40):
        record = toy_record(100 + seed)
        store.append(record)
        prefixes.setdefault(record.digest[0], []).append(record.digest)
    first, several = next((p, d) for p, d in prefixes.items() if len(d) > 1)
    done = foretune("runs", "show", first)
    assert done.returncode == 2
    assert all(digest in done.stderr for digest in several)
    assert "Give more digits" in done.stderr


def test_a_run_that_is_not_there_is_one_sentence(store, foretune):
    done = foretune("runs", "show", "zzz")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "neither a run folder nor the beginning of a run" in done.stderr


def test_compare_names_the_differences_first_and_claims_nothing(store, foretune):
    store.append(toy_record(0, tuner="full"))
    names = [toy_record(0).digest, toy_record(0, tuner="full").digest]
    done = foretune("runs", "compare", *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("tuner.name") < done.stdout.index("test, accuracy") < done.stdout.index("training time")
    assert "cannot be told apart on test accuracy: their 95 % intervals overlap; one seed each." in done.stdout
    assert "better" not in done.stdout.lower()
    assert "model.name" not in done.stdout
    plain = json.loads(foretune("runs", "compare", *names, "--json").stdout)
    assert plain["differences"] == {"tuner.name": ["lora", "full"]}
    assert len(plain["statements"]) == 1


def test_compare_needs_two_runs(store, foretune):
    done = foretune("runs", "compare", toy_record(0).digest)
    assert done.returncode == 2
    assert "at least 2 runs" in done.stderr


def test_import_is_idempotent_and_says_what_it_did(foretune, tmp_path):
    for seed in range(3):
        write_run(tmp_path / "runs" / str(seed), toy_record(seed))
    first = foretune("runs", "import", "runs", "runs/1", "--json")
    assert json.loads(first.stdout) == {"store": str(tmp_path / "store"), "added": 3, "known": 1}
    assert "0 added" in foretune("runs", "import", "runs").stdout
    assert len(JournalStore(tmp_path / "store")) == 3


def test_import_of_nothing_is_one_sentence_with_the_way_out(foretune, tmp_path):
    (tmp_path / "empty").mkdir()
    done = foretune("runs", "import", "empty")
    assert done.returncode == 6
    assert "Give a run folder" in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("command", "said"), [("list", "No runs in"), ("check", "0 runs in 0 groups")])
def test_runs_load_no_torch(command, said):
    code = f"""
import sys
from foretune.cli.main import main
sys.argv = ["foretune", "runs", "{command}", "--store", "nowhere-at-all"]
try:
    main()
except SystemExit:
    print(*sorted({{"torch", "transformers", "peft", "datasets"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert said in done.stdout.replace("\u00a0", " ")
    assert done.stderr.strip() == ""


def test_intervals_that_overlap_or_touch_cannot_be_told_apart():
    a, b = toy_record(0), toy_record(0, tuner="full")
    for low, high in ((0.5, 0.7), (0.6, 0.65), (0.7, 0.9), (0.1, 0.5)):
        assert "cannot be told apart" in statement(scoring(a, 0.5, 0.7), scoring(b, low, high))


@pytest.mark.parametrize("pair", [((0.1, 0.2), (0.3, 0.4)), ((0.3, 0.4), (0.1, 0.2))])
def test_intervals_apart_still_leave_the_seeds_open(pair):
    said = statement(scoring(toy_record(0), *pair[0]), scoring(toy_record(0, tuner="full"), *pair[1]))
    assert "do not overlap; one seed each" in said
    assert "better" not in said


def test_runs_that_answered_different_questions_are_not_compared():
    a = toy_record(0)
    assert "not tested on the same rows" in statement(a, toy_record(0, source="other.csv"))
    assert "not tested on the same rows" in statement(a, toy_record(1))
    failed = toy_record(0, "oom", tuner="full")
    assert f"no test score of {failed.digest[:8]}" in statement(a, failed)
    bare = replace(toy_record(0, tuner="full"), evaluations={"test": Evaluation(40, {"accuracy": 0.9})})
    assert "no interval" in statement(a, bare)
    assert "the same run" in statement(a, toy_record(0, "failed"))
    other = replace(toy_record(0, tuner="full"), metric="mcc")
    assert "different metrics" in statement(a, other)


def test_differences_keep_true_and_one_apart_from_absent():
    a, b = toy_record(0), toy_record(0)
    tuner = replace(b.config.tuner, options={"dora": True})
    b = replace(b, config=replace(b.config, tuner=tuner))
    assert differences([a, b]) == {"tuner.options.rank": [8, "absent"], "tuner.options.dora": ["absent", True]}
    assert differences([a, a]) == {}
    assert set(flat(a.config.to_json())) >= {"model.name", "seeds.init", "task.columns.text"}


def test_check_finds_the_faults_of_stored_runs_and_says_what_it_did_not_look_at(store, foretune, tmp_path):
    for seed in (7, 8):
        store.append(replace(toy_record(seed, tuner="bitfit"), sample="equal", initial_hash="equal"))
    lines = foretune("runs", "check").stdout.replace("\u00a0", " ").splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("toy, bitfit with head (toy, all rows"))
    assert "2 runs, the first" in lines[at]
    assert lines[at + 1].startswith("  same_sample: 2 data seeds, but 1 different samples (all there are)")
    assert lines[at + 2].startswith("  same_init: 2 pairs of data and init seed")
    assert "6 runs in 3 groups that differ by their seeds alone" in lines[-3]
    assert "Of 6 runs no answers to test rows were found" in lines[-2]
    assert lines[-1] == "Not looked at, for it takes the data: eval_text_in_train, selected_on_test."
    told = json.loads(foretune("runs", "check", "--json").stdout)
    assert {group["tuner"]: len(group["runs"]) for group in told} == {"full": 1, "bitfit": 2, "lora": 3}
    one = toy_record(7, tuner="bitfit").digest
    assert "1 run in 1 group" in foretune("runs", "check", one[:8]).stdout.replace("\u00a0", " ")


def test_check_of_a_run_that_is_not_there_is_one_sentence(store, foretune):
    done = foretune("runs", "check", "0000")
    assert done.returncode == 2
    assert "neither a run folder nor the beginning of a run" in done.stderr
