"""The portable part of edgekd as files, for a process that must not see anything else of this environment."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from types import ModuleType

import edgekd

PARTS = ("__init__.py", "errors.py", "board", "rewrites", "targets")


def copy_to(folder: Path, target: str, module: ModuleType) -> Path:
    """Copy what is needed to run a worker into `folder` and return it, to be put on PYTHONPATH.

    Args:
        folder: is made.
        target: name of the target.
        module: its module; one from another package is copied to `edgekd/targets/<target>.py`, too.
    """
    source, package = Path(edgekd.__path__[0]), folder / "edgekd"
    package.mkdir(parents=True)
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / part, package / part)
    place = package / "targets" / target / "target.py"
    if not place.exists():
        place.parent.mkdir()
        (place.parent / "__init__.py").touch()
        shutil.copyfile(inspect.getsourcefile(module) or "", place)
    return folder
