"""The manifest of a bundle is read back as it was written, and nothing in it is believed before it is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import BundleError
from edgekd.runner.manifest import Manifest, Tolerance, parse_manifest, read_manifest

MANIFEST = Manifest(
    name="openvino-int8",
    version=1_790_000_000,
    task="semantic",
    target="openvino",
    precision="int8",
    engine="engine/engine.xml",
    tolerance=Tolerance(error=0.05, different=0.02),
    golden=2,
    runtime={"openvino": "2026.4.1"},
)


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MANIFEST.to_json())
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": "edgekd.bundle/9"}, "expected schema edgekd.bundle/1, got 'edgekd.bundle/9'"),
        ({"engine": "/etc/passwd"}, "expected `engine` to be a file in engine/"),
        ({"engine": "engine/../../x"}, "expected `engine` to be a file in engine/"),
        ({"engine": "spec.json"}, "expected `engine` to be a file in engine/"),
        ({"version": -1}, "out of range"),
        ({"version": True}, "`version` is missing or of another type"),
        ({"golden": 17}, "out of range"),
        ({"options": []}, "`options` is missing or of another type"),
        ({"runtime": {"openvino": 3}}, "runtime.openvino: expected a version as text, got 3"),
        ({"tolerance": {"error": float("nan"), "different": 0}}, "expected finite tolerances"),
        ({"tolerance": {"error": 0.1}}, "`different` is missing"),
    ],
)
def test_a_manifest_that_lies_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BundleError, match=says.replace(".", r"\.")):
        parse_manifest({**json.loads(MANIFEST.to_json()), **change}, "manifest.json")


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "\x00", '{"schema": 1}'])
def test_a_file_that_is_no_manifest_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError) as failed:
        read_manifest(tmp_path)
    assert "\n" not in str(failed.value)
