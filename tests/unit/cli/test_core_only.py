"""What works where only the core is installed: `edgekd report`; other commands say what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.cli.report import report
from edgekd.core.artifact import StageResult, publish
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
sys.argv = ["edgekd", *sys.argv[1:]]
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


def core_only(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as where no extra is installed."""
    command = [sys.executable, "-c", CORE_ONLY.format(extras=EXTRAS), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [("check", "quickstart"), ("predict", "TEACHER", "docs/street.png")])
def test_what_needs_an_extra_says_what_is_missing(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "work").mkdir()
    publish(
        tmp_path / "work", tmp_path / "teacher", {"kind": "checkpoint", "stage": "teacher", "key": "k"}, StageResult()
    )
    done = core_only(*(str(tmp_path / "teacher") if word == "TEACHER" else word for word in arguments))
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "edgekd: this command needs the package 'torch', which is not installed; "
        "`edgekd doctor` says what is missing and the command that installs it\n"
    )


def test_the_table_is_printed_where_only_the_core_is_installed(run: Path) -> None:
    done = core_only("report", str(run))
    assert done.returncode == 0, done.stderr
    assert "teacher" in done.stdout
    assert done.stderr == (
        "edgekd: the page is not written: the page needs jinja2, which is not installed; pip install -e '.[report]'\n"
    )
    assert not (run / "report.html").exists()


def test_the_table_is_printed_where_the_page_cannot_be_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.html").mkdir()  # a file system refuses it as it refuses a folder without permission
    report(run)
    said = capsys.readouterr()
    assert "teacher" in said.out
    assert "report:" not in said.out
    assert said.err.splitlines() == [
        f"edgekd: the page is not written: {run}/report.html: is a folder, expected a file; move it away, or give "
        "another path"
    ]


def test_compare_and_gate_need_only_the_core(run: Path) -> None:
    compared = core_only("compare", str(run), str(run))
    assert compared.returncode == 0, compared.stderr
    assert "B against A" in compared.stdout
    limits = run / "limits.yaml"
    limits.write_text("schema: edgekd.limits/1\nlimits: [{row: teacher, figure: miou, min: 0.1}]\n")
    held = core_only("gate", str(run), "--limits", str(limits))
    assert held.returncode == 0, held.stdout + held.stderr
