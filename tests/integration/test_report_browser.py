"""The report page, of a real run and of the complete sample, opened in headless Chromium."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from edgekd.report.html import render

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=4000",
]


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine")


SECTIONS_WITH_CHARTS = {"line": 1, "speed": 1, "latency": 3, "classes": 1, "training": 2}
# Appended to a copy of the page, which is shown in a frame of a phone's width and tells the page around it what it measures.
PROBE = """<script>addEventListener("load", () => parent.postMessage({
  inner: innerWidth, content: document.documentElement.scrollWidth,
  narrow: [...document.querySelectorAll(".chart.narrow")].filter((c) => c.getBoundingClientRect().width > 0).length,
  wide: [...document.querySelectorAll(".chart.wide")].filter((c) => c.getBoundingClientRect().width > 0).length,
}, "*"));</script>"""
FRAME = """<iframe src="page.html" width="400" height="900" style="border:0"></iframe><pre id="told"></pre>
<script>addEventListener("message", (m) => { document.getElementById("told").textContent = JSON.stringify(m.data); });</script>"""


@pytest.fixture(scope="module")
def sample_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the sample report of the unit tests, which has every part a page can have."""
    sample = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "report" / "sample_report.py"))
    folder = tmp_path_factory.mktemp("sample")
    data = sample["write_sample_data"](folder / "report_data", pictures=2)
    path = folder / "report.html"
    path.write_text(render(sample["sample_report"](), data), encoding="utf-8")
    return path


def browse(chromium: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def dom(chromium: str, tmp_path: Path, page: Path) -> str:
    """Return the document after its scripts ran."""
    done = browse(chromium, tmp_path, "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri())
    assert done.returncode == 0, done.stderr
    assert "Uncaught" not in done.stderr
    assert "Content Security Policy" not in done.stderr  # nothing was asked for that the page forbids itself
    return done.stdout


def assert_complete(document: str, networks: int, **fewer: int) -> None:
    """Every script ran without an error, every section has its charts, and every picture its tiles."""
    assert 'data-ready="true"' in document
    assert "data-script-error" not in document
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", document)
    for section, charts in {**SECTIONS_WITH_CHARTS, **fewer}.items():
        body = document.partition(f'<section id="{section}">')[2].partition("</section>")[0]
        assert body.count("<svg") == 2 * charts, section  # each for desktop and phone
    assert document.count('<button class="zoom"') == 2 * (2 + networks)  # two pictures: image, truth and the networks


def test_the_page_of_a_run_has_all_charts_and_pictures_and_no_script_error(
    chromium: str, tiny_run: Path, tmp_path: Path
) -> None:
    assert_complete(dom(chromium, tmp_path, tiny_run / "report.html"), networks=4, training=1)  # nothing was validated


def test_the_page_of_the_sample_has_all_charts_and_pictures_and_no_script_error(
    chromium: str, sample_page: Path, tmp_path: Path
) -> None:
    document = dom(chromium, tmp_path, sample_page)
    assert_complete(document, networks=4)
    assert re.search(r'aria-label="mIoU against engine latency: [^"]*openvino int8 62.6 % at 4.08 ms', document)


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_phone_charts_show(
    chromium: str, sample_page: Path, tmp_path: Path
) -> None:
    html = sample_page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME, encoding="utf-8")
    done = browse(chromium, tmp_path, "--dump-dom", (tmp_path / "frame.html").as_uri())
    told = json.loads(done.stdout.partition('<pre id="told">')[2].partition("</pre>")[0])
    assert told["inner"] == 400
    assert told["content"] <= 400
    assert told["wide"] == 0
    assert told["narrow"] == sum(SECTIONS_WITH_CHARTS.values())


@pytest.mark.parametrize("width", [1300, 400])
def test_the_page_draws_at_desktop_and_phone_width(chromium: str, tiny_run: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    browse(
        chromium, tmp_path, f"--window-size={width},2000", f"--screenshot={shot}", (tiny_run / "report.html").as_uri()
    )
    colors = Image.open(shot).convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    assert len(colors) > 100  # text, figures and pictures, not a blank page
