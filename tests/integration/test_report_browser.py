"""The report of a real run, opened in headless Chromium without a network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

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


def browse(chromium: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_page_opens_offline_with_figures_pictures_and_no_script_error(
    chromium: str, tiny_run: Path, tmp_path: Path
) -> None:
    arguments = ("--enable-logging=stderr", "--v=0", "--dump-dom", (tiny_run / "report.html").as_uri())
    done = browse(chromium, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "Uncaught" not in done.stderr
    assert done.stdout.count("<svg") >= 5
    assert done.stdout.count("<img") >= 2 * 5  # two pictures: image, truth and the networks
    assert "ERR_" not in done.stdout


@pytest.mark.parametrize("width", [1300, 400])
def test_the_page_draws_at_desktop_and_phone_width(chromium: str, tiny_run: Path, tmp_path: Path, width: int) -> None:
    shot = tmp_path / "shot.png"
    browse(
        chromium, tmp_path, f"--window-size={width},2000", f"--screenshot={shot}", (tiny_run / "report.html").as_uri()
    )
    colors = Image.open(shot).convert("RGB").getcolors(maxcolors=1 << 24)
    assert colors is not None
    assert len(colors) > 100  # text, figures and pictures, not a blank page
