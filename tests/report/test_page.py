"""report.html: complete, escaped, self-contained, small, and the same for the same run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import samples

from foretune.errors import StoreError
from foretune.records import ModelRef
from foretune.report.page import render, verdict, write
from foretune.store.folder import write_run

ALL = (
    samples.banking,
    samples.silent,
    samples.many,
    samples.failed,
    samples.constant,
    samples.regression,
    samples.generation,
    samples.simplex,
    samples.subset,
)
VOID = {"meta", "link", "br", "wbr", "img", "input", "hr", "path", "circle", "rect", "line"}
FETCHING = {"src", "srcset", "data", "poster", "action", "formaction", "background", "xlink:href", "ping", "manifest"}


class Page(HTMLParser):
    """Tags, attributes, text and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def page(sample: samples.Sample) -> str:
    return render(sample.record, sample.plan, sample.predictions, sample.floors)


@pytest.mark.parametrize("make", ALL)
def test_every_kind_of_run_gives_balanced_html_with_one_first_heading(make):
    found = Page(page(make()))
    assert found.open == []
    assert [tag for tag, _ in found.tags].count("h1") == 1


@pytest.mark.parametrize("make", ALL)
def test_nothing_is_fetched_and_nothing_can_run(make):
    found = Page(page(make()))
    for tag, attributes in found.tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base", "img", "audio", "video"}
        assert not FETCHING & attributes.keys()
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert (attributes.get("href") or "#").startswith(("#", "data:,"))
    style = "".join(re.findall(r"<style>(.*?)</style>", page(make()), re.S))
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_the_only_style_sheet_by_its_hash():
    html = page(samples.banking())
    style = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert len(style) == 1
    wanted = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    policy = next(a["content"] for t, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{wanted}'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "</style></title></svg><img src=x onerror=alert(1)>",
        "\"><b onmouseover='x()'>",
        "{{ 7 * 7 }}{% raw %}",
        "line one\nline two\r\n\ttab",
        "אבג مرحبا שלום",
        "日本語の長いラベル",
        "&lt;already&gt; & more",
        "]]>--><!--",
        "L" * 10_000,
    ],
)
def test_a_users_words_stay_words_wherever_they_appear(hostile):
    plain = page(samples.banking())
    html = page(samples.hostile(hostile, hostile))
    before, after = Page(plain), Page(html)
    assert after.open == []
    assert {tag for tag, _ in after.tags} <= {tag for tag, _ in before.tags} | {"pre"}
    assert {name for _, a in after.tags for name in a} <= {name for _, a in before.tags for name in a}
    assert " ".join(hostile[:40].split())[:20] in after.text
    assert "49" not in re.findall(r"<title>(.*?)</title>", html, re.S)[0]


def test_a_long_label_is_cut_with_the_rest_counted():
    html = page(samples.hostile("L" * 10_000, "fine"))
    assert "more characters)" in html
    assert len(html) < 150_000


def test_ten_thousand_predictions_of_77_classes_stay_small_and_complete():
    sample = samples.many()
    html = page(sample)
    assert len(html.encode()) < 2_000_000
    text = Page(html).text
    errors = sum(r["label"] != r["prediction"] for r in sample.predictions.to_pylist() if r["split"] == "test")
    assert f"{errors} errors in 10,000 examples" in text.replace("\xa0", " ")
    assert "among 77 classes" in text.replace("\xa0", " ")
    assert "10,000 examples in bins" in text.replace("\xa0", " ")


def test_ten_thousand_numbers_are_all_drawn_and_stay_small():
    html = page(samples.regression(10_000))
    assert len(html.encode()) < 2_000_000
    assert html.count("h0") > 5_000


def test_the_sections_of_a_classification_come_in_the_order_a_reader_wants():
    html = page(samples.banking())
    order = re.findall(r'<section id="([\w-]+)"', html)
    assert order == [
        *("verdict", "warnings", "expected", "floors", "scores", "curve-section", "confusion", "calibration"),
        *("ood", "mistakes", "cost", "data", "config"),
    ]
    assert re.findall(r'<li><a href="#([\w-]+)"', html) == order


def test_what_a_run_lacks_is_left_out_and_what_it_has_is_there():
    def sections(make):
        return set(re.findall(r'<section id="([\w-]+)"', page(make())))

    assert sections(samples.failed) == {"verdict", "expected", "config"}
    assert {"regression"} <= sections(samples.regression)
    assert not {"confusion", "calibration", "mistakes", "ood", "written"} & sections(samples.regression)
    assert {"written"} <= sections(samples.generation)
    assert not {"confusion", "regression", "mistakes"} & sections(samples.generation)


def test_a_run_without_predictions_still_has_its_verdict():
    made = samples.banking()
    text = Page(render(made.record, made.plan)).text
    assert "86.9" in text
    assert "What is taken for what" not in text


def test_a_failed_run_shows_its_error_and_no_score():
    text = Page(page(samples.failed())).text
    assert "This run ran out of memory" in text
    assert "step 4 needed 9.1 GB" in text
    assert "It came to step 3 of 240" in text
    assert "0.0 %" not in text.replace("\xa0", " ")


def test_a_confusion_matrix_counts_every_example_once():
    sample = samples.banking()
    html = page(sample)
    cells = re.findall(r'<td class="(?:hit|miss) s\d">(\d+|·)</td>', html)
    assert len(cells) == 64
    assert sum(int(c) for c in cells if c != "·") == 320


def test_the_surest_mistakes_come_first_and_are_mistakes():
    sample = samples.banking()
    html = page(sample)
    shown = [float(p) for p in re.findall(r'data-name="Probability">([\d.]+)</td>', html)]
    wrong = [
        r["probability"]
        for r in sample.predictions.to_pylist()
        if r["split"] == "test" and r["label"] != r["prediction"]
    ]
    assert shown == [round(p, 3) for p in sorted(wrong, reverse=True)[:20]]


def test_a_pair_and_the_candidates_of_a_choice_are_shown_with_the_text():
    made = samples.banking()
    n = len(made.predictions)
    table = made.predictions.append_column("pair", pa.array(["the other half"] * n)).append_column(
        "choices", pa.array([["first way", "second way"]] * n)
    )
    text = Page(render(made.record, made.plan, table)).text
    assert "the other half" in text
    assert "(1) second way" in text


def test_every_table_has_a_caption_and_every_figure_a_title():
    html = page(samples.banking())
    assert html.count("<table") == html.count("<caption") > 5
    assert html.count("<svg") == html.count("<title id=") == html.count("<desc id=") > 4
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    for named in re.findall(r'aria-labelledby="([^"]+)"', html):
        assert set(named.split()) <= set(ids)


def test_the_same_run_gives_the_same_bytes():
    assert page(samples.banking()) == page(samples.banking())


def write_folder(folder: Path, sample: samples.Sample) -> None:
    write_run(folder, sample.record)
    if sample.plan:
        (folder / "plan.json").write_text(json.dumps(sample.plan.to_json()), encoding="utf-8")
    for name, table in (("predictions", sample.predictions), ("floors", sample.floors)):
        if table is not None:
            pq.write_table(table, folder / f"{name}.parquet")


def test_a_folder_gives_the_page_of_its_records(tmp_path):
    sample = samples.banking()
    write_folder(tmp_path, sample)
    path = write(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == page(sample)
    said = verdict(tmp_path)
    assert said[0].replace("\xa0", " ") == "86.9 % accuracy on 320 test examples"
    assert all(sentence in Page(page(sample)).text.replace("\u2068", "") or "\xa0" in sentence for sentence in said[1:])
    assert write(tmp_path, tmp_path / "new" / "page.html").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("plan.json", b"{", "cannot be read as a plan"),
        ("plan.json", b'{"ranked": []}', "cannot be read as a plan"),
        ("predictions.parquet", b"no parquet", "is not a readable Parquet file"),
    ],
)
def test_a_broken_file_is_named_in_one_sentence(tmp_path, name, content, rule):
    write_folder(tmp_path, samples.failed())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=rule) as caught:
        write(tmp_path)
    assert name in str(caught.value)


def test_predictions_without_a_column_are_refused_by_its_name():
    made = samples.banking()
    with pytest.raises(StoreError, match="probability is missing"):
        render(made.record, None, made.predictions.drop_columns(["probability"]))


def test_a_page_that_cannot_be_written_is_said(tmp_path):
    write_folder(tmp_path, samples.failed())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path, tmp_path / "file" / "page.html")


def test_numbers_that_are_not_finite_never_reach_the_page():
    made = samples.banking()
    judged = {
        split: replace(e, scores={"accuracy": float("nan")}, intervals={})
        for split, e in made.record.evaluations.items()
    }
    html = render(replace(made.record, evaluations=judged), made.plan, made.predictions, made.floors)
    assert not re.search(r"\bnan\b|\binf\b", Page(html).text, re.I)
    assert "No score on" in Page(html).text
    assert not re.search(r'="[^"]*nan[^"]*"', html)


def test_a_model_of_any_name_is_shown(tmp_path):
    made = samples.failed()
    record = replace(made.record, config=replace(made.record.config, model=ModelRef("a/b", pooling="cls")))
    assert "a/b" in Page(render(record)).text
