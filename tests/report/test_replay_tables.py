"""A replay in words: the worst task beside the mean, n beside every p, and a page that asks the network for nothing."""

import json
import re

import pytest

from foretune.comparison.replay.controls import CONTROLS
from foretune.comparison.replay.run import run_replay
from foretune.report import replay_tables
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import toy_collection


@pytest.fixture(scope="module")
def done():
    return run_replay(
        metadataset([toy_collection(repeats=2)]),
        collection="<b>toy</b>",
        recommenders=["random", "portfolio"],
        default={"lr": 1e-4},
        seeds=2,
        controls=tuple(CONTROLS),
    )


def test_a_p_never_stands_without_its_n(done):
    for sentence in replay_tables.sentences(done):
        assert ("p = " in sentence) == ("n = 6" in sentence)
    names = [column.name for column in replay_tables.against(done).columns]
    assert {"p, sign", "p, Wilcoxon", "Holm", "n"} <= set(names)


def test_the_worst_task_and_the_default_stand_beside_the_mean(done):
    rows = replay_tables.worst(done).rows
    standing = done.standing("random", 1.0)
    told = next(row for row in rows if row[0] == "random")
    assert told[2:5] == (f"{standing.mean:.3f}", f"{standing.worst:.3f}", standing.worst_task)
    assert any("not worse than the default on" in sentence for sentence in replay_tables.sentences(done))


def test_every_table_has_a_cell_for_every_column(done):
    for table in replay_tables.every(done):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_what_is_not_known_is_said(done):
    bare = run_replay(metadataset([toy_collection()]), recommenders=["random"], seeds=1, controls=())
    said = " ".join(replay_tables.sentences(bare))
    assert "the noise floor is not known" in said
    assert "The published default is known nowhere here" in said
    assert "Noise floor: repeated seeds of" in " ".join(replay_tables.sentences(done))


def test_the_page_is_escaped_and_holds_no_request(done):
    page = replay_tables.render(done)
    assert "<b>toy" not in page
    assert "&lt;b&gt;toy" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page)


@pytest.mark.parametrize(("name", "begins"), [("a.md", "# Replay on"), ("a.json", "{"), ("a.html", "<!doctype html>")])
def test_the_ending_says_which_file_is_written(done, tmp_path, name, begins):
    text = replay_tables.write(done, tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith(begins)
    if name.endswith("json"):
        assert len(json.loads(text)["tasks"]) == 6
