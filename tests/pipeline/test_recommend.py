"""recommend: which earlier runs are learned from, what is left out and said, and what the user fixed stays fixed."""

import json
import pickle
import socket
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import foretune
from foretune.errors import Interrupted, ResourceError, UsageError
from foretune.models import open_checkpoint
from foretune.objectives import for_kind
from foretune.pipeline import advice, prepare_plan, recommend, trials
from foretune.pipeline.draft import draw_rows
from foretune.pipeline.options import make_options
from foretune.recommenders import Planner, Trial
from foretune.recommenders.forecasts import Forecasts
from foretune.recommenders.foresight import Foresight
from foretune.recommenders.pool import make_pool, plain_of
from foretune.records import Line, MetaRun, ModelRef, Part, Plan, RunCollection
from foretune.store import JournalStore
from foretune.store.collections import keep, read_collection, write_collection
from foretune.store.journal import encode_line
from foretune.store.metadataset import CELLS
from foretune.tasks.describe import card
from foretune.testing.store_contract import toy_record


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of the test's own, and no collection from the package."""
    monkeypatch.setenv("FORETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("foretune.store.bundled.bundled", lambda: None)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def about(task, bert):
    """The toy task in the words of earlier runs, and candidates for it."""
    options = make_options({"model": bert})
    rows = draw_rows(task, options)
    checkpoint = open_checkpoint(ModelRef(bert), "classification")
    part = Part(for_kind("classification"))
    sizes = {"train": len(rows.train), "dev": len(rows.dev), "test": len(rows.test)}
    described = card(task.name, task.schema, rows.train, sizes, task.sketch)
    made = advice._as_task(task, checkpoint, part, options, described)
    asked = advice.adviser(task, rows, checkpoint, part, make_options({"model": bert, "recommender": "default"}))
    situation = replace(asked.situation, task=made, pooling=checkpoint.ref.pooling)
    return made, make_pool(situation, None, 12), situation


def earlier(about, tasks=4, source="foretune", **changes):
    """Runs of the same pipelines on tasks much like the toy; the third sampled one is the best on all of them."""
    made, pool, situation = about
    known = tuple(
        replace(
            made,
            task_id=f"t{n}",
            name=f"earlier {n}",
            group_key=f"g{n}",
            data_hash=f"h{n}",
            sketch=(),
            source=source,
            features={**made.features, "words_mean": made.features["words_mean"] * (0.9 + 0.1 * n)},
            **changes,
        )
        for n in range(tasks)
    )
    runs = tuple(
        MetaRun(
            f"{of.task_id}/{place}",
            of.task_id,
            plain_of(pipeline, situation),
            "ok",
            pipeline.schedule.steps,
            (Line("dev", "accuracy", (pipeline.schedule.steps,), (0.9 if place == 3 else 0.5,), (1.0,)),),
            cost={"train_seconds": 1.0},
        )
        for of in known
        for place, pipeline in enumerate(pool.offered)
    )
    return RunCollection("made up", known, runs)


def said(plan):
    return " ".join(plan.evidence)


NOTHING = "No score is foretold: no earlier run was consulted."


def planned(task, bert, **asked):
    return prepare_plan(task, make_options({"model": bert, **asked})).plan


def test_with_an_empty_store_the_plan_is_the_published_one(task, bert, store):
    plan = planned(task, bert)
    assert (plan.recommender, plan.best.tuner.name) == ("default", "lora")
    assert NOTHING in plan.evidence
    assert plan == planned(task, bert, recommender="default")


def test_what_was_left_out_of_the_data_and_how_much_is_learned_from_is_said(data, bert, store, about, tmp_path):
    keep(store, earlier(about))
    lines = data.read_text(encoding="utf-8").splitlines()
    (tmp_path / "semi.csv").write_text("\n".join(line.replace(",", ";") for line in lines) + "\n", encoding="utf-8")
    told = []
    prepare_plan(str(tmp_path / "semi.csv"), make_options({"model": bert}), say=told.append)
    assert "semi.csv: fields are separated by the semicolon." in told
    assert told.index(f"Learning from {len(earlier(about).runs)} earlier runs on 4 tasks.") > told.index(
        "rows: train 48"
    )


def test_check_12_a_plan_from_earlier_runs_needs_no_network(task, bert, store, about, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    keep(store, earlier(about))
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert planned(task, bert).recommender == "transfer"


def test_check_12_nothing_is_pickled_on_the_way(task, bert, store, about, monkeypatch):
    """Neither what is learned nor what is kept: a pickle runs whatever its writer wanted."""

    def refuse(*args, **kwargs):
        raise AssertionError("something was pickled")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    keep(store, earlier(about))
    assert planned(task, bert).recommender == "transfer"
    imported = {line.split()[1].split(".")[0] for line in imports()}
    assert not imported & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def imports():
    """Every line of the package that imports something."""
    for path in Path(foretune.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith(("import ", "from ")):
                yield line


def test_imported_runs_of_foretune_decide_and_the_recommender_can_be_left_out(task, bert, store, about):
    keep(store, earlier(about))
    plan = planned(task, bert)
    best = about[1].offered[3]
    assert plan.recommender == "transfer"
    assert (plan.best.tuner.name, plan.best.schedule.lr) == (best.tuner.name, best.schedule.lr)
    assert planned(task, bert, recommender="default").best.tuner.name == "lora"


def test_what_another_foretune_exported_decides_like_runs_of_ones_own(task, bert, store, about, tmp_path):
    write_collection(tmp_path / "from-elsewhere", earlier(about))
    keep(store, read_collection(tmp_path / "from-elsewhere"))
    assert planned(task, bert).recommender == "transfer"


def test_runs_of_other_projects_and_of_other_kinds_are_not_consulted(task, bert, store, about):
    keep(store, earlier(about, source="elsewhere"))
    keep(store, earlier(about, kind="regression"))
    assert NOTHING in planned(task, bert).evidence


def test_09_a_copy_of_the_task_is_left_out_and_named(task, bert, store, about):
    collection = earlier(about)
    same = replace(collection.tasks[0], data_hash=task.fingerprint, name="the answer")
    keep(store, replace(collection, tasks=(same, *collection.tasks[1:])))
    plan = planned(task, bert)
    assert "left out, for nothing is learned from a copy: `the answer`" in said(plan)


def test_a_store_by_a_newer_version_costs_a_sentence_and_not_the_plan(task, bert, store):
    store.mkdir()
    plain = json.loads(encode_line(toy_record(), 1))
    body = {"written": 1, "record": {**plain["record"], "format": 10**6}}
    tail = json.dumps(body, separators=(",", ":")).encode()[1:]
    (store / "a.jsonl").write_bytes(b'{"crc":"%08x",%s\n' % (zlib.crc32(tail), tail))
    plan = planned(task, bert)
    assert plan.recommender == "default"
    assert "could not be consulted" in said(plan)


def test_what_the_user_fixed_holds_for_every_candidate(task, bert, store, about):
    keep(store, earlier(about))
    plan = planned(task, bert, lr=0.5, steps=9)
    assert {(each.schedule.lr, each.schedule.steps) for each in plan.ranked} == {(0.5, 9)}
    assert any("--lr 0.5" in line for line in plan.evidence)
    assert {each.tuner.name for each in planned(task, bert, tuner="bitfit").ranked} == {"bitfit"}


def test_an_option_of_a_tuner_without_its_name_is_refused(task, bert):
    with pytest.raises(UsageError, match="`--option rank=3` is of a tuner, but none is named"):
        planned(task, bert, option={"rank": 3})


def test_steps_timed_here_give_the_best_its_seconds(task, bert, store, about):
    keep(store, earlier(about))
    plan = recommend(task, model=bert, steps=5)
    assert plan.best.measured
    assert plan.best.seconds > 0
    assert Plan.from_json(plan.to_json()) == plan


def test_what_the_plan_saw_of_the_task_is_not_measured_again(task, bert, store, about, tmp_path, monkeypatch):
    """And ends in the record as it would have been measured beside the floors."""
    collection = earlier(about)
    keep(store, replace(collection, tasks=tuple(_with_landmark(each) for each in collection.tasks)))
    asked = {"model": bert, "steps": 2, "evaluations": 1, "remember": False}
    alone = foretune.tune(task, recommender="default", out=tmp_path / "alone", **asked).record.card

    def refuse(*args, **kwargs):
        raise AssertionError("measured twice")

    monkeypatch.setattr("foretune.training.run.landmarks", refuse)
    assert foretune.tune(task, out=tmp_path / "told", **asked).record.card == alone
    assert "landmark_probe" in alone.features


def _with_landmark(task):
    return replace(task, features={**task.features, "landmark_probe": 0.5})


def test_a_budget_too_small_for_a_step_is_refused_with_the_way_out(task, bert, store, about):
    keep(store, earlier(about))
    with pytest.raises(ResourceError, match="--budget"):
        prepare_plan(task, make_options({"model": bert, "budget": "0.001s"}))


def test_a_budget_is_kept_whatever_comes_first(task, bert, store, about):
    keep(store, earlier(about))
    draft = prepare_plan(task, make_options({"model": bert, "budget": "30s"}))
    assert draft.config.schedule.steps * draft.probe.step_seconds < 30


def grey_box(task, bert, folder, **asked):
    return foretune.tune(task, model=bert, tuner="lora", mode="grey-box", budget="600s", steps=20, out=folder, **asked)


@pytest.fixture
def short(monkeypatch):
    """Three candidates, and a foresight that learns nothing: the play itself is what is tested."""
    few(monkeypatch, 3)


def few(monkeypatch, size):

    class Flat(Foresight):
        spearman, judged, cost = 1.0, 3, None

        def learn(self):
            """There is nothing to learn."""

        def of(self, pool, seen):
            n = len(pool)
            best = np.where(seen < CELLS, 1.0 + 0.1 * np.arange(n), 0.0)
            return Forecasts(best, best, best - 0.1, best + 0.1, True, np.zeros(n), np.ones(n))

    def flat(past, seed=0, *, curves=False):
        return Flat(past, seed, curves)

    monkeypatch.setattr(
        "foretune.pipeline.advice.Planner", lambda *given, **named: Planner(*given, **named, size=size, fit=flat)
    )


def test_a_played_budget_keeps_the_best_by_dev_and_judges_test_once(task, bert, store, about, short, tmp_path):
    keep(store, earlier(about))
    lines = []
    result = grey_box(task, bert, tmp_path / "run", say=lines.append)
    tried = list(trials.records(tmp_path / "run"))
    assert result.record.status == "ok"
    assert "test" in result.record.evaluations
    assert {record.status for record in tried} == {"stopped"}
    assert not any(record.evaluations for record in tried)
    best = max(max(p.value for p in r.curve if (p.split, p.metric) == ("dev", "accuracy")) for r in tried)
    assert result.metrics["dev"]["accuracy"] == pytest.approx(best)
    assert any("Played" in line for line in result.plan.evidence)
    assert result.plan.best.bare.tuner == result.record.config.tuner
    assert {record.digest for record in JournalStore(store)} >= {record.digest for record in tried}


def test_a_play_that_was_stopped_goes_on_where_it_was(task, bert, store, about, short, tmp_path):
    keep(store, earlier(about))
    whole = grey_box(task, bert, tmp_path / "whole")
    count = 0

    def stop(line):
        nonlocal count
        count += line.startswith("Trial of")
        if count == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="goes on"):
        grey_box(task, bert, tmp_path / "run", say=stop)
    assert list(trials.records(tmp_path / "run"))
    result = grey_box(task, bert, tmp_path / "run")
    assert result.record.digest == whole.record.digest
    assert result.metrics == whole.metrics


def portfolio(task, bert, folder, **asked):
    return foretune.tune(task, model=bert, mode="portfolio", steps=20, out=folder, **asked)


@pytest.fixture
def eight(monkeypatch):
    """Candidates, all of which may be recommended."""
    few(monkeypatch, 8)


@pytest.mark.parametrize(("budget", "runs"), [(None, trials.TRIED), ("600s", 8)])
def test_a_portfolio_is_run_one_after_another_in_full_and_the_best_by_dev_is_kept(
    budget, runs, task, bert, store, about, eight, tmp_path
):
    keep(store, earlier(about))
    result = portfolio(task, bert, tmp_path / "run", budget=budget)
    tried = list(trials.records(tmp_path / "run"))
    assert len(tried) == runs
    assert all(record.steps_done == record.config.schedule.steps for record in tried)
    assert not any(record.evaluations for record in tried)
    best = max(max(p.value for p in r.curve if (p.split, p.metric) == ("dev", "accuracy")) for r in tried)
    assert result.metrics["dev"]["accuracy"] == pytest.approx(best)
    assert any(f"of {runs} candidates" in line for line in result.plan.evidence)


def test_a_portfolio_that_was_stopped_repeats_no_run(task, bert, store, about, eight, tmp_path):
    keep(store, earlier(about))
    count = 0

    def stop(line):
        nonlocal count
        count += line.startswith("Trial of")
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="goes on"):
        portfolio(task, bert, tmp_path / "run", say=stop)
    lines = []
    portfolio(task, bert, tmp_path / "run", say=lines.append)
    assert len(list(trials.records(tmp_path / "run"))) == trials.TRIED
    assert sum(line.startswith("Trial of") for line in lines) == trials.TRIED - 2


class Asking:
    """A recommender that asks for one candidate after another."""

    def __init__(self, n):
        self.seen, self.over = np.zeros(n, int), np.zeros(n, bool)

    def ask(self):
        return next((Trial(place) for place in range(len(self.over)) if not self.over[place]), None)


@pytest.mark.parametrize(
    ("left", "seconds", "slowest", "fits"),
    [(10.0, 8.0, 99.0, True), (10.0, 9.5, 0.0, False), (10.0, np.nan, 9.0, True), (10.0, np.nan, 11.0, False)],
)
def test_a_trial_that_the_budget_does_not_hold_is_not_begun(left, seconds, slowest, fits):
    play = trials.Play(None, None, None, None, Asking(1), np.array([seconds]), left=lambda: left, overhead=1.0)
    assert (play._next(slowest) is not None) == fits


def test_learning_again_is_off_and_of_a_played_budget_alone(task, bert, store, about):
    keep(store, earlier(about))
    asked = {"model": bert, "mode": "grey-box", "budget": "600s"}
    assert not prepare_plan(task, make_options(asked)).adviser.planner.refit
    assert prepare_plan(task, make_options({**asked, "refit": True})).adviser.planner.refit
    with pytest.raises(UsageError, match="--refit"):
        make_options({"refit": True})
