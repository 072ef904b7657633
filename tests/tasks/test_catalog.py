"""The catalog: entries that hold together, readers of every form, one table whatever the source."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretune.errors import DataError, UsageError
from foretune.records import KINDS
from foretune.tasks import catalog
from foretune.tasks.catalog import hub, rows
from foretune.tasks.catalog.entry import Reading, parse
from foretune.tasks.catalog.readers import READERS, File
from foretune.tasks.schema import SPLIT_COLUMNS

WANTED = (
    *(
        "cola",
        "sst2",
        "cr",
        "mr",
        "subj",
        "mrpc",
        "paws_qqp",
        "mnli",
        "hans",
        "rte",
        "trec",
        "banking77",
        "boolq",
        "cb",
    ),
    *("copa", "qqp", "snli", "wnli", "gsm8k", "scitldr", "multi30k", "mafand_en_hau", "sst5", "sst2_sentences"),
    "banking77_demo",
)

XML = """<?xml version="1.0" encoding="UTF-8"?>
<copa-corpus version="1.0">
  <item id="401" asks-for="effect" most-plausible-alternative="2">
    <p>It rained.</p><a1>It was dry.</a1><a2>It was wet.</a2>
  </item>
  <item id="1401" asks-for="cause" most-plausible-alternative="1">
    <p>It shone.</p><a1>It was dry.</a1><a2>It was wet.</a2>
  </item>
  <item id="1" asks-for="cause" most-plausible-alternative="1">
    <p>A shadow fell.</p><a1>The sun rose.</a1><a2>It grew.</a2>
  </item>
</copa-corpus>
"""


def read(form: str, content: str | bytes = "", *, more: dict[str, str] | None = None, **options: object) -> list[dict]:
    raw = content.encode() if isinstance(content, str) else content
    files = {name: File(name, text.encode()) for name, text in (more or {}).items()}
    return READERS[form](files if more and not raw else {"file": File("the file", raw), **files}, **options)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode())
    return folder


def is_normal(table) -> bool:
    return table.schema.equals(SPLIT_COLUMNS)


# -- entries ----------------------------------------------------------------------------------------------------------


def test_every_promised_task_is_in_the_catalog():
    assert set(WANTED) <= set(catalog.names())
    assert list(catalog.names()) == sorted(catalog.names())


@pytest.mark.parametrize("name", catalog.names())
def test_an_entry_is_complete_and_refers_to_what_exists(name):
    task = catalog.entry(name)
    assert task.kind in KINDS
    assert task.title
    assert task.licence
    assert task.note
    assert task.url.startswith("https://")
    assert "test" in task.splits
    assert set(task.splits) <= {"train", "dev", "test"}
    owned = [ood.own for ood in task.ood.values() if ood.own]
    for split in [*task.splits.values(), *owned]:
        inspect.signature(READERS[split.local.format]).bind({}, **split.local.options)
        assert {"label", "response"} & set(split.local.reading.columns)
    for ood in task.ood.values():
        if ood.task:
            other = catalog.entry(ood.task)
            assert other.kind == task.kind
            assert ood.split == "all" or ood.split in other.splits
            assert not task.group or other.group != task.group, "tasks of a group share text"


def test_sentiment_sets_cut_from_the_same_reviews_are_one_group_and_cr_is_not():
    groups = {name: catalog.entry(name).group for name in ("sst2", "sst2_sentences", "sst5", "mr", "subj")}
    assert set(groups.values()) == {"sst"}
    assert catalog.entry("cr").group == ""
    assert list(catalog.entry("sst2").ood) == ["cr"]


def test_an_unknown_task_is_answered_with_the_nearest_name():
    with pytest.raises(UsageError, match="Did you mean `banking77`"):
        catalog.entry("banking7")


def test_a_misspelt_key_in_an_entry_fails_at_once():
    text = (
        'title="t"\nkind="classification"\nmetric="accuracy"\nlicence="MIT"\nurl=""\nnote=""\nlicense="MIT"\n[splits]\n'
    )
    with pytest.raises(TypeError, match="license"):
        parse("x", text)


def test_entries_are_frozen():
    with pytest.raises(AttributeError):
        catalog.entry("cola").metric = "accuracy"


# -- readers ----------------------------------------------------------------------------------------------------------


def test_csv_keeps_commas_quotes_and_line_breaks_inside_a_field():
    assert read("csv", 'text,y\r\n"a, ""b""\nc",1\r\n') == [{"text": 'a, "b"\nc', "y": "1"}]


def test_tsv_takes_quotation_marks_as_text():
    assert read("tsv", 'a\tb\n"open\tx"\n') == [{"a": '"open', "b": 'x"'}]


def test_tsv_without_header_with_a_byte_order_mark_and_windows_line_ends():
    rows = read("tsv", b"\xef\xbb\xbfgj04\t1\tA.\r\n", header=["source", "label", "sentence"], encoding="utf-8-sig")
    assert rows == [{"source": "gj04", "label": "1", "sentence": "A."}]


@pytest.mark.parametrize(("written", "text"), [("b'caf\\xc3\\xa9'", "café"), ('b"it\'s"', "it's")])
def test_bytes_literals_are_decoded(written, text):
    assert read("tsv", f"s\ty\n{written}\t1\n", bytes_literals=["s"]) == [{"s": text, "y": "1"}]


@pytest.mark.parametrize("written", ["plain", "'a str'", "b'open", "__import__('os')"])
def test_what_is_no_bytes_literal_is_refused_and_never_run(written):
    with pytest.raises(DataError, match="row 1 must hold a bytes literal"):
        read("tsv", f"s\n{written}\n", bytes_literals=["s"])


def test_jsonl_is_broken_at_line_feeds_alone():
    assert read("jsonl", '{"a": "x\u2028y"}\n{"a": true}\n') == [{"a": "x\u2028y"}, {"a": True}]


def test_a_json_dict_gives_its_values_in_order():
    assert read("json_dict", '{"10": {"a": 1}, "2": {"a": 2}}') == [{"a": 1}, {"a": 2}]


def test_line_aligned_files_give_one_column_each():
    assert read("lines", more={"en": "a\nb\n", "de": "c\nd\n"}) == [{"en": "a", "de": "c"}, {"en": "b", "de": "d"}]


def test_line_aligned_files_of_different_length_are_refused_with_the_counts():
    with pytest.raises(DataError, match=r"'en': 2, 'de': 1"):
        read("lines", more={"en": "a\nb\n", "de": "c\n"})


def test_labelled_lines_in_latin_1_with_next_line_characters():
    rows = read("labelled", "0 d\xe9j\xe0 \x85 vu\n1 b\n".encode("latin-1"), encoding="latin-1")
    assert [(r["label"], r["text"]) for r in rows] == [("0", "d\xe9j\xe0 \x85 vu"), ("1", "b")]


def test_labelled_lines_with_a_fine_label():
    assert read("labelled", "NUM:dist How far : ?\n") == [{"label": "NUM", "fine": "dist", "text": "How far : ?"}]


def test_copa_xml_counts_its_answers_from_zero():
    rows = read("copa_xml", XML)
    assert [(r["id"], r["question"], r["label"]) for r in rows] == [
        (401, "effect", 1),
        (1401, "cause", 0),
        (1, "cause", 0),
    ]
    assert rows[0]["choice2"] == "It was wet."


def test_copa_gold_file_must_agree_with_the_xml():
    agreeing = {"gold": "401 0 1\n1401 1 0\n1 1 0\n"}
    assert len(read("copa_xml", XML, more=agreeing)) == 3
    with pytest.raises(DataError, match="differs in item 401"):
        read("copa_xml", XML, more={"gold": "401 1 0\n1401 1 0\n1 1 0\n"})


@pytest.mark.parametrize(
    ("form", "content", "said"),
    [
        ("csv", "a,b\n1\n", "row 1 must have 2 fields"),
        ("csv", 'a\n"x" y\n', "line 2"),
        ("tsv", "a\tb\n1\t2\n1\t2\t3\n", "row 2 must have 2 fields"),
        ("tsv", b"a\n\xff\n", "byte 2 is 0xff"),
        ("jsonl", '{"a": 1}\n{"a"\n', "row 2 is not JSON"),
        ("jsonl", "[1]\n", "row 1 must be a JSON object"),
        ("json_dict", "[]", "must be a JSON object"),
        ("labelled", "0 fine\nnothing\n", "row 2 must be"),
        ("copa_xml", "<a>", "not a COPA file"),
        ("copa_xml", "<c><item id='1'/></c>", "not a COPA file"),
    ],
)
def test_a_broken_file_is_named_with_its_row(form, content, said):
    with pytest.raises(DataError, match=said) as error:
        read(form, content)
    assert "the file" in str(error.value)


@given(st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\t\n\r", codec="utf-8"))] * 2), max_size=8))
def test_any_text_without_tabs_and_line_breaks_survives_a_tsv(records):
    content = "".join(f"{a}\t{b}\n" for a, b in [("x", "y"), *records])
    assert [(r["x"], r["y"]) for r in read("tsv", content)] == records


# -- rows -> table ----------------------------------------------------------------------------------------------------


def test_labels_become_names_and_a_name_stays_a_name():
    reading = Reading(columns={"text": "t", "label": "y"}, labels={"0": "no", "1": "yes"})
    table = rows.to_table([{"t": " a ", "y": 1}, {"t": "b", "y": "0"}, {"t": "c", "y": "yes"}], reading, "x")
    assert is_normal(table)
    assert table["label"].to_pylist() == ["yes", "no", "yes"]
    assert table["text"][0].as_py() == "a"
    with pytest.raises(DataError, match="row 1 must have one of the labels 0, 1, but has '2'"):
        rows.to_table([{"t": "a", "y": 2}], reading, "x")


def test_a_missing_column_is_named_with_those_that_are_there():
    with pytest.raises(DataError, match=r"row 1 must have the column 'y', but has t\."):
        rows.to_table([{"t": "a"}], Reading(columns={"text": "t", "label": "y"}), "x")


def test_nested_columns_lists_and_several_references():
    reading = Reading(columns={"prompt": "d.source", "response": "target"}, references="\n")
    table = rows.to_table([{"d": {"source": ["A.", "B."]}, "target": ["one\n", " two  words"]}], reading, "x")
    assert table["text"][0].as_py() == "A. B."
    assert table["label"][0].as_py() == "one\ntwo words"


def test_a_text_that_is_null_is_empty_and_not_the_word_none():
    reading = Reading(columns={"text": "t", "label": "y"})
    assert rows.to_table([{"t": None, "y": 0}], reading, "x")["text"].to_pylist() == [""]


def test_dropped_rows_keep_the_numbers_of_the_others():
    reading = Reading(columns={"text": "t", "label": "y"}, drop=("-1",))
    assert rows.to_table([{"t": "a", "y": -1}, {"t": "b", "y": 0}], reading, "x")["row"].to_pylist() == [2]


@given(st.lists(st.text(), max_size=30), st.integers(0, 100))
def test_a_split_by_hash_is_a_partition_that_puts_equal_texts_together(texts, cut):
    made = [
        rows.to_table([{"t": t, "y": "0"} for t in texts], Reading({"text": "t", "label": "y"}, percent=part), "x")
        for part in ((0, cut), (cut, 100))
    ]
    numbers = [set(table["row"].to_pylist()) for table in made]
    assert numbers[0] | numbers[1] == set(range(1, len(texts) + 1))
    assert not numbers[0] & numbers[1]
    assert not set(made[0]["text"].to_pylist()) & set(made[1]["text"].to_pylist())


def test_the_hash_split_is_fixed_for_all_time():
    assert [rows.bucket(text) for text in ("", "a fine film", "A fine, film!")] == [52, 32, 32]


# -- open -------------------------------------------------------------------------------------------------------------


def test_the_bundled_set_opens_from_the_package_even_where_a_data_folder_is_given(tmp_path):
    schema, splits, ood = catalog.open("banking77_demo", tmp_path)
    assert schema.kind == "classification"
    assert len(schema.labels) == 8
    assert schema.labels == tuple(sorted(schema.labels))
    assert set(Counter(splits["train"]["label"].to_pylist()).values()) == {16}
    assert set(Counter(splits["test"]["label"].to_pylist()).values()) == {40}
    assert all(is_normal(table) for table in splits.values())
    assert ood == {}
    seen = Counter("".join(c for c in text.lower() if c.isalnum()) for text in splits["train"]["text"].to_pylist())
    assert set(seen.values()) == {1}
    assert not {"".join(c for c in t.lower() if c.isalnum()) for t in splits["test"]["text"].to_pylist()} & set(seen)


def test_the_bundled_set_credits_its_authors():
    readme = (Path(catalog.__file__).parent / "data/banking77_demo/README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in readme
    assert "PolyAI" in readme
    assert "Casanueva" in readme


def test_a_task_is_read_from_a_folder_with_its_out_of_domain_set(tmp_path, monkeypatch):
    line = "gj04\t{}\t\t{}\n"
    write(
        tmp_path,
        {
            "cola/in_domain_train.tsv": line.format(1, 'He said "no.') + line.format(0, "He no."),
            "cola/in_domain_dev.tsv": line.format(1, "She came."),
            "cola/out_of_domain_dev.tsv": line.format(0, "Came she the."),
        },
    )
    schema, splits, ood = catalog.open("cola", tmp_path)
    assert (schema.kind, schema.metric, schema.labels) == ("classification", "mcc", ("acceptable", "unacceptable"))
    assert splits["train"].to_pylist()[0] == {
        "row": 1,
        "text": 'He said "no.',
        "pair": None,
        "choices": None,
        "label": "acceptable",
    }
    assert ood["out_of_domain"]["label"].to_pylist() == ["unacceptable"]
    monkeypatch.setenv("FORETUNE_DATA", str(tmp_path))
    assert catalog.open("cola")[1]["train"].equals(splits["train"])


def test_balanced_copa_holds_dev_items_and_their_mirrors_only(tmp_path):
    train = {"premise": "P.", "choice1": "A.", "choice2": "B.", "question": "cause", "idx": 0, "label": 1}
    write(
        tmp_path,
        {
            "copa/train.jsonl": json.dumps(train) + "\n",
            "copa/copa-test.xml": XML,
            "copa/copa-test.gold.txt": "401 0 1\n1401 1 0\n1 1 0\n",
            "copa/balanced-copa-dev-all.xml": XML,
        },
    )
    schema, splits, ood = catalog.open("copa", tmp_path)
    assert schema.kind == "choice"
    assert schema.labels == ()
    assert splits["train"]["text"].to_pylist() == ["P. What was the cause of this?"]
    assert splits["train"]["label"].to_pylist() == ["1"]
    assert splits["test"].num_rows == 3
    assert ood["balanced"]["text"].to_pylist() == [
        "It rained. What happened as a result?",
        "It shone. What was the cause of this?",
    ]
    assert ood["balanced"]["choices"][0].as_py() == ["It was dry.", "It was wet."]


def nli_folder(folder: Path, gold: str = "non-entailment") -> Path:
    hans = (
        f"gold_label\tsentence1\tsentence2\theuristic\n{gold}\tA b.\tB a.\tlexical_overlap\n"
        "entailment\tA b.\tA.\tconstituent\n"
    )
    pairs = [("a", "b", "entailment"), ("a", "c", "neutral"), ("a", "d", "contradiction")]
    table = json.dumps({str(i): {"text_a": a, "text_b": b, "label": y} for i, (a, b, y) in enumerate(pairs)})
    rte = "index\tsentence1\tsentence2\tlabel\n0\tA\tB\tentailment\n1\tA\tC\tnot_entailment\n"
    hard = {
        f"mnli/dev_{part}_hard.{name}.txt": text
        for part in ("matched", "mismatched")
        for name, text in (("s1", "p\n"), ("s2", "h\n"), ("labels", "neutral\n"))
    }
    return write(
        folder,
        {
            "hans/regenerated_seed0_30k.tsv": hans,
            "mnli/subset10k_train.json": table,
            "mnli/subset10k_dev.json": table,
            "rte/train.tsv": rte,
            "rte/dev.tsv": rte,
            **hard,
        },
    )


def test_three_classes_are_judged_on_two_by_a_declared_map(tmp_path):
    schema, _, ood = catalog.open("mnli", nli_folder(tmp_path))
    collapse = schema.ood_label_map["hans"]
    assert set(collapse) == set(schema.labels) == {"entailment", "neutral", "contradiction"}
    assert set(collapse.values()) == set(ood["hans"]["label"].to_pylist()) == {"entailment", "non-entailment"}
    assert collapse["neutral"] == collapse["contradiction"] == "non-entailment"
    assert set(ood) == {"hans", "hard_matched", "hard_mismatched"}
    assert "hard_matched" not in schema.ood_label_map


def test_two_classes_under_other_names_are_renamed_to_the_task_s(tmp_path):
    schema, _, ood = catalog.open("rte", nli_folder(tmp_path))
    assert schema.ood_label_map == {}
    assert ood["hans"]["label"].to_pylist() == ["not_entailment", "entailment"]


@pytest.mark.parametrize("name", ["mnli", "rte"])
def test_hans_keeps_its_heuristics_as_groups(tmp_path, name):
    schema, splits, ood = catalog.open(name, nli_folder(tmp_path))
    assert schema.ood_groups == {"hans": "heuristic"}
    assert ood["hans"]["group"].to_pylist() == ["lexical_overlap", "constituent"]
    assert "group" not in schema.columns
    assert all(is_normal(table) for table in splits.values())
    assert all(is_normal(table) for other, table in ood.items() if other != "hans")


def test_an_out_of_domain_label_that_no_prediction_can_equal_is_refused(tmp_path):
    with pytest.raises(DataError, match="the labels of `hans` must be among"):
        catalog.open("mnli", nli_folder(tmp_path, gold="maybe"))


def test_all_splits_of_another_task_can_be_one_out_of_domain_set(tmp_path):
    phrases = "sentence\tlabel\ngood \t1\nbad \t0\n"
    reviews = "".join(f"{i % 2} review number {i} .\n" for i in range(50))
    write(tmp_path, {f"sst2/{name}.tsv": phrases for name in ("train", "dev_from_train", "official_dev_872")})
    write(tmp_path, {"sentconv/custrev.all": reviews})
    _, splits, ood = catalog.open("sst2", tmp_path)
    assert splits["train"]["text"].to_pylist() == ["good", "bad"]
    assert sorted(ood["cr"]["row"].to_pylist()) == list(range(1, 51))
    cr = catalog.open("cr", tmp_path)[1]
    assert 0 < cr["test"].num_rows < cr["train"].num_rows < 50


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"`trec` needs the file trec/train\.raw\.txt") as error:
        catalog.open("trec", tmp_path)
    assert "--data-dir" in str(error.value)


def test_a_missing_data_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not"):
        catalog.open("trec", tmp_path / "nowhere")


# -- the Hub ----------------------------------------------------------------------------------------------------------


def test_hub_rows_carry_class_names_and_missing_labels_stay_minus_one():
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"premise": Value("string"), "label": ClassLabel(names=["entailment", "neutral"])})
    dataset = Dataset.from_dict({"premise": ["a", "b", "c"], "label": [1, -1, 0]}, features=features)
    assert [row["label"] for row in hub.rows(dataset)] == ["neutral", -1, "entailment"]
    reading = Reading(columns={"text": "premise", "label": "label"}, drop=("-1",))
    assert rows.to_table(hub.rows(dataset), reading, "x")["label"].to_pylist() == ["neutral", "entailment"]


def test_a_task_that_is_not_on_the_hub_asks_for_a_folder(monkeypatch):
    monkeypatch.delenv("FORETUNE_DATA", raising=False)
    with pytest.raises(DataError, match=r"not on the Hub\. Give the folder that holds paws_qqp/train\.tsv"):
        catalog.open("paws_qqp")


def test_out_of_domain_sets_without_a_hub_home_are_left_out(monkeypatch):
    read_from = []

    def fake(task, source):
        read_from.append(source.id)
        return iter([{"sentence1": "a", "sentence2": "b", "label": "equivalent"}])

    monkeypatch.delenv("FORETUNE_DATA", raising=False)
    monkeypatch.setattr(hub, "read", fake)
    schema, splits, ood = catalog.open("mrpc")
    assert set(splits) == {"train", "dev", "test"}
    assert schema.labels == ("paraphrase",)
    assert ood == {}
    assert set(catalog.entry("mrpc").ood) == {"paws_qqp"}
    assert set(read_from) == {"nyu-mll/glue"}


def test_without_files_and_without_network_one_sentence_says_what_to_do(tmp_path):
    program = """
from foretune.errors import DataError
from foretune.tasks import catalog
try:
    catalog.open("cola")
except DataError as error:
    print(error)
"""
    surroundings = {k: v for k, v in os.environ.items() if k != "FORETUNE_DATA"}
    surroundings |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=surroundings, check=True)
    assert done.stdout.count("\n") == 1
    for part in ("nyu-mll/glue", "--data-dir", "FORETUNE_DATA", "go online"):
        assert part in done.stdout


@pytest.mark.network
@pytest.mark.parametrize("name", [n for n in catalog.names() if all(s.hub for s in catalog.entry(n).splits.values())])
def test_a_task_opens_from_the_hub(name, monkeypatch):
    monkeypatch.delenv("FORETUNE_DATA", raising=False)
    schema, splits, _ = catalog.open(name)
    assert set(splits) == set(catalog.entry(name).splits)
    assert all(is_normal(table.select(SPLIT_COLUMNS.names)) and table.num_rows for table in splits.values())
    assert schema.kind != "classification" or len(schema.labels) >= 2
