"""Values and files that the stacks share: the engine to hand over, a one-line refusal, a README beside the files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.board.precision import Precision
from edgekd.board.specs import ModelSpec
from edgekd.core.artifact import Artifact
from edgekd.errors import ArtifactError

LABELS, CONTRACT, README = "labels.txt", "spec.json", "README.md"


@dataclass(frozen=True)
class Engine:
    """An engine for other software.

    name: id of the engine, e.g. `openvino-int8`.
    file: the engine file.
    options: options of its target, as the recipe gives them (JSON).
    extra: further files of the engine, e.g. the weights beside an IR.
    """

    name: str
    target: str
    precision: str
    file: Path
    spec: ModelSpec
    options: dict[str, Any] = field(default_factory=dict)
    extra: tuple[Path, ...] = ()

    @property
    def is_quantized(self) -> bool:
        """Whether it computes in int8."""
        return Precision(self.precision).is_quantized

    def copy_to(self, folder: Path, stem: str) -> str:
        """Copy the engine and its further files to `folder` as `stem` with their suffixes; return the engine's file name."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in (self.file, *self.extra):
            shutil.copyfile(file, folder / f"{stem}{file.suffix}")
        return f"{stem}{self.file.suffix}"


def engine_of(artifact: Artifact) -> Engine:
    """Return the engine of an artifact folder; ArtifactError for another kind of artifact."""
    if artifact.kind != "engine":
        raise ArtifactError(f"{artifact.path}: expected an engine, got an artifact of kind {artifact.kind}; "
                            "give RUN/engine/ID")  # fmt: skip
    details = artifact.details
    file = artifact.file(details["engine"])
    same = [artifact.file(entry["name"]) for entry in artifact.manifest["files"]]
    return Engine(
        name=artifact.path.name,
        target=details["target"],
        precision=str(details["precision"]),
        file=file,
        spec=artifact.spec,
        options=dict(details["options"]),
        extra=tuple(one for one in same if one != file and one.parent == file.parent and one.stem == file.stem),
    )


def plain_name(engine: Engine) -> str:
    """Return the engine's name with letters, digits, `_`, `-` and `.` only, for software that makes paths of it."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", engine.name)


def write_contract(engine: Engine, folder: Path, separator: str = "") -> None:
    """Write the class names, one a line, and the contract as JSON.

    separator: a character that the reader of the labels splits lines at; it becomes a comma.
    """
    names = [name.replace(separator, ",") if separator else name for name in engine.spec.classes]
    (folder / LABELS).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (folder / CONTRACT).write_text(json.dumps(engine.spec.to_dict(), indent=1) + "\n", encoding="utf-8")


def write_readme(folder: Path, title: str, steps: Iterable[str], facts: Iterable[str]) -> None:
    """Write what to do with the files of a folder, and what is known about them."""
    text = [f"# {title}", "", *(f"{number}. {step}" for number, step in enumerate(steps, 1)), ""]
    text += [f"- {fact}" for fact in facts]
    (folder / README).write_text("\n".join(text) + "\n", encoding="utf-8")
