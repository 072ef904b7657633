"""A real browser for the tests of pages: what it prints, and what a page measures of itself in a window."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

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

needed = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


def chromium(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, errors="replace")


def probed(html: str) -> str:
    """The page with a script that measures it, let in by its hash."""
    allowed = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    html = html.replace("default-src 'none'", f"default-src 'none'; script-src 'sha256-{allowed}'", 1)
    return html.replace("</head>", f"<script>{PROBE}</script></head>", 1)


def require_fit(tmp_path: Path, page: str, width: int) -> None:
    """The probed ``page`` fits a window of ``width``, nothing in it is wider, and it asks for nothing.

    Headless windows are at least 500 wide, so a phone is a frame: of the page's own width, in a page of our own.
    """
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


def require_silence(tmp_path: Path, page: str) -> None:
    """The ``page`` logs nothing, and no word of its data runs."""
    found = chromium(tmp_path, "--dump-dom", page)
    assert "CONSOLE" not in found.stderr
    assert re.findall(r"<title>(.*?)</title>", found.stdout, re.S)[0] != "owned"
    assert "<script" not in found.stdout
