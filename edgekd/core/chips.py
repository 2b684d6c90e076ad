"""Chips: silicon facts as data, one file each in `edgekd/chips/` or beside a target, every fact with its source.

The files also hold evidence of what has run on a chip. The docs' support matrix is made from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.core import plugins
from edgekd.errors import ArtifactError, RecipeError, did_you_mean, one_line


class Fact(BaseModel):
    """One sentence, and its source: a URL, or the version of a package whose code shows it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    text: str
    source: str


class Evidence(BaseModel):
    """Evidence for a target in some precisions, with the version of its toolchain and the date (ISO).

    shown: `hardware`, run on the chip; `emulated`, run on a processor that QEMU emulates; `simulated`, built, and run by the
        vendor's simulator; `built`, nothing was run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    target: str
    precisions: tuple[str, ...]
    shown: Literal["hardware", "emulated", "simulated", "built"]
    version: str
    date: str


class Chip(BaseModel):
    """A chip: its title, the targets that compile for it, the precisions it lacks, facts, and evidence.

    compatible: beginnings of device tree strings that only boards with this chip have.
    machines: processors (`uname -m`) of boards without such a string.
    settings: commands that set a power mode and lock the clocks on the board; "" if unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    targets: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    settings: str = ""
    facts: tuple[Fact, ...]
    evidence: tuple[Evidence, ...] = ()


def names() -> list[str]:
    """Return the names of the chips, sorted; recipes use them in a target's option `chip`."""
    return sorted(_files())


def load(name: str) -> Chip:
    """Return a chip by name.

    Raises:
        RecipeError: no chip has this name.
        ArtifactError: its file is damaged.
    """
    files = _files()
    if name not in files:
        raise RecipeError(f"no chip has the name {name!r}{did_you_mean(name, files)}")
    return _read(files[name])


def recognize(machine: str, compatible: Sequence[str]) -> str | None:
    """Return the name of a board's chip, None for an unknown chip.

    Args:
        machine: processor, as `uname -m` names it.
        compatible: strings of the device tree, `compatible` of its root; they come before `machine`.
    """
    known = {name: load(name) for name in names()}
    by_tree = {
        beginning: name
        for name, chip in known.items()
        for beginning in chip.compatible
        if any(one.startswith(beginning) for one in compatible)
    }
    if by_tree:
        return by_tree[max(by_tree, key=len)]
    return next((name for name, chip in known.items() if machine in chip.machines), None)


@cache
def _read(path: Path) -> Chip:
    try:
        return Chip.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as exc:
        raise ArtifactError(f"{path}: damaged: {one_line(exc)}") from exc


def check(target: str, options: Any, precision: str) -> None:
    """Refuse an option `chip` that is not a chip of the target, or has no such precision.

    Raises:
        RecipeError: no chip has this name, the target does not compile for it, or it lacks the precision.
    """
    name = named_in(options)
    if name is None:
        return
    if target not in load(name).targets:
        known = [other for other in names() if target in load(other).targets]
        raise RecipeError(f"engines: target {target} does not compile for {name}; expected one of {', '.join(known)}")
    if precision in load(name).lacks:
        raise RecipeError(f"engines: {name} has no {precision}; choose another precision of {target}")


def named_in(options: Any) -> str | None:
    """Return the chip in a target's option `chip`, None without that option."""
    chip: str | None = vars(options).get("chip")
    return chip


def _files() -> dict[str, Path]:
    """Return the file of each chip by name; edgekd's own come before those of targets."""
    own = (Path(str(resources.files("edgekd"))) / "chips").glob("*.yaml")
    brought = (path for _, target in plugins.targets() for path in target.info.chips)
    return {path.stem: path for path in (*brought, *own)}
