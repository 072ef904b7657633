"""Laps: none is run twice, none is lost, and sharing what is learned changes no result."""

import json
from dataclasses import replace

import numpy as np
import pytest

from foretune.comparison.replay.controls import CONTROLS
from foretune.comparison.replay.laps import drawn_for
from foretune.comparison.replay.pools import held_out
from foretune.comparison.replay.run import run_replay
from foretune.errors import UsageError
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import toy_collection

TOY = metadataset([toy_collection()])
ASKED = {"recommenders": ["random", "portfolio"], "seeds": 2, "controls": tuple(CONTROLS)}


def same(one, other):
    assert one.entries == other.entries
    assert all(np.array_equal(one.regrets[name], other.regrets[name]) for name in one.entries)


def counted(**options):
    """A replay, and the laps that were run for it."""
    run = []
    return run_replay(TOY, **{**ASKED, **options}, watch=run.append), run


def test_what_reads_no_past_is_not_raced_again_under_a_control():
    done, run = counted()
    assert len(run) == 6 * 2 * (1 + 3)
    assert {ahead.entry for ahead in run if ahead.entry.startswith("random")} == {"random"}
    assert done.unchanged["shuffled-targets"] == ("random",)


def test_it_is_said_how_many_laps_there_are_and_how_long_they_will_take():
    _, run = counted()
    assert [ahead.number for ahead in run] == list(range(1, 49))
    assert {ahead.of for ahead in run} == {48}
    assert run[0].seconds is None
    assert all(ahead.seconds > 0 for ahead in run[1:])


def test_an_interrupted_replay_goes_on_and_comes_out_the_same(tmp_path):
    def interrupt(ahead):
        if ahead.number == 20:
            raise KeyboardInterrupt

    keep = tmp_path / "laps.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_replay(TOY, **ASKED, keep=keep, watch=interrupt)
    with keep.open("a", encoding="utf-8") as file:
        file.write('{"key": ["random", "task-')  # as a kill leaves it
    done, run = counted(keep=keep)
    assert len(run) == 48 - 19
    same(done, counted()[0])
    again, none = counted(keep=keep)
    assert none == []
    same(done, again)
    assert again.thinking("portfolio") == done.thinking("portfolio")


def test_the_full_protocol_takes_over_the_laps_of_a_first_look(tmp_path):
    keep = tmp_path / "laps.jsonl"
    first, _ = counted(keep=keep, seeds=1, controls=())
    full, run = counted(keep=keep)
    assert len(run) == 48 - 12
    same(full, counted()[0])
    assert np.array_equal(first.regrets["portfolio"][:, 0], full.regrets["portfolio"][:, 0])


def test_seconds_that_nobody_measured_survive_the_file(tmp_path):
    untimed, keep = metadataset([toy_collection(timed=False)]), tmp_path / "laps.jsonl"
    for _ in range(2):
        done = run_replay(untimed, recommenders=["random"], keep=keep)
        assert np.isnan(done.laps["random"][0][0].seconds)
    assert all(json.loads(line) for line in keep.read_text(encoding="utf-8").splitlines())
    assert "NaN" not in keep.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budgets": (1.0,)}, r"another replay: its budgets is \[1\.0, 2\.0, 5\.0, 10\.0\], but here it is \[1\.0\]"),
        ({"protocol": "leave-one-family-out"}, "another replay: its protocol is leave-one-task-out"),
        ({"default": {"lr": 1e-4}}, "another replay: its default is None"),
    ],
)
def test_laps_of_another_replay_are_refused(tmp_path, options, words):
    keep = tmp_path / "laps.jsonl"
    counted(keep=keep, seeds=1, controls=())
    with pytest.raises(UsageError, match=words):
        counted(keep=keep, **options)


def test_laps_on_other_runs_and_files_of_something_else_are_refused(tmp_path):
    keep, other = tmp_path / "laps.jsonl", tmp_path / "notes.txt"
    counted(keep=keep, seeds=1, controls=())
    with pytest.raises(UsageError, match="another replay: its runs is"):
        run_replay(replace(TOY, score=TOY.score + 0.001), **ASKED, keep=keep)
    other.write_text("Buy milk.\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no laps of a replay"):
        counted(keep=other)
    assert other.read_text(encoding="utf-8") == "Buy milk.\n"


def test_tasks_of_one_group_have_the_very_same_past_and_each_group_its_own_draws():
    made = toy_collection()
    tasks = tuple(
        replace(task, group_key="one" if n in (0, 3) else task.group_key) for n, task in enumerate(made.tasks)
    )
    held, _ = held_out(metadataset([replace(made, tasks=tasks)]), "leave-one-task-out")
    assert held[0].past is held[3].past
    assert len({id(h.past) for h in held}) == 5
    assert len({drawn_for(group, seed) for group in range(5) for seed in range(5)}) == 25


def test_a_recommender_that_takes_over_what_another_learned_races_as_it_does_alone():
    small, asked = metadataset([toy_collection(tasks=4, configs=6)]), {"seeds": 1, "budgets": (1, 3)}
    together = run_replay(small, recommenders=["transfer", "transfer:mode=portfolio"], **asked)
    alone = run_replay(small, recommenders=["transfer:mode=portfolio"], **asked)
    (name,) = alone.laps
    assert np.array_equal(alone.regrets[name], together.regrets[name])
    one, other = ([[lap.evidence for lap in row] for row in done.laps[name]] for done in (alone, together))
    assert one == other
