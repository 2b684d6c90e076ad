"""The same engine file on a board and here: scores within a limit, worked out by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.artifact import Artifact, StageResult, publish
from edgekd.core.stage import StageJob
from edgekd.errors import GateError
from edgekd.evaluate.agreement import run
from tests.unit.core.small_recipe import small_recipe


def made(folder: Path, name: str, details: dict[str, Any], files: dict[str, str]) -> Artifact:
    work = folder / "work"
    work.mkdir()
    for file, text in files.items():
        (work / file).write_text(text)
    facts: Any = {"kind": "metrics" if "metrics" in details else "engine", "stage": name, "key": "k", "inputs": {}}
    return publish(work, folder / name, facts, StageResult(details=details))


def agreement(folder: Path, there: float, here: float, file: str = "engine", **sections: Any) -> StageResult:
    """Return the result for two scores, and an engine on the board that holds `file`; here it holds `engine`."""
    inputs = {
        "evaluate/x@pi": made(folder, "evaluate/x@pi", {"metrics": {"miou": there}}, {}),
        "evaluate/x": made(folder, "evaluate/x", {"metrics": {"miou": here}}, {}),
        "engine/x@pi": made(
            folder, "engine/x@pi", {"engine": "e.onnx", "board": "pi"}, {"e.onnx": file, "log.txt": "there"}
        ),
        "engine/x": made(folder, "engine/x", {"engine": "e.onnx", "board": "local"}, {"e.onnx": "engine"}),
    }
    recipe = small_recipe(folder, **sections)
    return run(StageJob(recipe.only("parity"), inputs, folder, "x@pi"))


def test_the_difference_is_told_with_its_limit(tmp_path: Path) -> None:
    details = agreement(tmp_path, 0.412, 0.419).details
    assert details["difference"] == pytest.approx(0.007)
    assert (details["board"], details["here"], details["limit"]) == (0.412, 0.419, 0.01)
    assert details["text"] == "mIoU 0.4120 on board pi, 0.4190 here, difference 0.0070, limit 0.01"


@pytest.mark.parametrize(("there", "here"), [(0.40, 0.42), (0.42, 0.40)])
def test_a_larger_difference_is_refused_with_both_scores(tmp_path: Path, there: float, here: float) -> None:
    with pytest.raises(GateError, match=r"x@pi: mIoU .*, difference 0.0200, limit parity.board_score = 0.01; compare"):
        agreement(tmp_path, there, here)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    assert agreement(tmp_path, there, here, parity={"board_score": 0.021}).details["limit"] == 0.021


def test_engines_that_were_built_on_two_machines_have_no_limit(tmp_path: Path) -> None:
    details = agreement(tmp_path, 0.1, 0.9, file="another engine").details
    assert details["limit"] is None
    assert details["text"].endswith("difference 0.8000; no limit, because each was built on its own machine")
