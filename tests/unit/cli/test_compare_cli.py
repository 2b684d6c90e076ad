"""`edgekd compare` and `edgekd gate` as commands: exit codes, what goes where, and the files that they write."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgekd.comparison.gate import GateResult
from edgekd.comparison.model import Comparison
from edgekd.study.compared import StudyComparison
from tests import command
from tests.unit.comparison.made_run import changed, report, write
from tests.unit.study.test_compared import study

LIMITS = "schema: edgekd.limits/1\nlimits:\n  - {row: '*-int8', figure: miou, min: 0.8}\n"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a folder with a run `a`, and `b`, whose int8 engine is worse."""
    write(tmp_path / "a", report())
    write(tmp_path / "b", changed(report(), "openvino-int8", sha256="other"), openvino_int8=6)
    (tmp_path / "limits.yaml").write_text(LIMITS)
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command.edgekd(*arguments, cwd=folder)


def test_compare_prints_a_table_or_json_and_writes_a_page(runs: Path) -> None:
    done = run(runs, "compare", "a", "b/report.json", "--out", "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:4] == ["A: a  (made)", "B: b/report.json  (made)", "", "B against A"]
    assert "  changed: nothing in recipe, versions and machine" in done.stdout
    assert done.stdout.splitlines()[-1] == "page: page.html"
    assert (runs / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    printed = json.loads(run(runs, "compare", "a", "b", "--json").stdout)
    verdicts = {
        row["id"]: next(f["verdict"] for f in row["figures"] if f["figure"] == "miou")
        for row in printed["pairs"][0]["rows"]
    }
    assert verdicts == {"student": "same", "openvino-fp32": "same", "openvino-int8": "worse"}
    assert Comparison.model_validate(printed).to_dict() == printed


def test_compare_takes_studies_and_prints_a_table_or_json(tmp_path: Path) -> None:
    for name, gain in (("a", 0.0), ("b", 0.1)):
        study(tmp_path / name, {"plain": {seed: 0.5 + 0.01 * seed + gain for seed in range(3)}})
    done = run(tmp_path, "compare", "a", "b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:4] == ["A: a  (small)", "B: b  (small)", "", "B against A"]
    assert done.stdout.splitlines()[-1].split() == [
        "plain",
        "mIoU",
        "%",
        "51.0",
        "61.0",
        "+10.0",
        "[+10.0,",
        "+10.0]",
        "3",
        "better",
    ]
    printed = json.loads(run(tmp_path, "compare", "a", "b", "--json").stdout)
    assert StudyComparison.model_validate(printed).to_dict() == printed
    refused = run(tmp_path, "compare", "a", "b", "--out", "page.html")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "a comparison of studies has no page" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "a"), "expected 2 to 26 runs to compare, got 1"),
        (("compare", "a", "nowhere"), "nowhere: no such file"),
        (("gate", "b"), "give --limits FILE, --baseline REPORT, or both"),
        (("gate", "b", "--limits", "nowhere.yaml"), "nowhere.yaml: no such file; expected a file of limits"),
        (("gate", "b", "--baseline", "limits.yaml"), "limits.yaml: not a readable limits.yaml"),
        (("gate", "b", "--limits", "limits.yaml", "--junit", "a"), "a: is a folder, expected a file"),
    ],
)
def test_wrong_input_is_exit_code_2_and_one_line(runs: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(runs, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line


def test_gate_has_a_line_for_each_limit_and_its_exit_code(runs: Path) -> None:
    held = run(runs, "gate", "a", "--limits", "limits.yaml")
    assert (held.returncode, held.stderr) == (0, "")
    assert held.stdout == "passed: openvino-int8: mIoU at least 80.0 %: 100.0 %\n"
    broken = run(runs, "gate", "b", "--limits", "limits.yaml")
    assert (broken.returncode, broken.stderr) == (1, "edgekd: 1 of 1 limits are broken\n")
    assert broken.stdout == "broken: openvino-int8: mIoU at least 80.0 %: 77.5 %\n"


def test_gate_holds_a_run_to_its_baseline(runs: Path) -> None:
    assert run(runs, "gate", "a", "--baseline", "a").returncode == 0
    done = run(runs, "gate", "b", "--baseline", "a")
    assert done.returncode == 1
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken: ")]
    assert broken == ["broken: openvino-int8: mIoU at most 1.0 points worse than baseline: 22.5 points worse"]


def test_gate_writes_its_files_also_when_a_limit_is_broken(runs: Path) -> None:
    done = run(
        runs, "gate", "b", "--limits", "limits.yaml", "--junit", "ci/gate.xml", "--markdown", "ci/gate.md", "--json"
    )
    assert done.returncode == 1
    assert ElementTree.parse(runs / "ci/gate.xml").getroot().get("failures") == "1"
    assert "| ❌ broken | `openvino-int8` | mIoU at least 80.0 % | 77.5 % |" in (runs / "ci/gate.md").read_text()
    printed = json.loads(done.stdout)
    assert [one["outcome"] for one in printed["checks"]] == ["broken"]
    assert GateResult.model_validate(printed).to_dict() == printed


def test_control_characters_of_a_report_do_not_reach_the_terminal(runs: Path) -> None:
    content = report(title="\x1b[2Jgone")
    content["rows"][-1]["id"] = "\x1b]0;title\x07int8"
    write(runs / "c", content)
    for arguments in (("compare", "a", "c"), ("gate", "c", "--baseline", "c")):
        done = run(runs, *arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
