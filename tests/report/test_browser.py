"""The report in a real browser: it fits a phone, logs nothing, asks for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
from chromium import chromium, needed, probed, require_fit, require_silence

from foretune.report.page import render

pytestmark = needed


def written(tmp_path: Path, sample: samples.Sample, probe: bool = False) -> str:
    """The page's address; with ``probe``, a script that measures it is let in by its hash."""
    html = render(sample.record, sample.plan, sample.predictions, sample.floors)
    if probe:
        html = probed(html)
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


SAMPLES = {
    "banking": samples.banking,
    "many": samples.many,
    "failed": samples.failed,
    "regression": samples.regression,
    "generation": samples.generation,
    "simplex": samples.simplex,
    "simplex of six": lambda: samples.simplex(6),
    "subset": lambda: samples.subset(shared=True, lazy=True),
    "hostile": lambda: samples.hostile("<script>document.title='owned'</script>" + "L" * 9000, "אבג\n" + "W" * 500),
}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_page_fits_its_window_and_asks_for_nothing(tmp_path, name, width):
    page = written(tmp_path, SAMPLES[name](), probe=True)
    require_fit(tmp_path, page, width)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_console_stays_silent_and_no_words_run(tmp_path, name):
    require_silence(tmp_path, written(tmp_path, SAMPLES[name]()))


@pytest.mark.parametrize("size", ["390,2400", "1280,2400"])
def test_a_screenshot_shows_ink_on_paper(tmp_path, size):
    shot = tmp_path / "shot.png"
    chromium(tmp_path, f"--window-size={size}", f"--screenshot={shot}", written(tmp_path, samples.banking()))
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 50_000
