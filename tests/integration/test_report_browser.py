"""The report page, of a real run and of the complete sample, opened in headless Chromium."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from edgekd.report.html import render
from tests.integration.browsing import DARK, browse, dom, measured

AXE = "axe-core@4"
SECTIONS_WITH_CHARTS = {"line": 1, "speed": 1, "latency": 3, "classes": 1, "training": 2}
# What is shown of the first network's tile, and helpers of the scripts below.
SHOWN = """
const seen = (query, within) => getComputedStyle(within.querySelector(query)).display !== "none";
const tile = document.querySelector('.strip figure[data-key="distilled"]');
const layers = () => ({map: seen(".map", tile), err: seen(".err", tile), won: seen(".won", tile), lost: seen(".lost", tile)});
const press = (key) =>
  document.querySelector("dialog .view").dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const chosen = () => document.querySelector("input[name=layer]:checked").value;
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the script of axe-core, from the npm registry."""
    folder = tmp_path_factory.mktemp("axe")
    if not shutil.which("npm"):
        pytest.skip("no npm on this machine to get axe-core with")
    try:
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--prefer-offline", AXE]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        pytest.skip(f"npm cannot get {AXE}: {str(exc.stderr or exc).strip().splitlines()[-1]}")
    return (
        (folder / "node_modules" / "axe-core" / "axe.min.js")
        .read_text(encoding="utf-8")
        .replace("</script", "<\\/script")
    )


@pytest.fixture(scope="module")
def sample_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the sample report of the unit tests, which has every part a page can have."""
    sample = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "report" / "sample_report.py"))
    folder = tmp_path_factory.mktemp("sample")
    data = sample["write_sample_data"](folder / "report_data", pictures=2)
    path = folder / "report.html"
    path.write_text(render(sample["sample_report"](), data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def sample(sample_page: Path) -> str:
    return sample_page.read_text(encoding="utf-8")


def assert_complete(document: str, networks: int, **fewer: int) -> None:
    """Every script ran without an error, every section has its charts, and every picture its tiles."""
    assert 'data-ready="true"' in document
    assert "data-script-error" not in document
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", document)
    for section, charts in {**SECTIONS_WITH_CHARTS, **fewer}.items():
        body = document.partition(f'<section id="{section}">')[2].partition("</section>")[0]
        assert body.count("<svg class=") == 2 * charts, section  # each for desktop and phone
    pictures = document.partition('<section id="pictures">')[2]
    assert pictures.count('<button class="zoom"') == 2 * (2 + networks)  # two pictures: image, truth and the networks


def test_the_page_of_a_run_has_all_charts_and_pictures_and_no_script_error(
    chromium: str, tiny_run: Path, tmp_path: Path
) -> None:
    document = dom(chromium, tmp_path, tiny_run / "report.html")
    listed = document.partition("<select")[2].partition("</select>")[0].count("<option")
    assert listed in (4, 5)  # teacher, two students, the engine to deploy, and the worst one where that is another
    assert_complete(document, networks=listed, training=1)  # nothing was validated


def test_the_page_of_the_sample_has_all_charts_and_pictures_and_no_script_error(
    chromium: str, sample_page: Path, tmp_path: Path
) -> None:
    document = dom(chromium, tmp_path, sample_page)
    assert_complete(document, networks=5)
    assert re.search(r'aria-label="mIoU against engine latency: [^"]*openvino-int8 62.6 % at 4.08 ms', document)


@pytest.mark.parametrize("colors", [(), (DARK,)], ids=["light", "dark"])
def test_on_a_desktop_decision_picture_and_strip_are_on_the_first_screen(
    chromium: str, sample: str, tmp_path: Path, colors: tuple[str, ...]
) -> None:
    script = """
    const isShown = (cell) => getComputedStyle(cell).display !== "none";
    const box = (query) => document.querySelector(query).getBoundingClientRect();
    return {content: document.documentElement.scrollWidth, headline: box("h1").bottom, command: box(".command").bottom,
      picture: [box(".compare").width, box(".compare").bottom], strip: box(".strip .stack").bottom,
      columns: [...document.querySelector("#results table").tHead.rows[0].cells].filter(isShown).length};
    """
    told = measured(chromium, tmp_path, sample, script, (1400, 900), *colors)
    assert told["content"] <= 1400
    assert told["headline"] < 250
    assert told["command"] < 600
    assert told["picture"][0] > 600
    assert told["picture"][1] < 900
    assert told["strip"] < 900
    assert told["columns"] == 8


@pytest.mark.parametrize("colors", [(), (DARK,)], ids=["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_phone_charts_show(
    chromium: str, sample: str, tmp_path: Path, colors: tuple[str, ...]
) -> None:
    script = """
    const shown = (css) => [...document.querySelectorAll(css)].filter((c) => c.getBoundingClientRect().width > 0).length;
    return {content: document.documentElement.scrollWidth, narrow: shown(".chart.narrow"), wide: shown(".chart.wide")};
    """
    told = measured(chromium, tmp_path, sample, script, (420, 900), *colors)
    assert told["content"] <= 420
    assert (told["narrow"], told["wide"]) == (sum(SECTIONS_WITH_CHARTS.values()), 0)


def test_the_switch_shows_prediction_error_or_difference_also_without_the_page_s_script(
    chromium: str, sample: str, tmp_path: Path
) -> None:
    script = (
        SHOWN
        + """
    const told = [layers()];
    for (const layer of ["error", "difference"]) { document.getElementById("layer-" + layer).click(); told.push(layers()); }
    return told;
    """
    )
    hidden = {"map": False, "err": False, "won": False, "lost": False}
    expected = [hidden | {"map": True}, hidden | {"err": True}, hidden | {"won": True, "lost": True}]
    assert measured(chromium, tmp_path, sample, script, (1400, 900)) == expected
    bare = re.sub(r"<script>.*?</script>", "", sample, flags=re.DOTALL)
    assert measured(chromium, tmp_path, bare, script, (1400, 900)) == expected


def test_the_second_switch_follows_and_the_network_to_compare_with_can_be_chosen(
    chromium: str, sample: str, tmp_path: Path
) -> None:
    script = (
        SHOWN
        + """
    document.getElementById("again-difference").click();
    const before = tile.querySelector(".difference").textContent;
    const select = document.querySelector("#pictures .base select");
    select.value = "teacher";
    select.dispatchEvent(new Event("change"));
    const after = tile.querySelector(".difference").textContent;
    const said = JSON.parse(tile.dataset.differences), first = document.querySelector("#deploy .base select").value;
    return {layer: chosen(), before, after, said, first};
    """
    )
    told = measured(chromium, tmp_path, sample, script, (1400, 900))
    assert (told["layer"], told["first"]) == ("difference", "teacher")
    assert told["before"] == told["said"]["student"]
    assert told["after"] == told["said"]["teacher"]
    assert told["before"] != told["after"]


def test_the_slider_moves_and_shows_the_chosen_networks(chromium: str, sample: str, tmp_path: Path) -> None:
    script = """
    const compare = document.querySelector(".compare"), range = compare.querySelector("input");
    range.value = 20;
    range.dispatchEvent(new Event("input"));
    const left = document.querySelector("[data-side=left]");
    left.value = "teacher";
    left.dispatchEvent(new Event("change"));
    const keys = [...compare.querySelectorAll(".stack")].map((stack) => stack.dataset.key);
    return {cut: getComputedStyle(compare.querySelector(".left")).clipPath, keys};
    """
    told = measured(chromium, tmp_path, sample, script, (1400, 900))
    assert re.fullmatch(r"inset\(0px calc\(80%\) 0px 0px\)|inset\(0px 80% 0px 0px\)", told["cut"])
    assert told["keys"] == ["openvino-int8", "teacher"]


def test_keys_and_swipes_walk_through_the_enlarged_pictures(chromium: str, sample: str, tmp_path: Path) -> None:
    script = (
        SHOWN
        + """
    const dialog = document.querySelector("dialog"), told = [];
    const isSecond = () => dialog.querySelector("p").textContent.includes("scene_001");
    const now = () => [dialog.querySelector(".stack").dataset.key, isSecond(), chosen()];
    const swipe = (from, to) => {
      const touch = (type, name, x) =>
        dialog.dispatchEvent(Object.assign(new Event(type), {[name]: [{clientX: x, clientY: 5}]}));
      touch("touchstart", "touches", from); touch("touchend", "changedTouches", to);
    };
    document.querySelector('.tiles[data-place="0"] figure[data-key="truth"] .zoom').click();
    told.push(dialog.open, document.activeElement.className, now());
    press("ArrowRight"); told.push(now());
    press("ArrowLeft"); press("ArrowLeft"); told.push(now());
    press("ArrowDown"); told.push(now());
    press("2"); told.push(now());
    swipe(300, 100); told.push(now());
    const wide = () => Math.round(dialog.querySelector(".stack").getBoundingClientRect().width);
    const before = wide(); press("+"); told.push(Math.round(wide() / before));
    press("ArrowRight"); told.push(now()[0]);  // a large picture scrolls instead
    return told;
    """
    )
    told = measured(chromium, tmp_path, sample, script, (1400, 900))
    assert told == [
        True,
        "view",
        ["truth", False, "prediction"],
        ["teacher", False, "prediction"],
        ["photo", False, "prediction"],
        ["photo", True, "prediction"],
        ["photo", True, "error"],
        ["truth", True, "error"],
        2,
        "truth",
    ]


@pytest.mark.parametrize("layer", ["prediction", "difference"])
@pytest.mark.parametrize("colors", [(), (DARK,)], ids=["light", "dark"])
def test_axe_finds_no_serious_fault(
    chromium: str, axe: str, sample: str, tmp_path: Path, colors: tuple[str, ...], layer: str
) -> None:
    script = f"""
    document.getElementById("layer-{layer}").click();
    const found = await axe.run(document, {{resultTypes: ["violations"]}});
    const said = found.violations.map((v) => [v.id, v.impact, v.nodes.map((n) => n.html.slice(0, 120))]);
    return {{rules: found.passes.length, violations: said}};
    """
    text = sample.replace("</body>", f"<script>{axe}</script></body>")
    told = measured(chromium, tmp_path, text, script, (1400, 900), "--virtual-time-budget=20000", *colors)
    assert told["rules"] > 10
    assert [fault for fault in told["violations"] if fault[1] in ("serious", "critical")] == []


@pytest.mark.parametrize("width", [1300, 420])
def test_the_page_draws_at_desktop_and_phone_width(chromium: str, tiny_run: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    browse(
        chromium, tmp_path, f"--window-size={width},2000", f"--screenshot={shot}", (tiny_run / "report.html").as_uri()
    )
    colors = Image.open(shot).convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    assert len(colors) > 100  # text, figures and pictures, not a blank page
