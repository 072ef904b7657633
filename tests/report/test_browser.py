"""The report in a real browser: it fits a phone, logs nothing, asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import samples

from foretune.report.page import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
PROBE = """
addEventListener("load", () => {
  const root = document.documentElement, wide = [];
  for (const e of document.querySelectorAll("main *")) {
    const over = e.getBoundingClientRect().right > root.clientWidth + 1;
    if (over && e.closest(".scroll, pre") === null) wide.push(e.tagName);
  }
  const asked = performance.getEntriesByType("resource").map(r => r.name);
  root.dataset.probe = [innerWidth, root.scrollWidth, wide.join("+") || "none", asked.join("+") || "none"].join(" ");
});
"""

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, errors="replace")


def written(tmp_path: Path, sample: samples.Sample, probe: bool = False) -> str:
    """The page's address; with ``probe``, a script that measures it is let in by its hash."""
    html = render(sample.record, sample.plan, sample.predictions, sample.floors)
    if probe:
        allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
        html = html.replace("default-src 'none'", f"default-src 'none'; script-src 'sha256-{allowed}'", 1)
        html = html.replace("</head>", f"<script>{PROBE}</script></head>", 1)
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
    # Headless windows are at least 500 wide, so a phone is a frame: of the page's own width, in a page of our own.
    page = written(tmp_path, SAMPLES[name](), probe=True)
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
    assert int(scrolled) <= width
    assert (wide, asked) == ("none", "none")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_console_stays_silent_and_no_words_run(tmp_path, name):
    found = chromium(tmp_path, "--dump-dom", written(tmp_path, SAMPLES[name]()))
    assert "CONSOLE" not in found.stderr
    assert re.findall(r"<title>(.*?)</title>", found.stdout, re.S)[0] != "owned"
    assert "<script" not in found.stdout


@pytest.mark.parametrize("size", ["390,2400", "1280,2400"])
def test_a_screenshot_shows_ink_on_paper(tmp_path, size):
    shot = tmp_path / "shot.png"
    chromium(tmp_path, f"--window-size={size}", f"--screenshot={shot}", written(tmp_path, samples.banking()))
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 50_000
