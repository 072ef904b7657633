"""The page of a comparison in a real browser: it fits a phone, logs nothing, asks for nothing, follows the dark."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest
import verdict_samples as samples
from test_browser import CHROMIUM, PROBE, chromium

from foretune.report.comparison_page import render

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

VERDICTS = {
    "usual": samples.usual,
    "single seed": samples.single_seed,
    "nothing": samples.nothing,
    "hostile": lambda: samples.hostile("<script>document.title='owned'</script>" + "W" * 300),
}


def written(tmp_path, verdict, probe: bool = False, unfolded: bool = False) -> str:
    html = render(verdict)
    if unfolded:
        html = html.replace("<details>", "<details open>")
    if probe:
        allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
        html = html.replace("default-src 'none'", f"default-src 'none'; script-src 'sha256-{allowed}'", 1)
        html = html.replace("</head>", f"<script>{PROBE}</script></head>", 1)
    path = tmp_path / "comparison.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", VERDICTS)
def test_the_unfolded_page_fits_its_window_and_asks_for_nothing(tmp_path, name, width):
    page = written(tmp_path, VERDICTS[name](), probe=True, unfolded=True)
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<!doctype html><iframe id=f src="{page}" width={width} height=800 style="border:0"></iframe>'
        "<script>f.onload = () => setTimeout(() => { document.title = "
        "f.contentDocument.documentElement.dataset.probe; }, 50)</script>",
        encoding="utf-8",
    )
    found = chromium(
        tmp_path,
        f"--window-size={max(width, 800)},900",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        "--dump-dom",
        frame.as_uri(),
    )
    measured = re.search(r"<title>(.*?)</title>", found.stdout)
    assert measured, found.stderr
    inner, scrolled, wide, asked = measured.group(1).split()
    assert int(inner) == width
    assert (wide, asked) == ("none", "none")
    assert int(scrolled) <= width


@pytest.mark.parametrize("name", VERDICTS)
def test_the_console_stays_silent_and_no_words_run(tmp_path, name):
    found = chromium(tmp_path, "--dump-dom", written(tmp_path, VERDICTS[name]()))
    assert "CONSOLE" not in found.stderr
    assert re.findall(r"<title>(.*?)</title>", found.stdout, re.S)[0] != "owned"
    assert "<script" not in found.stdout


def test_light_and_dark_are_two_pictures(tmp_path):
    page, shots = written(tmp_path, samples.usual()), []
    for scheme in (0, 1):
        shot = tmp_path / f"{scheme}.png"
        chromium(
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=1280,2400",
            f"--screenshot={shot}",
            page,
        )
        shots.append(shot.read_bytes())
    assert all(shot.startswith(b"\x89PNG") and len(shot) > 50_000 for shot in shots)
    assert shots[0] != shots[1]


def test_what_is_folded_stands_on_paper(tmp_path):
    pdf = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={pdf}", written(tmp_path, samples.single_seed()))
    folded = pdf.stat().st_size
    chromium(tmp_path, f"--print-to-pdf={pdf}", written(tmp_path, samples.single_seed(), unfolded=True))
    assert folded > 0.8 * pdf.stat().st_size
