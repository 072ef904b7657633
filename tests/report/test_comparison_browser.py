"""The page of a comparison in a real browser: it fits a phone, logs nothing, asks for nothing, follows the dark."""

from __future__ import annotations

import pytest
import verdict_samples as samples
from chromium import chromium, needed, probed, require_fit, require_silence

from foretune.report.comparison_page import render

pytestmark = needed

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
        html = probed(html)
    path = tmp_path / "comparison.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", VERDICTS)
def test_the_unfolded_page_fits_its_window_and_asks_for_nothing(tmp_path, name, width):
    page = written(tmp_path, VERDICTS[name](), probe=True, unfolded=True)
    require_fit(tmp_path, page, width)


@pytest.mark.parametrize("name", VERDICTS)
def test_the_console_stays_silent_and_no_words_run(tmp_path, name):
    require_silence(tmp_path, written(tmp_path, VERDICTS[name]()))


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
