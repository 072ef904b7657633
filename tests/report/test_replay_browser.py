"""The page of a replay in a real browser: it fits a phone and a desk, logs nothing, asks for nothing."""

from __future__ import annotations

import pytest
from chromium import needed, probed, require_fit, require_silence

from foretune.comparison.replay.run import run_replay
from foretune.report import replay_tables
from foretune.store.metadataset import metadataset
from foretune.testing.recommender_contract import toy_collection

pytestmark = needed


@pytest.fixture(scope="module")
def html() -> str:
    hostile = "<script>document.title='owned'</script>" + "W" * 200
    runs = metadataset([toy_collection(repeats=2)])
    done = run_replay(runs, collection=hostile, recommenders=["random", "portfolio"], default={"lr": 1e-4}, seeds=1)
    return replay_tables.render(done)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_unfolded_page_of_a_replay_fits_its_window(tmp_path, html, width):
    page = tmp_path / "replay.html"
    page.write_text(probed(html.replace("<details>", "<details open>")), encoding="utf-8")
    require_fit(tmp_path, page.as_uri(), width)


def test_the_page_of_a_replay_is_silent_and_its_text_has_room(tmp_path, html):
    page = tmp_path / "replay.html"
    page.write_text(html, encoding="utf-8")
    require_silence(tmp_path, page.as_uri())
    assert html.index("<nav") < html.index("<main>"), "the two columns of a wide window are the contents and the text"
