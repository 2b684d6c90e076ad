"""Taps as a job of this process: tensors by name, one image at a time, and answers that cannot be trusted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.core import plugins
from edgekd.errors import ArtifactError, BoardAnswerError, TargetError
from edgekd.executors.inference import EngineFiles
from edgekd.executors.local import Local
from edgekd.executors.tapping import tap_engine
from tests.small_nets import images, prepared, segmenter

TENSORS = {"stem.relu.out": (1, 8, 16, 24), "not.there": (1,), "head.out": (1, 3, 16, 24)}


@pytest.fixture
def engine(tmp_path: Path) -> EngineFiles:
    net, spec = segmenter()
    onnx.save(net, tmp_path / "engine.onnx")
    options = plugins.target("onnxruntime").options()
    return EngineFiles("onnxruntime", "engine.onnx", {"engine.onnx": tmp_path / "engine.onnx"}, spec, options)


def test_outputs_and_inner_tensors_come_back_by_name_for_each_image(engine: EngineFiles) -> None:
    inputs = [prepared(engine.spec, image) for image in images(2)]
    with tap_engine(engine, inputs, TENSORS, Local()) as run:
        assert run.tensors == ("stem.relu.out", "head.out")
        found = list(run)
    assert len(found) == 2
    assert not np.array_equal(found[0][0]["logits"], found[1][0]["logits"])
    for outputs, tensors in found:
        assert outputs["logits"].shape == (1, 3, 32, 48)
        assert {name: values.shape for name, values in tensors.items()} == {
            name: TENSORS[name] for name in ("stem.relu.out", "head.out")
        }
        assert tensors["stem.relu.out"].min() == 0  # behind the ReLU


class Board(Local):
    """An executor whose machine answers with something else."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def run_job(self, job: Any, files: Any, out_dir: Path, log: Any, progress: Any = None) -> Any:
        value = super().run_job(job, files, out_dir, log)
        return self.change(value, out_dir)


def test_an_answer_of_another_machine_that_is_not_what_was_asked_for_is_refused(engine: EngineFiles) -> None:
    inputs = [prepared(engine.spec, images(1)[0])]

    def no_files(value: Any, out: Path) -> Any:
        return {**value, "outputs": []}

    def too_large(value: Any, out: Path) -> Any:
        np.savez(out / value["outputs"][0], output0=np.zeros(1 << 20))
        return value

    def lacking(value: Any, out: Path) -> Any:
        np.savez(out / value["outputs"][0], output0=np.zeros(1))
        return value

    with (
        pytest.raises(BoardAnswerError, match="outputs: expected 1"),
        tap_engine(engine, inputs, TENSORS, Board(no_files)),
    ):
        pass
    for change, words in ((too_large, "larger than"), (lacking, "tensor0")):
        with tap_engine(engine, inputs, TENSORS, Board(change)) as run, pytest.raises(ArtifactError, match=words):
            list(run)


def test_a_target_without_taps_says_so(engine: EngineFiles) -> None:
    other = replace(engine, target="rknn", options=plugins.target("rknn").options())
    with pytest.raises(TargetError, match="shows no inner tensors"), tap_engine(other, [], TENSORS, Local()):
        pass
