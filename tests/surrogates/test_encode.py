"""Runs as numbers: every level is seen, nothing of the future is, and what was not measured is not 0. Check 8."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError
from foretune.records import Line, MetaRun, MetaTask, ModelCard, RunCollection
from foretune.store.metadataset import CELLS, metadataset
from foretune.surrogates import PREFIX_COLUMNS, Encoder, prefix_features, prefixes

CONFIGS = (
    {"lr": 1e-4, "rank": 8, "targets": "all", "variant": "lora", "clip": 1.0, "rescale": True, "epochs": 1},
    {"lr": 1e-2, "rank": 16, "targets": "mlp", "variant": "dora", "rescale": False, "epochs": 1},
    {"lr": 1e-3, "rank": 64, "targets": "attention", "clip": 2.0, "rescale": True, "epochs": 1},
)


def made(curves, configs=CONFIGS, tasks=None, direction="max", status="ok"):
    tasks = tasks or [MetaTask("a", "a", "a", "accuracy", direction)]
    runs = []
    for number, values in enumerate(curves):
        steps = [n for n, v in enumerate(values, 1) if v is not None]
        line = Line("dev", "accuracy", tuple(steps), tuple(v for v in values if v is not None))
        owner = tasks[number % len(tasks)].task_id
        runs.append(MetaRun(str(number), owner, configs[number % len(configs)], status, CELLS, (line,)))
    return metadataset([RunCollection("made up", tuple(tasks), tuple(runs))])


def column(features, name):
    return features[:, PREFIX_COLUMNS.index(name)]


def test_check_8_changing_any_one_level_changes_the_row():
    data = made([[0.5]] * 3)
    encoder = Encoder.fit(data)
    for config in CONFIGS:
        (row,) = encoder.matrix([config], data.tasks)
        for name in ("targets", "variant", "rescale"):
            for other in CONFIGS:
                changed = (
                    {**config, name: other[name]} if name in other else {k: config[k] for k in config if k != name}
                )
                (new,) = encoder.matrix([changed], data.tasks)
                assert np.array_equal(new, row, equal_nan=True) == (changed == config)


def test_every_level_has_a_column_and_every_number_its_scale():
    encoder = Encoder.fit(made([[0.5]] * 3))
    assert encoder.names == (
        "lr", "rank", "clip", "clip given", "targets=all", "targets=attention", "targets=mlp",
        "variant=dora", "variant=lora", "variant=absent", "rescale=False", "rescale=True",
    )  # fmt: skip
    row = dict(zip(encoder.names, encoder.of(made([[0.5]] * 3))[1], strict=True))
    assert (row["lr"], row["rank"], row["clip given"]) == (-2.0, 4.0, 0.0)
    assert math.isnan(row["clip"])
    assert encoder.constant == {"epochs": 1}


def test_check_10_an_unseen_category_sets_no_level_and_is_named():
    data = made([[0.5]] * 3)
    encoder = Encoder.fit(data)
    new = {**CONFIGS[0], "variant": "pissa", "lr": 1.0, "epochs": 3, "momentum": 0.9}
    assert encoder.unseen(new) == ("lr=1.0", "variant=pissa", "epochs=3", "momentum=0.9")
    assert encoder.unseen({**CONFIGS[0], "epochs": 1.0}) == ()
    row = dict(zip(encoder.names, encoder.matrix([new], data.tasks)[0], strict=True))
    assert [row[name] for name in encoder.names if name.startswith("variant")] == [0, 0, 0]


def test_momenta_and_wide_ranges_are_taken_by_their_logarithm():
    configs = tuple({"beta1": b, "l2": x, "width": w} for b, x, w in ((0.9, 1e-6, 1), (0.999, 1e-2, 3), (0.0, 1e-3, 2)))
    encoder = Encoder.fit(made([[0.5]] * 3, configs))
    assert [number.scale for number in encoder.numbers] == ["log10(1-x)", "log10", "linear"]
    assert encoder.matrix(configs[:1], made([[0.5]]).tasks)[0] == pytest.approx([-1, -6, 1])


def test_what_is_known_of_task_and_model_is_encoded_and_a_range_is_kept():
    def task(name, family, size, experts, rows, **features):
        model = ModelCard(family, family, parameters=size, experts=experts)
        rows = {"train": rows, "test": 7}
        return MetaTask(name, name, name, "accuracy", model=model, rows=rows, features=features, features_version=1)

    tasks = [
        task("a", "bert", 10**8, 0, 99, words_mean=9.0, only_a=1.0),
        task("b", "llama", 10**9, 8, 999, words_mean=99.0),
    ]
    configs = ({"steps": 10, "batch_size": 10}, {"steps": 100, "batch_size": 10})
    data = made([[0.5], [0.6]], configs, tasks)
    encoder = Encoder.fit(data)
    rows = [dict(zip(encoder.names, row, strict=True)) for row in encoder.of(data)]
    assert rows[0]["volume"] == pytest.approx(math.log10(900))
    assert (rows[0]["task.rows_train"], rows[1]["task.rows_train"]) == (2.0, 3.0)
    assert (rows[0]["task.model_parameters"], rows[0]["task.model_experts"], rows[1]["task.model_experts"]) == (8, 0, 1)
    assert (rows[0]["family=bert"], rows[0]["family=llama"]) == (1, 0)
    assert (rows[0]["task.only_a"], math.isnan(rows[1]["task.only_a"])) == (1.0, True)
    assert "task.rows_test" not in encoder.names
    far = MetaTask("c", "c", "c", "accuracy", model=ModelCard("q", "qwen"), rows={"train": 10**6}, features_version=2)
    assert encoder.outside(far) == ("rows_train", "family=qwen")
    assert encoder.outside(tasks[0]) == ()


def test_features_of_another_version_are_not_compared():
    tasks = [MetaTask(n, n, n, "accuracy", features={"x": v}, features_version=f) for n, v, f in
             (("a", 1.0, 1), ("b", 2.0, 2), ("c", 3.0, 2))]  # fmt: skip
    data = made([[0.5]] * 3, tasks=tasks)
    encoder = Encoder.fit(data)
    x = encoder.of(data)[:, encoder.names.index("task.x")]
    assert math.isnan(x[0])
    assert x[1:].tolist() == [2.0, 3.0]


def test_an_encoder_knows_its_own_fold_alone_and_none_cannot_be():
    data = made([[0.5]] * 3)
    assert Encoder.fit(data.take(np.array([0, 1]))).levels["variant"] == ("dora", "lora")
    with pytest.raises(DataError, match="at least 1 run"):
        Encoder.fit(data.take(np.array([], np.int64)))


def test_check_8_a_step_with_score_0_differs_from_a_step_not_run():
    curves = [[0.5, 0.0], [0.5, None], [0.5]]
    seen = prefix_features(made(curves), np.array([2, 2, 2]))
    assert column(seen, "score.last").tolist() == [0.0, 0.5, 0.5]
    assert column(seen, "score.step")[0] == -0.5
    assert np.isnan(column(seen, "score.step")[1:]).all()


def test_a_prefix_is_described_by_last_best_first_step_slope_and_start():
    data = made([[0.2, None, 0.8, 0.5, 0.9]])
    row = dict(zip(PREFIX_COLUMNS, prefix_features(data, np.array([4]))[0], strict=True))
    told = {part: row[f"score.{part}"] for part in ("last", "best", "first", "step", "slope")}
    assert told == pytest.approx({"last": 0.5, "best": 0.8, "first": 0.2, "step": -0.3, "slope": 0.1})
    assert row["progress"] == 0.4
    assert np.isnan([row["score.start"], row["dev_loss.last"], row["train_loss.best"]]).all()


def test_check_10_a_minimised_score_enters_so_that_more_is_better():
    seen = prefix_features(made([[3.0, 1.0, 2.0]], direction="min"), np.array([3]))
    assert column(seen, "score.best").tolist() == [-1.0]
    assert column(seen, "score.last").tolist() == [-2.0]


def test_losses_keep_their_sign_and_the_best_is_the_smallest():
    line = Line("train", "loss", (1, 2, 3), (3.0, 1.0, 1e34))
    run = MetaRun("r", "a", {"lr": 0.1}, "diverged", CELLS, (line,))
    data = metadataset([RunCollection("x", (MetaTask("a", "a", "a", "accuracy"),), (run,))])
    seen = prefix_features(data, np.array([3]))
    assert column(seen, "train_loss.best").tolist() == [1.0]
    assert column(seen, "train_loss.last").tolist() == [1e6]
    assert column(seen, "train_loss.first").tolist() == [3.0]


values = st.one_of(st.none(), st.floats(-1, 1))


@given(
    st.lists(values, min_size=CELLS, max_size=CELLS),
    st.lists(values, min_size=CELLS, max_size=CELLS),
    st.integers(0, CELLS),
)
def test_nothing_behind_the_prefix_is_read(curve, other, t):
    first, second = (made([[*curve[:t], *end[t:]]]) for end in (curve, other))
    seen = [prefix_features(data, np.array([t])) for data in (first, second)]
    assert np.array_equal(seen[0], seen[1], equal_nan=True)
    if t == 0:
        assert np.isnan(seen[0][:, 1:]).all()


def test_check_9_prefixes_of_a_run_stay_on_its_side_of_a_split():
    data = made([[0.1] * 10, [0.2] * 4, [None] * 10], tasks=[MetaTask(n, n, n, "accuracy") for n in "abc"])
    run, t = prefixes(data)
    assert [t[run == place].tolist() for place in range(3)] == [list(range(10)), list(range(4)), [0]]
    train = prefixes(data.take(data.task != 0))[0]
    assert len(train) == 5
    assert data.take(data.task != 0).run_ids == ("1", "2")


def test_encoding_loads_no_torch():
    code = "import sys, foretune.surrogates; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"
