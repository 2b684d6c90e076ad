"""`spec.json` of a bundle: what `read_spec` takes, and that it believes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.errors import BundleError
from edgekd.runner.contract import read_spec
from edgekd.runner.manifest import Manifest, Tolerance

SPEC = ModelSpec(
    task="detection",
    classes=("cat", "dog"),
    ignore_index=255,
    inputs=(TensorSpec("image", "uint8", (1, 3, 8, 8), "image"),),
    outputs=(TensorSpec("a", "float32", (1, 2, 4, 4), "scores"), TensorSpec("b", "float32", (1, 4, 4, 4), "boxes")),
    preprocess=Preprocess((8, 8), dtype="uint8"),
)
MANIFEST = Manifest("small", 1, "detection", "none", "fp32", "engine/none", Tolerance(0.1, 0.1), 0)


def write(folder: Path, data: Any) -> Path:
    (folder / "spec.json").write_text(json.dumps(data))
    return folder


def test_a_contract_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_spec(write(tmp_path, SPEC.to_dict()), MANIFEST) == SPEC


CHANGES: dict[str, tuple[str, Any]] = {
    "another schema": ("schema", "edgekd.model_spec/9"),
    "another task": ("task", "semantic"),
    "an unknown task": ("task", "poetry"),
    "classes that are numbers": ("classes", [1, 2]),
    "no classes": ("classes", []),
    "an index that is text": ("ignore_index", "255"),
    "no inputs": ("inputs", []),
    "inputs that are text": ("inputs", "image"),
    "a negative side": ("inputs.0.shape", [1, 3, -8, 8]),
    "a side that is true": ("inputs.0.shape", [True, 3, 8, 8]),
    "a side that is a fraction": ("inputs.0.shape", [1, 3, 8.5, 8]),
    "a tensor larger than any memory": ("outputs.0.shape", [1, 2, 1 << 40, 1 << 40]),
    "an unknown type": ("outputs.0.dtype", "object"),
    "a type that is a list": ("outputs.0.dtype", ["float32"]),
    "two tensors of one name": ("outputs.1.name", "a"),
    "a role that is a number": ("outputs.1.role", 7),
    "a size of one side": ("preprocess.size", [8]),
    "a size that is a number": ("preprocess.size", 8),
    "an unknown layout": ("preprocess.layout", "HWCN"),
    "a deviation of 0": ("preprocess.std", [1, 0, 1]),
    "a mean of two": ("preprocess.mean", [0, 0]),
    "a mean that is text": ("preprocess.mean", ["0", "0", "0"]),
    "an unknown key": ("preprocess.crop", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_value_that_no_contract_has_is_refused(tmp_path: Path, change: str) -> None:
    path, value = CHANGES[change]
    data = json.loads(json.dumps(SPEC.to_dict()))
    *way, last = path.split(".")
    place = data
    for key in way:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    with pytest.raises(BundleError) as caught:
        read_spec(write(tmp_path, data), MANIFEST)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"schema": "edgekd.model_spec/1"}', "\ud800"])
def test_what_is_no_contract_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BundleError, match="not the contract of an engine"):
        read_spec(tmp_path, MANIFEST)
