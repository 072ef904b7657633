"""Acceptance check 3 on the real files: rows, majority values, duplicates and encodings of every public set.

Needs ``FORETUNE_DATA``, the folder with the data sets.
"""

from __future__ import annotations

import csv
import os
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from foretune.tasks import catalog
from foretune.tasks.catalog.readers import READERS, File

DATA = os.environ.get("FORETUNE_DATA", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA, reason="FORETUNE_DATA is not set")]

ROWS = {
    "cola": {"train": 8_551, "test": 527, "out_of_domain": 516},
    "sst2": {"train": 60_614, "dev": 6_735, "test": 872, "cr": 3_775},
    "mrpc": {"train": 3_668, "dev": 408, "test": 1_725, "paws_qqp": 677},
    "rte": {"train": 2_490, "test": 277, "hans": 30_000},
    "wnli": {"train": 565, "dev": 70, "test": 71},
    "mnli": {"train": 8_999, "test": 1_000, "hans": 30_000, "hard_matched": 4_573, "hard_mismatched": 4_530},
    "hans": {"test": 30_000, "lexical_overlap": 10_000},
    "gsm8k": {"train": 7_473, "test": 1_319},
    "banking77": {"train": 10_003, "test": 3_080},
    "trec": {"train": 5_452, "test": 500},
    "mr": {"train + test": 10_662},
    "subj": {"train + test": 10_000},
    "cr": {"train + test": 3_775},
    "sst2_sentences": {"train": 6_920, "dev": 872, "test": 1_821, "cr": 3_775},
    "sst5": {"train": 8_544, "dev": 1_101, "test": 2_210},
    "boolq": {"train": 1_000, "test": 3_270},
    "cb": {"train": 250, "test": 56},
    "copa": {"train": 400, "test": 500, "balanced": 200},
    "snli": {"train": 8_999, "test": 1_000},
    "qqp": {"train": 8_999, "test": 1_000, "paws_qqp": 677},
    "paws_qqp": {"train": 11_988, "test": 677},
    "scitldr": {"train": 1_992, "dev": 619, "test": 618},
    "mafand_en_hau": {"train": 5_865, "dev": 1_300, "test": 1_500},
    "multi30k": {"train": 29_000, "dev": 1_014, "test": 1_000},
}

MAJORITY = {
    ("cola", "test"): 0.692599620,
    ("cola", "out_of_domain"): 0.686046512,
    ("sst2", "test"): 0.509174312,
    ("mrpc", "dev"): 0.683823529,
    ("mrpc", "test"): 0.664927536,
    ("rte", "test"): 0.527075812,
    ("wnli", "test"): 0.563380282,
    ("mnli", "test"): 0.347,
    ("mnli", "hard_matched"): 0.371965887,
    ("mnli", "hard_mismatched"): 0.377483444,
    ("hans", "test"): 0.5,
    ("hans", "lexical_overlap"): 0.5,
    ("banking77", "test"): 0.012987013,
    ("trec", "test"): 0.276,
    ("mr", "train + test"): 0.5,
    ("subj", "train + test"): 0.5,
    ("cr", "train + test"): 0.637615894,
    ("sst2_sentences", "test"): 0.500823723,
    ("sst5", "test"): 0.286425339,
    ("boolq", "test"): 0.621712538,
    ("cb", "test"): 0.5,
    ("copa", "test"): 0.5,
    ("snli", "test"): 0.346,
    ("qqp", "test"): 0.623,
    ("paws_qqp", "test"): 0.717872969,
}

RECURRING = {
    "cola": {"test": 8, "out_of_domain": 12},
    "sst2": {"dev": 1_553, "test": 2},
    "mrpc": {"test": 6},
    "banking77": {"test": 29},
    "trec": {"test": 11},
    "paws_qqp": {"test": 48},
    "mafand_en_hau": {"dev": 28, "test": 22},
    "multi30k": {"dev": 1},
    "sst2_sentences": {"dev": 1, "test": 2},
    "sst5": {"dev": 3, "test": 2},
    # The abstracts that recur; the five recurring titles are in a test of their own.
    "scitldr": {"dev": 1, "test": 2},
}


@cache
def tables(name):
    schema, splits, ood = catalog.open(name, DATA)
    if name in ("mr", "subj", "cr"):
        splits = {**splits, "train + test": pa.concat_tables(splits.values())}
    return schema, splits, ood


def majority(table):
    counts = Counter(table["label"].to_pylist())
    return round(max(counts.values()) / table.num_rows, 9)


def fold(text):
    return re.sub("[^a-z0-9]", "", text.lower())


def keys(table):
    """Lower case, only a-z and 0-9, all text fields."""
    columns = (table[name].to_pylist() for name in ("text", "pair", "choices"))
    return [
        (fold(text), fold(pair or ""), *map(fold, choices or ())) for text, pair, choices in zip(*columns, strict=True)
    ]


def raw(form, path, **options):
    return READERS[form]({"file": File(path, (Path(DATA) / path).read_bytes())}, **options)


def test_check_03_no_local_task_is_left_out():
    assert set(ROWS) | {"banking77_demo"} == set(catalog.names())


@pytest.mark.parametrize("name", ROWS)
def test_check_03_row_counts(name):
    _, splits, ood = tables(name)
    found = {split: table.num_rows for split, table in {**splits, **ood}.items()}
    assert {split: found[split] for split in ROWS[name]} == ROWS[name]


@pytest.mark.parametrize(("name", "split"), MAJORITY)
def test_check_03_majority_values_to_nine_digits(name, split):
    _, splits, ood = tables(name)
    assert majority({**splits, **ood}[split]) == MAJORITY[name, split]


def test_check_03_every_label_has_a_name_and_every_class_occurs_in_train():
    for name in ROWS:
        schema, splits, ood = tables(name)
        for table in (*splits.values(), *ood.values()):
            assert table["label"].null_count == 0
        if schema.kind == "classification" and "train" in splits:
            assert set(splits["train"]["label"].to_pylist()) == set(schema.labels)


@pytest.mark.parametrize("name", [name for name in ROWS if name != "hans"])
def test_check_03_rows_that_recur_in_train(name):
    _, splits, ood = tables(name)
    train = set(keys(splits["train"]))
    own = {other: ood[other] for other, source in catalog.entry(name).ood.items() if source.own}
    found = {
        split: sum(key in train for key in keys(table))
        for split, table in {**splits, **own}.items()
        if split in ("dev", "test") or split in own
    }
    assert {split: n for split, n in found.items() if n} == RECURRING.get(name, {})


def test_check_03_recurring_titles_of_scitldr():
    titles = {part: [fold(row["title"]) for row in raw("jsonl", f"scitldr/{part}.jsonl")] for part in ("train", "test")}
    assert sum(title in set(titles["train"]) for title in titles["test"]) == 5


def test_check_03_verbatim_duplicates_of_cola():
    _, splits, ood = tables("cola")
    train = set(splits["train"]["text"].to_pylist())
    found = [
        sum(text in train for text in table["text"].to_pylist()) for table in (splits["test"], ood["out_of_domain"])
    ]
    assert found == [6, 12]


def test_check_03_first_sentences_of_wnli_recur():
    _, splits, _ = tables("wnli")
    train = set(splits["train"]["text"].to_pylist())
    assert sum(text in train for text in splits["test"]["text"].to_pylist()) == 59


def test_check_03_passages_of_boolq_recur():
    _, splits, _ = tables("boolq")
    train = set(map(fold, splits["train"]["pair"].to_pylist()))
    assert sum(fold(passage) in train for passage in splits["test"]["pair"].to_pylist()) == 210


def test_check_03_the_union_of_the_cola_dev_files():
    _, splits, ood = tables("cola")
    union = Counter(splits["test"]["label"].to_pylist() + ood["out_of_domain"]["label"].to_pylist())
    assert union == {"acceptable": 719, "unacceptable": 324}


def test_check_03_glue_holds_the_cola_dev_files_in_this_order():
    """What lets the Hub's dev set be cut at row 527; GLUE spells seven rows and labels two otherwise."""
    header = ["source", "label", "mark", "sentence"]
    glue = raw("tsv", "lmbff_kshot/CoLA/test.tsv", header=header)
    own = [row for part in ("in", "out_of") for row in raw("tsv", f"cola/{part}_domain_dev.tsv", header=header)]
    assert len(glue) == len(own) == 1_043
    assert Counter(row["label"] for row in glue) == {"1": 721, "0": 322}
    assert sum(a["sentence"] != b["sentence"] for a, b in zip(glue, own, strict=True)) == 7
    assert sum(a["label"] != b["label"] for a, b in zip(glue, own, strict=True)) == 2


def test_check_03_hans_is_balanced():
    _, splits, ood = tables("hans")
    assert Counter(splits["test"]["label"].to_pylist()) == {"entailment": 15_000, "non-entailment": 15_000}
    assert Counter(ood["lexical_overlap"]["label"].to_pylist()) == {"entailment": 5_000, "non-entailment": 5_000}


def test_check_03_both_paws_files_parse():
    _, splits, _ = tables("paws_qqp")
    assert Counter(splits["train"]["label"].to_pylist()) == {"not_paraphrase": 8_212, "paraphrase": 3_776}
    assert Counter(splits["test"]["label"].to_pylist()) == {"not_paraphrase": 486, "paraphrase": 191}
    for table in splits.values():
        for text in table["text"].to_pylist() + table["pair"].to_pylist():
            assert text
            assert not re.match(r"""b['"].*['"]$""", text)
            assert "\r" not in text


def test_check_03_no_mojibake_in_sentconv():
    """UTF-8 read as Latin-1 shows as a letter of the range A-tilde..i-umlaut before a control or symbol character."""
    accented = 0
    for name in ("mr", "subj", "cr", "sst2_sentences", "sst5"):
        for table in tables(name)[1].values():
            for text in table["text"].to_pylist():
                assert not re.search("[\u00c2-\u00ef][\u0080-\u00bf]|\ufffd", text), text
                accented += any(c.isalpha() and not c.isascii() for c in text)
    assert accented > 100


def test_check_03_copa_out_of_domain_shares_no_choices_with_train():
    _, splits, ood = tables("copa")
    choices = [{frozenset(map(fold, c)) for c in t["choices"].to_pylist()} for t in (splits["train"], ood["balanced"])]
    assert not choices[0] & choices[1]
    dev = raw("jsonl", "copa/validation.jsonl")
    assert len(dev) == 100
    assert Counter(row["label"] for row in dev) == {0: 55, 1: 45}
    assert {frozenset((fold(row["choice1"]), fold(row["choice2"]))) for row in dev} == choices[1]
    whole = raw("copa_xml", "copa/balanced-copa-dev-all.xml")
    assert len(whole) == 1_000
    assert Counter(row["label"] for row in whole) == {0: 506, 1: 494}


def test_check_03_reviews_that_sentiment_sets_share():
    sst = {fold(t) for table in tables("sst5")[1].values() for t in table["text"].to_pylist()}
    mr = [fold(t) for t in tables("mr")[1]["train + test"]["text"].to_pylist()]
    assert sum(text in sst for text in mr) == 9_079
    reviews = set(mr)
    assert sum(fold(t) in reviews for t in tables("sst2")[1]["test"]["text"].to_pylist()) == 731
    assert sum(fold(t) in reviews for t in tables("subj")[1]["train + test"]["text"].to_pylist()) == 4_179
    phrases = {fold(t) for t in tables("sst2")[1]["train"]["text"].to_pylist()}
    shared = [t for t in tables("sst2")[2]["cr"]["text"].to_pylist() if fold(t) in phrases]
    assert len(shared) == 8
    assert sum(not fold(t) for t in shared) == 5, "of the eight, four are blank and one is a lone symbol"


def test_check_03_gsm8k_answers_end_in_a_number():
    _, splits, _ = tables("gsm8k")
    for table in splits.values():
        assert all(re.search(r"\n#### -?[\d,.]+$", answer) for answer in table["label"].to_pylist())
    final = [answer.rsplit("#### ")[-1] for answer in splits["test"]["label"].to_pylist()]
    assert sum("," in number for number in final) == 14
    assert sum("-" in number for number in final) == 2


def test_check_03_several_references_of_scitldr():
    schema, splits, _ = tables("scitldr")
    counts = {
        split: Counter(r.count(schema.references) + 1 for r in t["label"].to_pylist()) for split, t in splits.items()
    }
    assert counts["train"] == {1: 1_992}
    assert counts["dev"] == {1: 94, 2: 237, 3: 267, 4: 21}
    assert counts["test"] == {2: 83, 3: 339, 4: 196}


def test_the_bundled_set_is_drawn_as_its_readme_says():
    official = {part: raw("csv", f"banking77/{part}.csv") for part in ("train", "test")}
    schema, splits, _ = catalog.open("banking77_demo")
    recurring = {fold(row["text"]) for row in official["test"]}
    rng = random.Random(77)
    drawn = []
    for intent in schema.labels:
        pool: dict[str, str] = {}
        for row in official["train"]:
            if row["category"] == intent and fold(row["text"]) not in recurring:
                pool.setdefault(fold(row["text"]), row["text"])
        drawn += [(text, intent) for text in rng.sample(sorted(pool.values()), 16)]
    held_out = [(row["text"], row["category"]) for row in official["test"] if row["category"] in schema.labels]
    for part, rows in (("train", drawn), ("test", held_out)):
        assert list(zip(*(splits[part][c].to_pylist() for c in ("text", "label")), strict=True)) == rows
        written = Path(catalog.__file__).parent / f"data/banking77_demo/{part}.csv"
        with written.open(encoding="utf-8", newline="") as file:
            assert [tuple(row) for row in csv.reader(file)] == [("text", "label"), *rows]
