"""A copy of edgekd's portable packages, for a process that must not see the rest of this environment."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import edgekd

PARTS = (
    "__init__.py",
    "errors.py",
    "board",
    "rewrites",
    "targets",
    "runner",
    "release",
    "worker.py",
    "worker_tasks.py",
)


def copy_to(folder: Path, modules: Iterable[ModuleType]) -> Path:
    """Copy the code that a worker needs into `folder` and return the folder, for PYTHONPATH.

    Args:
        folder: created by this function.
        modules: modules of targets. One of another package is copied under its own name: a package with everything in its folder,
            a module as one file. The packages around it are empty in the copy.
    """
    source, package = Path(edgekd.__path__[0]), folder / "edgekd"
    for part in PARTS:
        _copy(source / part, package / part)
    for module in modules:
        if not module.__name__.startswith("edgekd."):
            _copy_module(module, folder)
    return folder


def pack(archive: Path, modules: Iterable[ModuleType]) -> Path:
    """Write the portable copy as a tar archive and return it; the same code makes the same bytes."""
    with (
        TemporaryDirectory(prefix="edgekd-code-") as text,
        tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        folder = copy_to(Path(text), modules)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size = path.stat().st_size
                with open(path, "rb") as file:
                    tar.addfile(entry, file)
    return archive


def _copy_module(module: ModuleType, folder: Path) -> None:
    assert module.__file__ is not None  # a target is not a namespace package
    own = Path(module.__file__)
    place = folder.joinpath(*module.__name__.split("."))
    if own.name == "__init__.py":
        _copy(own.parent, place)
    else:
        _copy(own, place.with_suffix(".py"))
    for around in place.parents[: module.__name__.count(".")]:
        (around / "__init__.py").touch()


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, place)
