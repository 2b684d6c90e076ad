"""A release opens as its manifest says, and one that contradicts itself is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekd.board.detection import Selection
from edgekd.errors import BundleError, TargetError
from edgekd.runner.engine import open_engine
from tests.small_release import HEIGHT, WIDTH, striped, write_color_release


def test_a_release_gives_the_class_map_of_an_image_and_the_times_of_its_stages(tmp_path: Path) -> None:
    with open_engine(write_color_release(tmp_path / "one")) as engine:
        timed = engine.predictor.timed(striped(100, 200))
    expected = np.repeat([0, 1, 2], [100, 200, HEIGHT * WIDTH - 300]).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(timed.result, expected)
    assert all(0 < value < 60_000 for value in timed.milliseconds)
    assert engine.selection == Selection(min_score=0.3)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"target": "../x"}, BundleError, "manifest.json"),
        ({"target": "base"}, BundleError, "this bundle has no code for target 'base'"),
        ({"target": "absent"}, BundleError, "this bundle has no code for target 'absent'"),
        ({"module": "json"}, BundleError, "this bundle has no code for target 'onnxruntime'"),
        ({"task": "detection"}, BundleError, "task semantic, but the manifest says detection"),
        ({"engine": "engine/absent.onnx"}, BundleError, "engine/absent.onnx: no such file"),
        ({"options": {"threads": 1}}, TargetError, r"unknown options \['threads'\]"),
        ({"options": {"intra_op_threads": -1}}, BundleError, "intra_op_threads: expected"),
    ],
)
def test_a_release_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, object], error: type[Exception], says: str
) -> None:
    folder = write_color_release(tmp_path / "one")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(error, match=says) as failed, open_engine(folder):
        pass
    assert "\n" not in str(failed.value)
