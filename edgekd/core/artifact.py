"""Artifacts: folders with files and a `manifest.json`, complete or absent.

A stage writes into a working folder; `publish` hashes the files, writes the manifest and renames the folder into
place. A kill at any moment leaves a complete artifact or none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypedDict

from pydantic import TypeAdapter

from edgekd.board.files import sha256_of, write_atomic
from edgekd.board.specs import ModelSpec, SpecJson, check_spec_schema
from edgekd.board.sysinfo import Facts
from edgekd.core.machine_facts import environment, package_version, package_versions
from edgekd.errors import ArtifactError, one_line

SCHEMA = "edgekd.artifact/1"
MANIFEST = "manifest.json"
_SPEC = TypeAdapter(ModelSpec)
SCRATCH = "_scratch"  # inside a working folder: resume state, never published

Details = dict[str, Any]  # JSON of a manifest; its keys belong to the stage


@dataclass(frozen=True)
class StageResult:
    """The result of a stage, besides the files in its folder.

    spec: the contract of the network it made.
    details: facts for later stages and the report (JSON).
    failures: subject -> reason on one line, for a stage that continues when one subject fails. The next run makes
        such an artifact again.
    """

    spec: ModelSpec | None = None
    details: Details = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class ManifestFile(TypedDict):
    """A file of an artifact; `name` is its path in the folder."""

    name: str
    sha256: str
    bytes: int


class _Identity(TypedDict):
    kind: str
    stage: str
    key: str


class StageFacts(_Identity, total=False):
    """Facts of a stage that its manifest holds; older manifests lack some of the optional ones.

    key_content: JSON whose hash is `key`.
    code: hashes of the third-party modules that the stage used.
    inputs: input artifact -> hash of its manifest.
    """

    key_content: Mapping[str, object]
    recipe_sha256: str
    code: dict[str, str]
    inputs: dict[str, str]
    seconds: float


class Manifest(StageFacts):
    """Content of `manifest.json`."""

    schema: str
    created: str
    edgekd_version: str | None
    git_commit: str | None
    files: list[ManifestFile]
    model_spec: SpecJson | None
    environment: Facts
    details: Details
    failures: dict[str, str]


@dataclass(frozen=True)
class Artifact:
    """A complete artifact folder (an absolute path) and its manifest."""

    path: Path
    manifest: Manifest

    @property
    def kind(self) -> str:
        """Kind of content: dataset, checkpoint, onnx, quantized, engine, metrics, latency."""
        return self.manifest["kind"]

    @property
    def details(self) -> Details:
        """Facts that the stage reported; ArtifactError for a fact that is missing in a damaged manifest."""
        return _Details(self.manifest["details"], self.path)

    @property
    def failures(self) -> dict[str, str]:
        """Subject -> reason, for the subjects that failed while the stage continued."""
        return self.manifest.get("failures") or {}

    @property
    def spec(self) -> ModelSpec:
        """The I/O contract; ArtifactError for a kind of artifact without one."""
        if self.manifest["model_spec"] is None:
            raise ArtifactError(
                f"{self.path}: a {self.kind} artifact has no network; give the folder of a network, graph or engine"
            )
        try:
            check_spec_schema(self.manifest["model_spec"])
            spec = _SPEC.validate_python(self.manifest["model_spec"])
            sides = [*spec.preprocess.size, *(side for one in (*spec.inputs, *spec.outputs) for side in one.shape)]
            if not spec.inputs or not spec.outputs or min(sides) < 1:
                raise ValueError("an input, an output or a pixel is missing")
        except ValueError as exc:  # pydantic's ValidationError is one
            raise ArtifactError(
                f"{self.path / MANIFEST}: damaged model_spec ({one_line(exc)}); make the artifact again"
            ) from exc
        return spec

    def file(self, name: str) -> Path:
        """Return the path of one of its files; ArtifactError for a path outside the artifact."""
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(
                f"{self.path / MANIFEST}: expected a file of the artifact, got {name!r}; do not trust it"
            )
        return self.path / name

    def sha256(self) -> str:
        """Return the hash of the manifest, which holds the hash of every file."""
        return sha256_of(self.path / MANIFEST)


class _Details(dict[str, Any]):
    """Details of an artifact, with errors that name the missing detail."""

    def __init__(self, details: Details, path: Path) -> None:
        super().__init__(details)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise ArtifactError(f"{self._path / MANIFEST}: damaged (details.{name}); remove the folder and run again")


def open_artifact(path: Path, kind: str | None = None) -> Artifact:
    """Open an artifact folder and check that every file is there with its recorded size and content.

    A process hashes a file once, and again when its size or time changes.

    Raises:
        ArtifactError: no manifest, a damaged one, another kind, or a file that is missing or differs in size or content.
    """
    manifest_path = Path(path) / MANIFEST
    try:
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as exc:
        below = sorted(str(found.parent) for found in Path(path).glob(f"engine/*/{MANIFEST}"))
        hint = f"give one of {', '.join(below)}" if below else "give the folder of one"
        raise ArtifactError(f"{path}: no {MANIFEST}, so not an edgekd artifact; {hint}") from exc
    except (ValueError, RecursionError, OSError) as exc:
        raise ArtifactError(
            f"{manifest_path}: damaged or not readable ({exc}); remove the folder and run again"
        ) from exc
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        todo = "use the edgekd that wrote it, or run the recipe again"
        raise ArtifactError(f"{manifest_path}: expected schema {SCHEMA}, got {schema!r}; {todo}")
    if not _is_whole(manifest):
        raise ArtifactError(f"{manifest_path}: damaged (entries are missing); remove the folder and run again")
    if kind is not None and manifest["kind"] != kind:
        raise ArtifactError(f"{path}: expected an artifact of kind {kind}, got {manifest['kind']}")
    artifact = Artifact(Path(path).absolute(), manifest)
    for entry in manifest["files"]:
        file = artifact.file(entry["name"])
        size = file.stat().st_size if file.is_file() else None
        if size != entry["bytes"]:
            raise ArtifactError(f"{file}: expected {entry['bytes']} bytes, got {size}; remove {path} and run again")
        if "sha256" in entry and (found := _content_hash(file)) != entry["sha256"]:
            raise ArtifactError(
                f"{file}: damaged: expected content of sha256 {entry['sha256'][:12]}, got {found[:12]}; remove {path} and run "
                "again, or bring the file back from a copy"
            )
    return artifact


_hashed: dict[tuple[int, int, int, int], str] = {}  # device, inode, size and time of a file -> its hash
_SETTLED_NS = 2_000_000_000  # a younger file can change without a change of its time


def _content_hash(file: Path) -> str:
    """Return the hash of a file, from memory when this process has read it before."""
    stat = file.stat()
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if key not in _hashed:
        found = sha256_of(file)
        if time.time_ns() - stat.st_mtime_ns < _SETTLED_NS:
            return found
        _hashed[key] = found
    return _hashed[key]


def _is_whole(manifest: Mapping[str, Any]) -> bool:
    texts = all(isinstance(manifest.get(name), str) for name in ("kind", "stage", "key"))
    files = manifest.get("files")
    mappings = (
        manifest.get(name) or {} for name in ("key_content", "code", "failures", "inputs")
    )  # older ones lack them
    return (
        texts
        and isinstance(manifest.get("seconds", 0), int | float)
        and all(isinstance(one, dict) for one in mappings)
        and isinstance(manifest.get("details"), dict)
        and "model_spec" in manifest
        and isinstance(files, list)
        and all(isinstance(f, dict) and isinstance(f.get("name"), str) and "bytes" in f for f in files)
    )


def publish(work: Path, final: Path, facts: StageFacts, result: StageResult) -> Artifact:
    """Turn a working folder into the artifact `final`.

    `_scratch` is dropped after the rename: a kill before it leaves the resume state, a kill after it an artifact.

    Args:
        work: folder with the stage's files; its `_scratch` is dropped.
        final: the artifact's folder. The caller has moved any earlier one away.
        facts: facts of the stage.
        result: the result that the stage returned.
    """
    scratch = work / SCRATCH
    files = sorted(p for p in work.rglob("*") if p.is_file() and p.name != MANIFEST and scratch not in p.parents)
    manifest: Manifest = {
        "schema": SCHEMA,
        **facts,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "edgekd_version": package_version("edgekd"),
        "git_commit": git_commit(),
        "files": [
            {"name": p.relative_to(work).as_posix(), "sha256": sha256_of(p), "bytes": p.stat().st_size} for p in files
        ],
        "model_spec": result.spec.to_dict() if result.spec else None,
        "environment": {**environment(), "packages": package_versions()},
        "details": result.details,
        "failures": result.failures,
    }
    text = json.dumps(manifest, indent=1, allow_nan=False)
    write_atomic(work / MANIFEST, text)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(work, final)
    drop_scratch(final)
    return Artifact(final, json.loads(text))


def drop_scratch(final: Path) -> None:
    """Remove the resume state from an artifact folder, if a kill left it there."""
    if (final / SCRATCH).exists():
        shutil.rmtree(final / SCRATCH)


def git_commit() -> str | None:
    """Return the commit of the checkout that edgekd runs from (`-dirty` when changed), None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        text = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return text.strip()
