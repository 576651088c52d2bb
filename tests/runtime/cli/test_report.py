"""`verydeep report`: the page and the Markdown of a run, opened in a browser where there is one."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.cli.main import main
from runtime.job.report_page import Picture, Section, Table, write_html, write_markdown
from runtime.logs.glog import close_logging
from tests.runtime.serving.test_page import BROWSER, HAS_BROWSER

NET = """
name: "small <net>"
layer { name: "data" type: "ImageData" top: "data" top: "label"
  transform_param { mean_value: [100, 110, 120] }
  image_data_param { source: "list.txt" batch_size: 6 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv1" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 1e-6 lr_policy: "fixed" max_iter: 4 display: 1
test_iter: 3 test_interval: 2 snapshot_prefix: "run/snap" random_seed: 1
"""
LABELS = ("<b>apple</b>", "pear | fig", "$plum$")


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    Path("labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    lines = []
    for number in range(14):
        pixels = np.random.default_rng(number).integers(0, 256, (10, 12, 3), np.uint8)
        cv2.imwrite(f"{number}.png", pixels)
        lines.append(f"{number}.png {number % 3}\n")
    Path("list.txt").write_text("".join(lines))
    yield
    close_logging()


def trained() -> None:
    assert main(["train", "--solver", "solver.prototxt"]) == 0


def report(*words: str) -> int:
    return main(["report", "solver.prototxt", "--labels", "labels.txt", *words])


def test_the_page_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    capsys.readouterr()
    assert report("--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 14
    page = Path("report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Result",
        "Learning curve",
        "Classes",
        "Most confident mistakes",
        "Filters of the first layer",
        "Time of each layer",
        "Data and settings",
        "Commands",
    ]
    assert f"{100 * result['top1_error']:.2f} %" in page
    assert page.count("data:image/png;base64,") == 4
    # It loads nothing, and names are text.
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<b>apple" not in page
    assert html.escape(LABELS[0]) in page
    for words in (
        "100, 110, 120",
        "list.txt",
        "<td>1e-06</td>",
        "--eval-only --weights run/snap_iter_4.caffemodel",
    ):
        assert words in page
    markdown = Path("report.md").read_text()
    for name in re.findall(r"\]\((.*?)\)", markdown):
        assert cv2.imread(name) is not None
    assert "pear \\| fig" in markdown


def test_the_errors_are_those_of_the_test(capsys: pytest.CaptureFixture[str]) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("test_iter: 3", "test_iter: 2"))
    trained()
    capsys.readouterr()
    weights = ["--weights", "run/snap_iter_4.caffemodel"]
    assert main(["train", "--solver", "solver.prototxt", "--eval-only", *weights, "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["test"]["accuracy"]
    assert report("--json", *weights) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 12
    assert result["top1_error"] == pytest.approx(1 - accuracy)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no complete snapshot of snapshot_prefix 'run/snap'"),
        (["--out", "x.pdf"], "expected a name that ends in .html"),
        (["--weights", "absent.caffemodel"], "absent.caffemodel"),
    ],
)
def test_a_run_that_cannot_be_reported(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(*words) == 2
    assert message in capsys.readouterr().err
    assert not Path("report.html").exists()


def test_a_solver_without_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    trained()
    text = SOLVER.replace("test_iter: 3 test_interval: 2", "")
    Path("solver.prototxt").write_text(text)
    assert report() == 2
    assert "no test_iter; expected a solver with a test net" in capsys.readouterr().err


def test_text_and_numbers_of_a_page() -> None:
    items = [Table(("a*b", "n"), [("x_y", 2.0), ("<i>", 0.123456)]), "1 < 2"]
    write_html("t & u", [Section("s", items)], Path("p.html"))
    page = Path("p.html").read_text()
    assert "<title>t &amp; u</title>" in page
    assert '<td>x_y</td><td class="number">2</td>' in page
    assert '<td>&lt;i&gt;</td><td class="number">0.1235</td>' in page
    assert "<p>1 &lt; 2</p>" in page
    picture = Picture("dot", bytes(cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1]), "a dot")
    files = write_markdown("t", [Section("s", [*items, picture])], Path("p.md"))
    assert [path.name for path in files] == ["p.md", "dot.png"]
    assert "| x\\_y | 2 |" in Path("p.md").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BROWSER, reason="no Chromium, or playwright is not installed")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    trained()
    assert report() == 0
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.goto((tmp_path / "report.html").as_uri())
        assert page.locator("h2").count() == 8
        sizes = page.eval_on_selector_all("img", "all => all.map(image => image.naturalWidth)")
        assert len(sizes) == 4
        assert min(sizes) > 10
        page.screenshot(path=tmp_path / "shot.png", full_page=True)
        browser.close()
    assert problems == []
