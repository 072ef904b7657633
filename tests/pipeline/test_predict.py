"""Predictions as files: every ending holds the same rows, and what stands there before is lost only to a whole file."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import foretune
from foretune.errors import DataError, StoreError, UsageError
from foretune.pipeline.predict import predict, write
from foretune.pipeline.result import table_of
from foretune.testing import toys

ROWS = [
    {"row": 1, "prediction": 'a, "b"\nc', "probability": 0.75, "probabilities": [0.75, 0.25]},
    {"row": 3, "prediction": "плохо", "probability": None, "probabilities": None},
]
TABLE = pa.Table.from_pylist(ROWS)


def test_every_ending_holds_the_same_rows(tmp_path):
    for name in ("a.csv", "a.jsonl", "deep/er/a.PARQUET"):
        write(TABLE, tmp_path / name)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["row"], row["prediction"], row["probability"]) for row in read] == [
        ("1", 'a, "b"\nc', "0.75"),
        ("3", "плохо", ""),
    ]
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()] == ROWS
    assert pq.read_table(tmp_path / "deep/er/a.PARQUET").to_pylist() == ROWS
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "deep"]


@pytest.mark.parametrize(("as_json", "lines"), [(False, 4), (True, 2)])
def test_stdout_gets_utf_8_whatever_the_terminal_speaks(as_json, lines, capfdbinary):
    write(TABLE, None, as_json=as_json)
    said = capfdbinary.readouterr().out
    assert "плохо".encode() in said
    assert said.count(b"\n") == lines
    assert b"\r" not in said


def test_an_ending_without_a_format_and_a_place_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.csv, \.jsonl, \.parquet"):
        write(TABLE, tmp_path / "a.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write(TABLE, tmp_path / "file" / "a.csv")


def test_rows_of_every_format_get_the_answers_of_the_result(result, tmp_path):
    texts = ["the good film was", "the awful food was very"]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "new.parquet")
    (tmp_path / "new.tsv").write_text("text\tlabel\n" + "".join(f"{t}\tunheard of\n" for t in texts))
    wanted = [answer["probabilities"] for answer in result.predict(texts)]
    for name in ("new.jsonl", "new.parquet", "new.tsv"):
        assert predict(result.folder, str(tmp_path / name))["probabilities"].to_pylist() == wanted


def write_lines(path, texts):
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return str(path)


def test_a_row_without_a_text_gets_an_empty_answer_and_blocks_no_other(result, tmp_path):
    texts, said = ["the good film was", None, "the awful food was very", "  "], []
    found = predict(result.folder, write_lines(tmp_path / "new.jsonl", texts), say=said.append)
    assert found["text"].to_pylist() == texts
    assert said == ["2 rows have no text and got no answer (rows 2, 4)."]
    wanted = result.predict([texts[0], texts[2]])
    assert found.take([0, 2]).select(list(wanted[0])).to_pylist() == wanted
    assert found.take([1, 3]).select(list(wanted[0])).to_pylist() == [dict.fromkeys(wanted[0])] * 2
    write(found, tmp_path / "new.csv")
    with (tmp_path / "new.csv").open(encoding="utf-8", newline="") as file:
        second = list(csv.DictReader(file))[1]
    assert second == {"row": "2", "text": "", "prediction": "", "probability": ""}


def test_a_file_without_any_text_is_refused(result, tmp_path):
    with pytest.raises(DataError, match=r"all 2 are empty. Name the column of the text with `--text`"):
        predict(result.folder, write_lines(tmp_path / "new.jsonl", ["", None]))


def test_a_run_without_pairs_takes_none(result, data):
    with pytest.raises(UsageError, match=r"`--pair label` .* trained on single texts"):
        predict(result.folder, str(data), pair="label")


def test_weights_that_are_gone_are_said_to_be_gone(task, bert, tmp_path):
    foretune.tune(task, model=bert, tuner="bitfit", steps=2, evaluations=1, out=tmp_path / "run", remember=False)
    (tmp_path / "run" / "adapter" / "patch.safetensors").unlink()
    with pytest.raises(StoreError, match=r"patch\.safetensors.* Restore it from a copy"):
        predict(tmp_path / "run", write_lines(tmp_path / "new.jsonl", ["a film"]))


def test_a_text_with_a_carriage_return_is_one_field_of_a_csv(tmp_path):
    row = {"row": 1, "text": "one\rtwo, three", "prediction": "good"}
    write(pa.Table.from_pylist([row]), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{**row, "row": "1"}]


@pytest.fixture(scope="module")
def simplex(tmp_path_factory):
    """``simplex(kind, predict)``: the result of a run whose members differ."""
    home = tmp_path_factory.mktemp("simplex")
    bert = toys.checkpoint(home / "bert", "bert", initializer_range=0.2)
    made = {}

    def find(kind="classification", predict="midpoint"):
        if (kind, predict) not in made:
            made[kind, predict] = foretune.tune(
                foretune.Task.from_records(toys.rows(kind), kind=kind),
                model=str(bert),
                tuner="prefix-subspace",
                option={"length": 3, "predict": predict, "predict_samples": 6},
                steps=4,
                evaluations=1,
                out=home / kind / predict,
                remember=False,
            )
        return made[kind, predict]

    return find


TEXTS = ["the good film was", "the awful food was very", "a nice film"]


def test_members_answer_together_and_say_how_far_they_are_apart(simplex):
    """Against the members' own answers, put together by hand."""
    result = simplex()
    found = result.predict(TEXTS, members=6)
    assert found == result.predict(TEXTS, members=6)
    engine, recipe = result.predictor.engine, result.predictor.recipe
    table = table_of(TEXTS)
    outputs = engine.members(engine.objective.encode(table, None, engine.checkpoint), 6).astype(float)
    chances = np.exp(outputs / recipe["temperature"])
    chances /= chances.sum(-1, keepdims=True)
    plain = np.exp(outputs)
    mean = (plain / plain.sum(-1, keepdims=True)).mean(0) ** (1 / recipe["temperature"])
    mean /= mean.sum(-1, keepdims=True)
    for i, row in enumerate(found):
        own = recipe["labels"].index(row["prediction"])
        assert row["members"] == 6
        assert row["probabilities"] == pytest.approx(mean[i])
        assert row["probability"] == max(row["probabilities"])
        assert row["spread"] == pytest.approx(np.std(chances[:, i, own], ddof=1))
        assert row["agreement"] == pytest.approx(np.mean(outputs[:, i].argmax(-1) == own))
        assert row["spread"] > 0
    alone = result.predict(TEXTS)
    assert set(alone[0]) == {"prediction", "probability", "probabilities"}
    assert [r["probabilities"] for r in alone] != [r["probabilities"] for r in found]


def test_asking_an_ensemble_for_its_own_number_of_members_gives_its_own_answers(simplex):
    result = simplex(predict="ensemble")
    asked = [row["probabilities"] for row in result.predict(TEXTS, members=6)]
    assert asked == [row["probabilities"] for row in result.predict(TEXTS)]


def test_numbers_have_a_spread_in_their_own_unit_and_no_agreement(simplex):
    result = simplex("regression")
    (row,) = result.predict(TEXTS[:1], members=5)
    engine = result.predictor.engine
    table = table_of(TEXTS[:1])
    outputs = engine.members(engine.objective.encode(table, None, engine.checkpoint), 5)
    values = outputs[:, 0, 0] * engine.objective.scale + engine.objective.center
    assert float(row["prediction"]) == pytest.approx(values.mean())
    assert row["spread"] == pytest.approx(values.std(ddof=1))
    assert (row["probability"], row["agreement"]) == (None, None)


def test_candidates_have_a_spread_too(simplex):
    rows = [{"text": "one film was", "choices": ["good", "bad"]}, {"text": "one", "choices": ["film", "nice", "bad"]}]
    found = simplex("choice").predict(rows, members=4)
    assert [len(row["probabilities"]) for row in found] == [2, 3]
    assert all(row["spread"] > 0 and 0 <= row["agreement"] <= 1 for row in found)


def test_members_of_a_file_are_in_every_format(simplex, tmp_path):
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    found = predict(simplex().folder, str(tmp_path / "new.jsonl"), members=6)
    wanted = simplex().predict(TEXTS, members=6)
    assert found.drop_columns(["row", "text"]).to_pylist() == wanted
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        write(found, tmp_path / name)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == ["row", "text", "prediction", "probability", "members", "spread", "agreement"]
    assert [float(row["spread"]) for row in read] == [row["spread"] for row in wanted]
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == found.to_pylist()


@pytest.mark.parametrize("members", [1, 0, -3])
def test_fewer_than_two_members_are_refused(members, simplex):
    with pytest.raises(UsageError, match=f"at least 2 members, but got {members}"):
        simplex().predict(TEXTS, members=members)


def test_a_run_that_holds_one_model_has_no_members(result, tmp_path):
    (tmp_path / "new.jsonl").write_text(json.dumps({"text": TEXTS[0]}) + "\n")
    with pytest.raises(UsageError, match="`lora` and is one, but 10 members"):
        predict(result.folder, str(tmp_path / "new.jsonl"), members=10)
