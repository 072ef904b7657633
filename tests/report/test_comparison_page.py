"""The files of a comparison: page, tables, record, and the lines for the terminal."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest
import verdict_samples as samples

from foretune.errors import StoreError
from foretune.records import Measured
from foretune.report import comparison_page, table_files, units, verdict_figures, verdict_tables
from foretune.report.comparison_page import read, render, summary, write

HOSTILE = "<script>document.title='owned'</script>\n|`_&%$\\input{x}"


def rows_of(verdict) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table_files.as_csv(verdict))))


def test_all_files_are_written_and_the_record_can_be_read_again(tmp_path):
    verdict = samples.usual()
    paths = write(verdict, tmp_path / "out")
    assert [path.name for path in paths] == ["comparison.html", "verdict.json", "tables.csv", "tables.md", "tables.tex"]
    assert read(tmp_path / "out") == read(paths[1])
    assert read(paths[1]).to_json() == verdict.to_json()
    before = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write(read(tmp_path / "out"), tmp_path / "out")] == before


@pytest.mark.parametrize("content", ["", "[]", '{"digest": "x"}', '{"digest": 3}', "\xff"])
def test_a_file_that_is_no_verdict_is_refused_in_words(tmp_path, content):
    path = tmp_path / "verdict.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(StoreError, match=r"cannot be read as a verdict .*Write it again"):
        read(path)


def test_a_missing_verdict_is_refused_in_words(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read(tmp_path)


def test_the_page_says_everything_that_a_reader_must_know():
    page = render(samples.usual()).replace(units.NBSP, " ")
    for said in ("3f9ac2d17be0", "data_seeds: [0, 1, 2, 3, 4]", "What may be claimed", "Failed and missing", "missing"):
        assert said in page
    assert "failed, 0 of 5 (5 oom)" in page
    assert "4 of 5 (1 diverged)" in page
    assert "always “\u2068entailment\u2069”" in page
    assert "The methods did not get the same effort of tuning." in page
    assert "are equivalent within 1 point" in page
    assert page.index('id="verdict"') < page.index("<table")


def test_the_page_asks_for_nothing_and_runs_nothing():
    page = render(samples.usual())
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!#|data:)", page) == []
    assert "default-src 'none'" in page


def test_what_a_user_wrote_is_escaped_everywhere(tmp_path):
    verdict = samples.hostile(HOSTILE)
    paths = {path.name: path.read_text(encoding="utf-8") for path in write(verdict, tmp_path)}
    assert "<script" not in paths["comparison.html"]
    assert "<script" not in paths["tables.md"]
    assert re.search(r"(?<!\\textbackslash\{\})\\input", paths["tables.tex"]) is None
    assert re.search(r"(?<!\\)[&%$#_](?=document)", paths["tables.tex"]) is None
    assert all("\n" not in field for row in rows_of(verdict) for field in row.values())
    assert not any("\n" in line for line in summary(verdict))


def test_every_id_on_the_page_is_there_once():
    for verdict in (samples.usual(), samples.hostile(HOSTILE), samples.single_seed(), samples.nothing()):
        ids = re.findall(r'\bid="([^"]+)"', render(verdict))
        assert len(ids) == len(set(ids))
        page = render(verdict)
        assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


@pytest.mark.parametrize("make", [samples.nothing, samples.single_seed])
def test_a_comparison_without_results_still_has_a_page(make, tmp_path):
    verdict = make()
    assert len(write(verdict, tmp_path)) == 5
    assert summary(verdict)[0].endswith(".")


def test_every_table_of_scores_has_the_floors():
    verdict = samples.usual()
    for task in verdict.tasks:
        for make in (verdict_tables.scores, verdict_tables.details, verdict_tables.costs):
            assert sum(row[0].startswith("floor: majority") for row in make(verdict, task).rows) >= 1
    for shots in (8, 32):
        assert any(row[0].startswith("floor: majority") for row in verdict_tables.across(verdict, shots).rows)


def test_a_table_has_one_field_for_every_column():
    for verdict in (samples.usual(), samples.single_seed(), samples.nothing(), samples.hostile(HOSTILE)):
        for table in verdict_tables.every(verdict):
            assert {len(row) for row in table.rows} <= {len(table.columns)}


def test_intervals_of_shares_are_cut_to_what_a_share_can_be():
    verdict = samples.single_seed()
    high = replace(verdict.cells[0], score=Measured(0.97, 0.91, 1.03, "crossed"))
    verdict = replace(verdict, cells=(high, *verdict.cells[1:]))
    assert "[91.0,\u00a0100.0]" in verdict_tables.scores(verdict, "cola").rows[0][1]
    assert next(row for row in rows_of(verdict) if row["what"] == "score")["high"] == "1.0"
    assert verdict.to_json()["cells"][0]["score"]["high"] == 1.03


def test_an_interval_of_a_contrast_is_not_cut():
    verdict = samples.usual()
    wide = replace(verdict.contrasts[1], difference=Measured(0.2, -0.9, 1.3, n_seeds=5))
    verdict = replace(verdict, contrasts=(wide,))
    assert next(row for row in rows_of(verdict) if row["what"] == "contrast")["high"] == "1.3"


def test_the_csv_holds_bare_numbers_for_everything():
    verdict = samples.usual()
    found = rows_of(verdict)
    kinds = {row["what"] for row in found}
    assert {"score", "floor", "out of domain", "gap", "forgetting", "contrast", "missing"} <= kinds
    scores = [row for row in found if row["what"] == "score"]
    assert len(scores) == len(verdict.cells)
    lost = next(row for row in scores if (row["method"], row["task"], row["shots"]) == ("full", "reviews_2026", "128"))
    assert (lost["value"], lost["runs"], lost["runs_ok"]) == ("", "5", "0")
    cell = verdict.cell("lora", "cola", 8)
    kept = next(row for row in scores if (row["method"], row["task"], row["shots"]) == ("lora", "cola", "8"))
    assert float(kept["value"]) == cell.score.value
    assert float(kept["peak_bytes"]) == cell.spent.peak_bytes
    assert {row["claim"] for row in found if row["what"] == "contrast"} >= {"better", "undecided", "equivalent"}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@cmd"])
def test_a_spreadsheet_takes_no_name_for_a_formula(name):
    verdict = samples.single_seed()
    verdict = replace(verdict, cells=(replace(verdict.cells[0], method=name),))
    assert rows_of(verdict)[0]["method"] == f"'{name}"


def test_markdown_and_latex_have_one_table_each():
    verdict = samples.usual()
    made = list(verdict_tables.every(verdict))
    lines = table_files.as_markdown(made, "T").splitlines()
    assert sum(bool(re.fullmatch(r"\|(?:-+:?\|)+", line)) for line in lines) == len(made)
    latex = table_files.as_latex(made, "T")
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == len(made)
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    rows = [line for line in latex.splitlines() if line.endswith(r" \\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) >= 1 for row in rows)


def test_hans_stands_by_label_and_by_heuristic():
    (table,) = verdict_tables.parts(samples.usual())
    names = [column.name for column in table.columns]
    assert names[2:] == [
        *("label: entailment", "label: non-entailment"),
        *("heuristic: lexical_overlap", "heuristic: subsequence", "heuristic: constituent"),
    ]
    constant = next(row for row in table.rows if row[0] == "zero-shot")
    assert constant[2].startswith("100.0")
    assert constant[3].startswith("0.0")


def test_forgetting_has_a_column_where_it_was_measured():
    names = [column.name for column in verdict_tables.details(samples.usual(), "cola").columns]
    assert "Forgetting, nats per token" in names
    cells = tuple(replace(cell, forgetting=None) for cell in samples.usual().cells)
    bare = verdict_tables.details(replace(samples.usual(), cells=cells), "cola")
    assert "Forgetting, nats per token" not in [column.name for column in bare.columns]


def test_a_picture_of_score_against_cost_says_the_probability_in_words():
    verdict = samples.usual()
    front = verdict.fronts[0]
    drawn = verdict_figures.pareto(verdict, front, "front")
    for point in front.points:
        assert f"{point.method} " in drawn
        assert f"{100 * point.probability:.0f}\u00a0%" in drawn


def test_more_methods_than_shapes_get_a_picture_each():
    verdict = samples.usual()
    names = tuple(f"method-{i}" for i in range(8))
    cells = tuple(
        replace(samples.cell("lora", "cola", shots), method=name) for name in names for shots in verdict.shots
    )
    many = replace(verdict, methods=names, cells=cells, tasks=("cola",))
    drawn = verdict_figures.curves(many, "cola")
    assert len(drawn) == 2
    assert [sum(name in svg for name in names) for svg in drawn] == [6, 2]


def test_one_budget_has_no_learning_curve():
    assert verdict_figures.curves(samples.single_seed(), "cola") == ()


def test_all_labels_stand_to_the_right_of_the_largest_budget():
    verdict = samples.usual()
    cells = tuple(replace(cell, shots=0) if cell.shots == 8 else cell for cell in verdict.cells)
    whole = replace(verdict, shots=(0, 32, 128), cells=cells)
    (drawn,) = verdict_figures.curves(whole, "cola")
    at = {text: float(x) for x, text in re.findall(r'<text class="tick mid" x="([\d.]+)"[^>]*>([^<]+)<', drawn)}
    assert at["32"] < at["128"] < at["all"]
    assert verdict_tables.scores(whole, "cola").columns[1].name == "all labels"
    assert "with all labels" in render(whole)


def test_the_margin_is_a_band_and_the_kinds_have_their_shapes():
    verdict = samples.usual()
    group = [c for c in verdict.contrasts if (c.task, c.shots) == ("all", 32)]
    drawn = verdict_figures.forest(group, "f", "Contrasts")
    assert 'class="band"' in drawn
    assert drawn.count('class="open"') == sum(c.kind == "undecided" for c in group)
    assert drawn.count('class="known"') == sum(c.kind in ("better", "worse", "equivalent") for c in group)


def test_the_terminal_gets_a_page_at_most(capsys):
    lines = summary(samples.usual())
    assert len(lines) < 30
    assert any(comparison_page.PAGE in line for line in lines)
