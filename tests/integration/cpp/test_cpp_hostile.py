"""The C++ runner refuses damaged and hostile bundles and images: exit code 1, one line, and no crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.runner.golden import GoldenImage
from tests.integration.cpp.bundles import run, write_bundle

Json = dict[str, Any]
SPEC = ModelSpec(
    "semantic",
    ("sky", "road"),
    255,
    (TensorSpec("image", "float32", (1, 3, 8, 8), "image"),),
    (TensorSpec("logits", "float32", (1, 2, 4, 4), "logits"),),
    Preprocess((8, 8)),
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    logits = np.zeros((1, 2, 4, 4), np.float32)
    logits[0, 1, :2], logits[0, 1, 2:] = -1, 1
    golden = np.repeat([0, 1], 4)[:, None].repeat(8, axis=1).astype(np.uint8)
    image = GoldenImage(np.zeros((8, 8, 3), np.uint8), {"logits": logits}, golden)
    return write_bundle(tmp_path / "bundle", SPEC, golden=[image])


def refused(program: Path, bundle: Path, expected: str, *arguments: str | Path) -> None:
    done = run(program, bundle, *(arguments or ("--check", "--replay")))
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgekd-run: ")]
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert len(lines) == 1
    assert expected in lines[0]


def test_the_bundle_itself_passes(program: Path, bundle: Path) -> None:
    done = run(program, bundle, "--check", "--replay")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"golden": 1, "error": 0, "different": 0, "compared": 64, "passed": True}


TEXTS = {
    "nothing": ("", "expected a value"),
    "an open object": ('{"schema": ', "expected a value"),
    "more text": ("{} {}", "more text"),
    "a name twice": ('{"a": 1, "a": 2}', "stands twice"),
    "half an escape": ('{"a": "\\u12"}', "four hexadecimal digits"),
    "half a character": ('{"a": "\\ud800"}', "half a character"),
    "a line end in a text": ('{"a": "\n"}', "a text has no end"),
    "a number that is none": ('{"a": 1e}', "expected a value"),
    "a number too large": ('{"a": 1e999}', "too large"),
    "not a number": ('{"a": NaN}', "expected a value"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "many values": ("[" + "0," * 200_000 + "0]", "too many values"),
    "many names": ("{" + ",".join(f'"{i}":0' for i in range(5000)) + "}", "too many names"),
    "a large file": (" " * (5 << 20), "larger than"),
    "zero bytes": ("\0" * 100, "expected a value"),
    "a list": ("[]", "expected an object"),
}


@pytest.mark.parametrize("file", ["manifest.json", "spec.json"])
@pytest.mark.parametrize("name", TEXTS)
def test_no_json_is_refused(program: Path, bundle: Path, file: str, name: str) -> None:
    text, expected = TEXTS[name]
    (bundle / file).write_bytes(text.encode())
    refused(program, bundle, expected)


def _set(*path: str | int, value: Any) -> Callable[[Json], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        if value is None:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


CHANGES = {
    "schema": ("manifest.json", _set("schema", value="edgekd.bundle/2"), "expected edgekd.bundle/1"),
    "no engine": ("manifest.json", _set("engine", value=None), "engine: expected a text"),
    "engine above": ("manifest.json", _set("engine", value="engine/../../x"), "a file in engine/"),
    "engine elsewhere": ("manifest.json", _set("engine", value="/etc/passwd"), "a file in engine/"),
    "engine is the folder": ("manifest.json", _set("engine", value="engine/"), "a file in engine/"),
    "task": ("manifest.json", _set("task", value="detection"), "is not that of spec.json"),
    "golden": ("manifest.json", _set("golden", value=17), "an integer from 0 to 16"),
    "version": ("manifest.json", _set("version", value=1.5), "version: expected an integer"),
    "threads": ("manifest.json", _set("options", value={"num_threads": 0}), "num_threads: expected an integer"),
    "spec schema": ("spec.json", _set("schema", value="edgekd.model_spec/9"), "schema: expected"),
    "unknown task": ("spec.json", _set("task", value="depth"), "semantic or detection or instance"),
    "two inputs": ("spec.json", lambda data: data["inputs"].append(data["inputs"][0]), "one image"),
    "no outputs": ("spec.json", _set("outputs", value=[]), "1 to 64 tensors"),
    "negative side": ("spec.json", _set("outputs", 0, "shape", value=[1, 2, -4, 4]), "shape: expected an integer"),
    "huge shape": ("spec.json", _set("outputs", 0, "shape", value=[1, 2, 1 << 20, 1 << 20]), "values"),
    "overflowing shape": ("spec.json", _set("outputs", 0, "shape", value=[1 << 28] * 8), "values"),
    "half precision": ("spec.json", _set("outputs", 0, "dtype", value="float16"), "got 'float16'"),
    "logits of integers": ("spec.json", _set("outputs", 0, "dtype", value="int64"), "float32 logits"),
    "257 classes": ("spec.json", _set("outputs", 0, "shape", value=[1, 257, 4, 4]), "256 classes"),
    "role": ("spec.json", _set("outputs", 0, "role", value="boxes"), "logits or a class_map"),
    "size": ("spec.json", _set("preprocess", "size", value=[8, 9]), "one image of the size"),
    "huge size": ("spec.json", _set("preprocess", "size", value=[1 << 30, 8]), "an integer from 1"),
    "std of zero": ("spec.json", _set("preprocess", "std", value=[1, 0, 1]), "other than 0"),
    "resize": ("spec.json", _set("preprocess", "resize", value="crop"), "stretch or letterbox, got 'crop'"),
    "dtype of the input": ("spec.json", _set("preprocess", "dtype", value="uint8"), "dtype of `preprocess`"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_lie_is_refused(program: Path, bundle: Path, name: str) -> None:
    file, change, expected = CHANGES[name]
    data = json.loads((bundle / file).read_text())
    change(data)
    (bundle / file).write_text(json.dumps(data))
    refused(program, bundle, expected)


def test_control_characters_of_a_bundle_do_not_reach_the_terminal(program: Path, bundle: Path) -> None:
    data = json.loads((bundle / "spec.json").read_text())
    data["task"] = "\x1b[31m\n" + 200 * "x"
    (bundle / "spec.json").write_text(json.dumps(data))
    refused(program, bundle, "got '?[31m?xxx")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no such file"),
        (b"\x93NUMPY\x01\x00", "expected an .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff{}", "ends in its header"),
        (b"\x93NUMPY\x02\x00" + bytes(100), "of version 1.0"),
    ],
)
def test_a_damaged_array_is_refused(program: Path, bundle: Path, content: bytes, expected: str) -> None:
    (bundle / "golden/0/class_map.npy").write_bytes(content)
    refused(program, bundle, expected)


def test_golden_arrays_of_another_shape_are_refused(program: Path, bundle: Path) -> None:
    np.save(bundle / "golden/0/outputs/0.npy", np.zeros((1, 2, 4, 5), np.float32))
    refused(program, bundle, "not the array that spec.json")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"P6 3 2 255\n" + bytes(17), "binary PPM"),
        (b"P5 3 2 255\n" + bytes(18), "binary PPM"),
        (b"P6 3 2 65535\n" + bytes(36), "binary PPM"),
        (b"P6 999999999999 9999999999999 255\n", "binary PPM"),
        (b"P6", "binary PPM"),
        (b"P6 0 0 255\n", "expected a height and a width"),
    ],
)
def test_a_damaged_image_is_refused(program: Path, bundle: Path, tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "image.ppm").write_bytes(content)
    refused(program, bundle, expected, tmp_path / "image.ppm", "--replay")


def test_another_class_map_than_the_golden_one_fails_the_check(program: Path, bundle: Path) -> None:
    expected = np.load(bundle / "golden/0/class_map.npy")
    expected[:2] = 1  # 16 of 64 pixels
    np.save(bundle / "golden/0/class_map.npy", expected)
    done = run(program, bundle, "--check", "--replay")
    assert done.returncode == 1
    assert json.loads(done.stdout)["different"] == 0.25
