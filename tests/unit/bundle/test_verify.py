"""`verify`: a bundle made by hand, and hostile ones whose sums are right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.bundle.sign import sign
from edgekd.bundle.verify import verify
from edgekd.errors import BundleError
from edgekd.release.archive import pack, release_id
from edgekd.release.sums import SUMS, hashes_in, render_sums
from edgekd.runner.golden import GoldenImage, write_golden
from edgekd.runner.manifest import Manifest, Tolerance

SPEC = ModelSpec(
    task="semantic",
    classes=("dark", "bright"),
    ignore_index=255,
    inputs=(TensorSpec("image", "float32", (1, 3, 4, 6), "image"),),
    outputs=(TensorSpec("logits", "float32", (1, 2, 4, 6), "logits"),),
    preprocess=Preprocess((4, 6)),
)
MANIFEST = Manifest(
    "small", 7, "semantic", "onnxruntime", "fp32", "engine/engine.onnx", Tolerance(0.05, 0.02), 1,
    runtime={"onnxruntime": "1.32.0"}, made_by={"golden": {"from": "engine"}},
)  # fmt: skip


def write_content(folder: Path) -> Path:
    """Write the files of a bundle, without sums."""
    (folder / "engine").mkdir(parents=True)
    (folder / "engine/engine.onnx").write_bytes(b"engine")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "manifest.json").write_text(MANIFEST.to_json())
    (folder / "spec.json").write_text(json.dumps(SPEC.to_dict()))
    outputs = {"logits": np.zeros((1, 2, 4, 6), np.float32)}
    write_golden(folder, SPEC, [GoldenImage(np.zeros((5, 7, 3), np.uint8), outputs, np.zeros((5, 7), np.uint8))])
    return folder


def packed(folder: Path) -> Path:
    """Return the archive of a folder, with right sums."""
    (folder / SUMS).unlink(missing_ok=True)
    (folder / SUMS).write_bytes(render_sums(hashes_in(folder)))
    pack(folder, folder.with_suffix(".tar"))
    return folder.with_suffix(".tar")


@pytest.fixture
def content(tmp_path: Path) -> Path:
    return write_content(tmp_path / "content")


def test_a_bundle_says_what_it_is(content: Path) -> None:
    found = verify(packed(content))
    assert found.manifest == MANIFEST
    assert found.release == release_id((content / SUMS).read_bytes())
    assert found.size_bytes == content.with_suffix(".tar").stat().st_size
    # .npy files have a header of 128 bytes: image 105, class map 35, logits 192.
    assert found.parts["golden"] == 3 * 128 + 105 + 35 + 192
    assert found.parts["engine"] == 6
    assert (found.signer, found.trust) == (None, "not signed")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_a_signature_is_checked_with_and_without_allowed_signers(content: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "allowed").write_text(f"me@example.org {key.with_suffix('.pub').read_text()}")
    archive = packed(content)
    with pytest.raises(BundleError, match="is not signed"):
        verify(archive, tmp_path / "allowed")
    signer = sign(content, key)
    pack(content, archive)
    assert verify(archive).signer == signer
    assert verify(archive, tmp_path / "allowed").trust.startswith(f"signed by me@example.org ({signer.key})")
    (content / SUMS).write_bytes(render_sums({**hashes_in(content), "zeta": "0" * 64}))
    (content / "zeta").write_bytes(b"")
    pack(content, archive)
    with pytest.raises(BundleError, match="does not match this bundle"):
        verify(archive)


def refusal(archive: Path) -> str:
    with pytest.raises(BundleError) as caught:
        verify(archive)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(content: Path, **values: Any) -> Path:
    """Return a bundle whose manifest has other values, and right sums."""
    data = {**json.loads(MANIFEST.to_json()), **values}
    (content / "manifest.json").write_text(json.dumps(data))
    return packed(content)


LIES: dict[str, dict[str, Any]] = {
    "another schema": {"schema": "edgekd.bundle/2"},
    "an engine outside": {"engine": "/etc/passwd"},
    "an engine above": {"engine": "engine/../../x"},
    "an engine that is not there": {"engine": "engine/other.onnx"},
    "an engine that is a folder": {"engine": "engine"},
    "a name that is a path": {"name": "../x"},
    "a name that is an option": {"name": "-rf"},
    "no name": {"name": ""},
    "a version before 1970": {"version": -1},
    "a version beyond all numbers": {"version": 10**400},
    "a version that is a fraction": {"version": 1.5},
    "a target that is a path": {"target": "../x"},
    "a module that is a path": {"module": "os;x"},
    "more golden images than there are": {"golden": 2},
    "golden images without end": {"golden": 10**9},
    "a tolerance that everything passes": {"tolerance": {"error": 1e999, "different": 0.1}},
    "a tolerance that is text": {"tolerance": {"error": "0.1", "different": 0.1}},
    "a negative tolerance": {"tolerance": {"error": -1, "different": 0.1}},
    "another task than the contract": {"task": "detection"},
    "options that are a list": {"options": []},
    "a runtime that is a number": {"runtime": {"onnxruntime": 1}},
    "a chip that is a number": {"chip": 7},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_refused(content: Path, lie: str) -> None:
    assert refusal(changed(content, **LIES[lie]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(json.loads(MANIFEST.to_json()))), JSON)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_the_manifest_is_taken_or_one_line(content: Path, key: str, value: Any) -> None:
    try:
        verify(changed(content, **{key: value}))
    except BundleError as exc:
        assert "\n" not in str(exc)


def _write(name: str, text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text)


CHANGES: dict[str, Callable[[Path], object]] = {
    "no run": lambda folder: (folder / "run").unlink(),
    "no engine": lambda folder: (folder / "engine/engine.onnx").unlink(),
    "no golden image": lambda folder: (folder / "golden/0/image.npy").unlink(),
    "a manifest that is no JSON": _write("manifest.json", b"{"),
    "a manifest that is deep": _write("manifest.json", b"[" * 100_000),
    "a manifest that is large": _write("manifest.json", b" " * (5 << 20)),
    "a contract that is large": _write("spec.json", b" " * (5 << 20)),
    "a contract that is no JSON": _write("spec.json", b"\xff"),
    "a golden image that is code": _write("golden/0/image.npy", b"cos\nsystem\n(S'true'\ntR."),
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_lie_are_refused(content: Path, change: str) -> None:
    CHANGES[change](content)
    assert refusal(packed(content))


def test_an_empty_contract_is_refused(content: Path) -> None:
    (content / "spec.json").write_text(json.dumps(replace(SPEC, outputs=()).to_dict()))
    assert "outputs" in refusal(packed(content))


def test_verifying_imports_no_framework_and_no_runtime(content: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from edgekd.bundle.verify import verify; verify(Path(sys.argv[1]));"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program, packed(content)], capture_output=True, text=True, check=True)
    outside = {"torch", "onnx", "onnxruntime", "openvino", "cyclonedx", "pydantic", "PIL", "yaml"}
    assert set(done.stdout.split()) & outside == set()
