"""`edgekd report` prints its table wherever report.json can be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.cli.report import report
from edgekd.report.collect import write_report
from tests.conftest import REPOSITORY
from tests.unit.report.sample_report import sample_report

# What `pip install .` without an extra brings, and what that brings in turn is not known here: all else is refused.
CORE_ONLY = """
import sys

class OnlyTheCore:
    extras = {extras!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.extras:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, OnlyTheCore())
from edgekd.cli.main import main
sys.argv = ["edgekd", "report", sys.argv[1]]
main()
"""
EXTRAS = (
    "torch", "torchvision", "lightning", "timm", "segmentation_models_pytorch", "safetensors", "tensorboard", "onnx", "onnxsim",
    "onnxscript", "onnxruntime", "cv2", "faster_coco_eval", "sympy", "openvino", "nncf", "tensorrt_rtx", "tensorrt", "jinja2",
    "matplotlib", "scipy",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run with a report and no page."""
    write_report(sample_report(), tmp_path)
    return tmp_path


def test_the_table_is_printed_where_only_the_core_is_installed(run: Path) -> None:
    command = [sys.executable, "-c", CORE_ONLY.format(extras=EXTRAS), str(run)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "teacher" in done.stdout
    assert done.stderr == (
        "edgekd: the page is not written: the report page needs jinja2, which is not installed; pip install -e '.[report]'\n"
    )
    assert not (run / "report.html").exists()


def test_the_table_is_printed_where_the_page_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").mkdir()  # a file system refuses it as it refuses a folder without permission
    report(run)
    said = capsys.readouterr()
    assert "teacher" in said.out
    assert "report:" not in said.out
    assert said.err.splitlines() == [
        f"edgekd: the page is not written: {run}/report.html: Is a directory; finished stages are kept: make room or allow "
        "writing, and run the same command again"
    ]
