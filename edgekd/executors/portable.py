"""The portable part of edgekd as files, for a process that must not see anything else of this environment."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import edgekd

PARTS = ("__init__.py", "errors.py", "board", "rewrites", "targets", "worker.py", "worker_tasks.py")


def copy_to(folder: Path, module: ModuleType) -> Path:
    """Copy what is needed to run a worker into `folder` and return it, to be put on PYTHONPATH.

    Args:
        folder: is made.
        module: that of the target. One of another package is copied under its own name: a package with everything in its
            folder, a module as one file. The packages around it are empty in the copy.
    """
    source, package = Path(edgekd.__path__[0]), folder / "edgekd"
    for part in PARTS:
        _copy(source / part, package / part)
    if not module.__name__.startswith("edgekd."):
        assert module.__file__ is not None  # a target is not a namespace package
        own = Path(module.__file__)
        place = folder.joinpath(*module.__name__.split("."))
        if own.name == "__init__.py":
            _copy(own.parent, place)
        else:
            _copy(own, place.with_suffix(".py"))
        for around in place.parents[: module.__name__.count(".")]:
            (around / "__init__.py").touch()
    return folder


def _copy(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, place)
