"""Bundles of real runs: built, equal byte for byte, verified, and run with nothing but what is in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgekd as package
from edgekd.core.artifact import MANIFEST
from edgekd.release.archive import unpack
from edgekd.release.sums import check_folder
from edgekd.runner.contract import read_spec
from edgekd.runner.golden import read_golden
from edgekd.runner.manifest import Manifest, read_manifest
from tests.command import edgekd

# Opens the engine of an unpacked bundle with the bundle's own code and prints what `check_golden` found.
CHECK = """
import importlib, json, sys
from dataclasses import asdict
from pathlib import Path
import edgekd
from edgekd.runner.contract import read_spec
from edgekd.runner.golden import check_golden
from edgekd.runner.manifest import read_manifest
folder = Path(sys.argv[1])
assert Path(edgekd.__file__).is_relative_to(folder), edgekd.__file__
manifest = read_manifest(folder)
target = importlib.import_module(f"edgekd.targets.{manifest.target}").TARGET
with target.session(folder / manifest.engine, read_spec(folder, manifest), target.options(**manifest.options)) as session:
    print(json.dumps(asdict(check_golden(folder, manifest, session))))
"""


def bundle(engine: Path, out: Path, *options: str) -> Path:
    """Return the bundle of an engine, made by the command line."""
    done = edgekd("bundle", str(engine), "-o", str(out), *options)
    assert done.returncode == 0, done.stderr
    return out


def unpacked(archive: Path) -> tuple[Path, Manifest]:
    folder = archive.with_suffix("")
    unpack(archive, folder)
    return folder, read_manifest(folder)


def check(folder: Path) -> dict[str, Any]:
    """Return what the bundle's own code finds about its golden images."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "runtime"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, folder], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("run", "engine", "task"),
    [
        ("tiny_run", "openvino-int8", "semantic"),
        ("tiny_objects_run", "openvino-int8", "instance"),
        ("tiny_detection_run", "onnxruntime-fp32", "detection"),
    ],
)
def test_a_bundle_of_each_task_passes_its_own_check(
    request: pytest.FixtureRequest, tmp_path: Path, run: str, engine: str, task: str
) -> None:
    archive = bundle(request.getfixturevalue(run) / "engine" / engine, tmp_path / "one.tar")
    folder, manifest = unpacked(archive)
    assert (manifest.task, manifest.golden) == (task, 2)
    report = check(folder)
    assert report["reason"] == ""
    assert report["error"] < 1e-6
    assert report["different"] == 0
    assert report["compared"] > 0
    assert set(check_folder(folder))  # the check wrote nothing into the folder
    with package.load_engine(request.getfixturevalue(run) / "engine" / engine) as loaded:
        golden = read_golden(folder, read_spec(folder, manifest), 1)
        found = loaded(golden.image)
    expected = golden.result if task == "semantic" else golden.result.boxes
    np.testing.assert_allclose(expected, found if task == "semantic" else found.boxes, atol=1e-4)


def test_two_builds_are_equal_byte_for_byte_from_another_clone_folder_and_time(tiny_run: Path, tmp_path: Path) -> None:
    first = bundle(tiny_run / "engine/openvino-int8", tmp_path / "first.tar")
    clone = tmp_path / "another/clone"
    shutil.copytree(Path(package.__path__[0]), clone / "edgekd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tiny_run, clone / "run")
    for path in clone.rglob("*"):
        os.utime(path, (1, 1))
    command = [sys.executable, "-m", "edgekd.cli.main", "bundle", "run/engine/openvino-int8", "-o", "second.tar"]
    environment = {**os.environ, "PYTHONPATH": str(clone), "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"}
    environment |= {"LC_ALL": "C", "TMPDIR": str(tmp_path)}
    subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True, umask=0o077)
    assert (clone / "second.tar").read_bytes() == first.read_bytes()


def test_the_manifest_says_what_made_the_engine(tiny_run: Path, tmp_path: Path) -> None:
    folder, manifest = unpacked(bundle(tiny_run / "engine/openvino-int8", tmp_path / "one.tar", "--name", "street"))
    row = next(one for one in package.load_report(tiny_run)["rows"] if one["id"] == "openvino-int8")
    data = json.loads((tiny_run / "data" / MANIFEST).read_text())["details"]["splits"]
    assert (manifest.name, manifest.target, manifest.precision) == ("street", "openvino", "int8")
    assert manifest.accuracy["miou"] == row["metrics"]["miou"]
    assert manifest.latency["engine_ms"]["p50"] == row["latency_ms"]["p50"]
    assert manifest.made_by["data"]["splits"]["val"]["fingerprint"] == data["val"]["fingerprint"]
    assert (manifest.made_by["calibration"]["count"], manifest.made_by["calibration"]["split"]) == (8, "train")
    assert manifest.made_by["quantizer"]["versions"]["nncf"] == manifest.made_by["tools"]["nncf"]
    assert (manifest.tolerance.error, manifest.tolerance.different) == (0.05, 0.02)
    text = (folder / MANIFEST).read_text() + (folder / "sbom.cdx.json").read_text()
    assert str(tiny_run) not in text
    assert os.uname().nodename not in text


def test_the_command_line_builds_signs_and_verifies(tiny_run: Path, tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (tmp_path / "allowed").write_text(f"me@example.org {key.with_suffix('.pub').read_text()}")
    engine = str(tiny_run / "engine/onnxruntime-fp32")
    done = edgekd("bundle", engine, "--sign", "key", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "signature  signed by SHA256:" in done.stdout
    assert done.stdout.splitlines()[-1] == "next:      edgekd deploy onnxruntime-fp32.tar --board NAME"
    done = edgekd("bundle", "--verify", "onnxruntime-fp32.tar", "--allowed-signers", "allowed", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["signer"]["principal"] == "me@example.org"
    assert found["manifest"]["name"] == "onnxruntime-fp32"
    content = bytearray((tmp_path / "onnxruntime-fp32.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.tar").write_bytes(content)
    done = edgekd("bundle", "--verify", "changed.tar", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "changed.tar" in done.stderr


def test_golden_outputs_of_the_reference_have_the_limits_of_the_precision(tiny_run: Path, tmp_path: Path) -> None:
    archive = bundle(tiny_run / "engine/openvino-int8", tmp_path / "one.tar", "--golden", "reference")
    folder, manifest = unpacked(archive)
    assert (manifest.tolerance.error, manifest.tolerance.different) == (0.5, 0.5)
    assert manifest.made_by["golden"] == {"from": "reference", "board": "local"}
    report = check(folder)
    assert report["reason"] == ""
    assert 0 < report["error"] < 0.5  # the engine is not its graph


def test_golden_images_may_be_ones_own_or_none(tiny_run: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "own.png")
    engine = tiny_run / "engine/onnxruntime-fp32"
    folder, manifest = unpacked(bundle(engine, tmp_path / "own.tar", "--image", str(tmp_path / "own.png")))
    golden = read_golden(folder, read_spec(folder, manifest), 0)
    np.testing.assert_array_equal(golden.image, picture)
    assert golden.result.shape == (50, 70)
    folder, manifest = unpacked(bundle(engine, tmp_path / "none.tar", "--golden", "none"))
    assert manifest.golden == 0
    assert not (folder / "golden").exists()


def test_files_for_other_software_are_in_it_on_request(tiny_run: Path, tmp_path: Path) -> None:
    engine = tiny_run / "engine/onnxruntime-fp32"
    folder, _ = unpacked(bundle(engine, tmp_path / "one.tar", "--stacks", "--golden", "none"))
    (stack,) = (folder / "stacks").iterdir()
    written = tmp_path / "written"
    done = edgekd("stack", str(engine), "--for", stack.name, "--out", str(written))
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}
    assert {path.relative_to(stack): path.read_bytes() for path in stack.rglob("*") if path.is_file()} == files


def test_an_engine_that_cannot_run_here_says_what_can_be_done(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    manifest = run / "engine/onnxruntime-fp32" / MANIFEST
    data = json.loads(manifest.read_text())
    data["details"]["board"] = "orin"  # a board that the inventory lacks
    manifest.write_text(json.dumps(data))
    done = edgekd("bundle", str(run / "engine/onnxruntime-fp32"), cwd=tmp_path)
    assert done.returncode == 2
    assert "board orin cannot give the golden outputs" in done.stderr
    assert "--golden: reference or none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "onnxruntime-fp32.tar").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected the folder of an engine, or --verify FILE"),
        (("{run}/export",), "expected an artifact of kind engine"),
        (("{run}",), "give one of"),
        (("{run}/engine/onnxruntime-fp32", "--sign", "absent"), "absent: no such file"),
        (("{run}/engine/onnxruntime-fp32", "--name", "a/b"), "expected"),
        (("{run}/engine/onnxruntime-fp32", "--image", "absent.png"), "absent.png"),
        (("{run}/engine/onnxruntime-fp32", "--golden", "simulator"), "the simulator cannot give the golden outputs"),
        (("--verify", "absent.tar"), "cannot be read"),
        (("--verify", "{run}"), "cannot be read"),
        (("{run}/engine/onnxruntime-fp32", "-o", "/proc/x/one.tar"), "/proc/x"),
    ],
)
def test_what_cannot_be_is_one_line(tiny_run: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = edgekd("bundle", *(one.format(run=tiny_run) for one in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
