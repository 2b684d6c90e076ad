"""Artifacts: complete or absent, and what is damaged is told."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.board.files import sha256_of
from edgekd.core import artifact as artifact_module
from edgekd.core.artifact import (
    MANIFEST,
    SCRATCH,
    Artifact,
    StageResult,
    open_artifact,
    publish,
)
from edgekd.errors import ArtifactError
from edgekd.executors.boards import open_session
from tests.conftest import REPOSITORY
from tests.unit.core.fake_stages import SPEC

FACTS: dict[str, Any] = {"kind": "onnx", "stage": "export", "key": "k" * 64, "inputs": {}, "seconds": 1.5}


def make(folder: Path, **facts: Any) -> Artifact:
    """Publish an artifact of two files, one in a subfolder, made beside a scratch folder."""
    work = folder / "work"
    (work / "sub").mkdir(parents=True)
    (work / "a.txt").write_bytes(b"hello")
    (work / "sub" / "b.bin").write_bytes(b"")
    (work / SCRATCH).mkdir()
    (work / SCRATCH / "resume.ckpt").write_bytes(b"x")
    return publish(work, folder / "final", {**FACTS, **facts}, StageResult(SPEC, {"answer": 42}))


def test_a_published_artifact_opens_with_everything_it_was_given(tmp_path: Path) -> None:
    make(tmp_path)
    artifact = open_artifact(tmp_path / "final", "onnx")
    assert artifact.kind == "onnx"
    assert artifact.details == {"answer": 42}
    assert artifact.spec == SPEC
    assert artifact.file("a.txt").read_bytes() == b"hello"
    assert {name: artifact.manifest[name] for name in FACTS} == FACTS


def test_the_manifest_lists_every_file_with_size_and_sha256(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    assert artifact.manifest["files"] == [
        # sha256 of "hello" and of nothing, from coreutils' sha256sum
        {"name": "a.txt", "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "bytes": 5},
        {"name": "sub/b.bin", "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "bytes": 0},
    ]


def test_the_hash_of_an_artifact_is_the_hash_of_its_manifest(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    assert artifact.sha256() == hashlib.sha256((tmp_path / "final" / MANIFEST).read_bytes()).hexdigest()


def test_publishing_moves_the_working_folder_and_drops_its_scratch(tmp_path: Path) -> None:
    make(tmp_path)
    assert not (tmp_path / "work").exists()
    assert sorted(p.name for p in (tmp_path / "final").iterdir()) == ["a.txt", MANIFEST, "sub"]


def test_a_manifest_left_by_a_killed_publish_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / MANIFEST).write_text("old")
    (tmp_path / "work" / "a").write_text("1")
    artifact = publish(tmp_path / "work", tmp_path / "deep" / "final", FACTS, StageResult())
    assert [entry["name"] for entry in artifact.manifest["files"]] == ["a"]
    assert open_artifact(tmp_path / "deep" / "final").manifest == artifact.manifest


def test_a_detail_that_a_manifest_lacks_names_it_and_the_manifest(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    assert artifact.details["answer"] == 42
    with pytest.raises(ArtifactError) as told:
        artifact.details["classes"]
    assert (
        str(told.value) == f"{artifact.path}/manifest.json: damaged (details.classes); remove the folder and run again"
    )


def test_details_that_json_cannot_hold_are_refused_and_nothing_is_published(tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / SCRATCH).mkdir(parents=True)
    with pytest.raises(ValueError, match="JSON"):
        publish(work, tmp_path / "final", FACTS, StageResult(details={"loss": float("nan")}))
    assert not (tmp_path / "final").exists()
    assert (work / SCRATCH).exists()


PUBLISH_UNTIL_KILLED = """
import os, signal, sys
from pathlib import Path
from edgekd.core.artifact import StageResult, publish
from edgekd.core.machine_facts import package_versions

package_versions()  # reads the metadata of every installed package, as planning a run does
counter, kill_at = 0, int(sys.argv[2])
def watch(event, arguments):  # every file system call of publish is a moment at which a kill may come
    global counter
    if event in ("open", "os.mkdir", "os.rename", "shutil.rmtree", "os.remove", "os.rmdir", "os.scandir"):
        counter += 1
        if counter == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
root = Path(sys.argv[1])
sys.addaudithook(watch)
publish(root / "work", root / "final", {"kind": "onnx", "stage": "export", "key": "k"}, StageResult())
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_of_publishing_leaves_a_whole_artifact_or_the_resume_state(tmp_path: Path) -> None:
    outcomes = []
    for kill_at in [*range(1, 10), *range(10, 400, 17)]:
        root = tmp_path / str(kill_at)
        work = root / "work"
        (work / SCRATCH).mkdir(parents=True)
        (work / SCRATCH / "resume.ckpt").write_bytes(b"x" * 1000)
        (work / "weights").write_bytes(b"y" * 1000)
        command = [sys.executable, "-c", PUBLISH_UNTIL_KILLED, str(root), str(kill_at)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        if (root / "final").exists():
            assert open_artifact(root / "final").file("weights").stat().st_size == 1000
            outcomes.append("artifact")
        else:
            assert (work / SCRATCH / "resume.ckpt").stat().st_size == 1000
            outcomes.append("resume state")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    assert set(outcomes) == {"artifact", "resume state"}


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ArtifactError, match=r"no manifest\.json, so not an edgekd artifact"):
            open_artifact(path)


def test_a_file_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="file: no manifest"):
        open_artifact(tmp_path / "file")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(ArtifactError, match="expected an artifact of kind engine, got onnx"):
        open_artifact(tmp_path / "final", "engine")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    make(tmp_path).file("a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt: expected 5 bytes, got None"):
        open_artifact(tmp_path / "final")


def test_a_short_file_is_told(tmp_path: Path) -> None:
    make(tmp_path).file("a.txt").write_bytes(b"hell")
    with pytest.raises(ArtifactError, match=r"a\.txt: expected 5 bytes, got 4"):
        open_artifact(tmp_path / "final")


def flip_a_byte(file: Path) -> None:
    """Damage a file at equal size."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_byte_is_told_with_its_file(tmp_path: Path) -> None:
    make(tmp_path)
    flip_a_byte(tmp_path / "final/a.txt")
    with pytest.raises(
        ArtifactError, match=r"a\.txt: damaged: expected content of sha256 2cf24dba5fb0, got .*; remove .*final"
    ):
        open_artifact(tmp_path / "final")


def test_a_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_of(path)

    make(tmp_path)
    monkeypatch.setattr(artifact_module, "sha256_of", counted)
    file = tmp_path / "final/a.txt"
    for one in (file, tmp_path / "final/sub/b.bin"):
        os.utime(one, (1, 1))  # settled long ago
    for _ in range(3):
        open_artifact(tmp_path / "final")
    assert sorted(read) == ["a.txt", "b.bin"]
    flip_a_byte(file)
    for _ in range(2):  # it is new, and may change without its time changing
        with pytest.raises(ArtifactError, match="damaged"):
            open_artifact(tmp_path / "final")
    assert read[2:] == ["a.txt", "a.txt"]


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    artifact.file("a.txt").unlink()
    artifact.file("a.txt").mkdir()
    with pytest.raises(ArtifactError, match=r"a\.txt: expected 5 bytes"):
        open_artifact(tmp_path / "final")


def without(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda manifest: json.dumps({k: v for k, v in manifest.items() if k != name})


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: "",
        lambda manifest: json.dumps(manifest)[:-20],
        lambda manifest: "[1, 2]",
        lambda manifest: "null",
        lambda manifest: "\udcff",
        lambda manifest: "[" * 100_000,
        lambda manifest: json.dumps({**manifest, "schema": "edgekd.artifact/99"}),
        lambda manifest: json.dumps({**manifest, "files": 3}),
        lambda manifest: json.dumps({**manifest, "files": ["a.txt"]}),
        lambda manifest: json.dumps({**manifest, "failures": "an engine"}),
        lambda manifest: json.dumps({**manifest, "key_content": [1]}),
        lambda manifest: json.dumps({**manifest, "inputs": 3}),
        lambda manifest: json.dumps({**manifest, "seconds": "long"}),
        *map(without, ("schema", "kind", "stage", "key", "files", "details", "model_spec")),
    ],
)
def test_a_damaged_manifest_is_told_with_its_path(tmp_path: Path, damage: Callable[[dict[str, Any]], str]) -> None:
    artifact = make(tmp_path)
    path = tmp_path / "final" / MANIFEST
    path.write_bytes(damage(artifact.manifest).encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError) as refusal:
        open_artifact(tmp_path / "final", "onnx")
    assert str(path) in str(refusal.value)


def test_a_manifest_that_is_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(ArtifactError, match=r"manifest\.json: damaged"):
        open_artifact(tmp_path)


def test_a_contract_that_is_absent_or_damaged_is_told(tmp_path: Path) -> None:
    artifact = make(tmp_path)
    bare = Artifact(artifact.path, {**artifact.manifest, "model_spec": None})
    with pytest.raises(ArtifactError, match="a onnx artifact has no network"):
        _ = bare.spec
    spec = artifact.manifest["model_spec"]
    assert spec["schema"] == "edgekd.model_spec/1"
    older = {name: value for name, value in spec.items() if name != "schema"}  # written before specs had a version
    assert Artifact(artifact.path, {**artifact.manifest, "model_spec": older}).spec == artifact.spec
    with pytest.raises(ArtifactError, match="expected schema edgekd.model_spec/1, got 'edgekd.model_spec/9'"):
        _ = Artifact(artifact.path, {**artifact.manifest, "model_spec": {**spec, "schema": "edgekd.model_spec/9"}}).spec
    with pytest.raises(ArtifactError, match=r"expected schema edgekd.model_spec/1, got \['semantic'\]"):
        _ = Artifact(artifact.path, {**artifact.manifest, "model_spec": ["semantic"]}).spec
    half = {name: value for name, value in artifact.manifest["model_spec"].items() if name != "classes"}
    with pytest.raises(ArtifactError, match=r"damaged model_spec .*classes"):
        _ = Artifact(artifact.path, {**artifact.manifest, "model_spec": half}).spec


@pytest.mark.parametrize("damage", [{"outputs": []}, {"preprocess": {"size": [0, 0]}}, {"preprocess": {"size": "x"}}])
def test_a_contract_that_no_image_fits_is_told(tmp_path: Path, damage: dict[str, Any]) -> None:
    artifact = make(tmp_path)
    with pytest.raises(ArtifactError, match="damaged model_spec"):
        _ = Artifact(artifact.path, {**artifact.manifest, "model_spec": artifact.manifest["model_spec"] | damage}).spec


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_file_of_an_artifact_lies_in_it(tmp_path: Path, name: str) -> None:
    artifact = make(tmp_path)
    with pytest.raises(ArtifactError, match="expected a file of the artifact"):
        artifact.file(name)
    (artifact.path / MANIFEST).write_text(json.dumps(artifact.manifest | {"files": [{"name": name, "bytes": 1}]}))
    with pytest.raises(ArtifactError, match="expected a file of the artifact"):
        open_artifact(artifact.path)


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("engine", {}),
        ("engine", {"target": 5, "options": {}, "engine": "e"}),
        ("engine", {"target": "openvino", "options": None, "engine": "e"}),
        ("checkpoint", {}),
        ("checkpoint", {"network": {"family": 3}}),
    ],
)
def test_an_artifact_that_does_not_say_how_it_opens_is_told(tmp_path: Path, kind: str, details: dict[str, Any]) -> None:
    artifact = make(tmp_path)
    damaged = Artifact(artifact.path, {**artifact.manifest, "kind": kind, "details": details})
    with pytest.raises(ArtifactError, match=r"damaged manifest \(details\."):
        open_session(damaged)


def test_a_session_needs_an_artifact_with_a_network(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected an artifact of kind checkpoint, onnx, engine, got metrics"):
        open_session(make(tmp_path, kind="metrics"))
