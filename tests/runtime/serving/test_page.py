"""The page of the server in a browser: a dropped picture, and a file that is none."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

from runtime.serving.page import PAGE, PAGE_HEADERS
from tests.runtime.bundle.bundles import LABELS, small_bundle
from tests.runtime.inference.test_images import picture, png
from tests.runtime.serving.server import served
from tests.runtime.serving.test_serve import needs_serve

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HAS_BROWSER = BROWSER is not None and importlib.util.find_spec("playwright") is not None
_DROP = """
async ([bytes, name]) => {
  const file = new File([new Uint8Array(bytes)], name);
  const transfer = new DataTransfer();
  transfer.items.add(file);
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}
"""


def test_the_page_loads_nothing_from_elsewhere() -> None:
    assert "http" not in PAGE
    assert "innerHTML" not in PAGE
    assert "default-src 'none'" in PAGE_HEADERS["Content-Security-Policy"]


@needs_serve
@pytest.mark.slow
@pytest.mark.skipif(not HAS_BROWSER, reason="no Chromium, or playwright is not installed")
def test_a_picture_that_is_dropped_on_the_page(tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    bundle = small_bundle(tmp_path).write(tmp_path / "b.verydeep")
    with served("--model", str(bundle)) as client, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(client.address)
        page.evaluate(_DROP, [list(png(picture(3, 120, 160))), "leaf.png"])
        rows = page.locator("#result tr")
        expect(rows).to_have_count(5)
        labels = [text.strip() for text in rows.locator("td.label").all_text_contents()]
        assert sorted(labels) == sorted(LABELS)
        values = [float(text.split()[0]) for text in page.locator("td.number").all_text_contents()]
        assert values == sorted(values, reverse=True)
        assert np.isclose(sum(values), 100, atol=0.5)
        page.screenshot(path=tmp_path / "page.png")
        # The other way: choose a file. This one is no picture.
        page.set_input_files(
            "#file", {"name": "a.gif", "mimeType": "image/gif", "buffer": b"GIF89a"}
        )
        expect(page.locator("#error")).to_contain_text("does not decode")
        expect(rows).to_have_count(0)
        browser.close()
    assert problems == []
