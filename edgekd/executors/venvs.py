"""Toolchain virtualenvs: one per toolchain and locked version, in the user's cache folder, never in their environment.

    <target>/toolchain.txt           exact versions with hashes; its head names the Pythons that it was locked for
    <root>/<name>-<version>-<lock>/  a finished virtualenv, described by its `toolchain.json`
    <root>/.making-...               an unfinished one; never used, removed by the next install

`<root>` is the option of the command line, `$EDGEKD_TOOLCHAINS`, or `edgekd/toolchains` in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from filelock import FileLock

from edgekd.board.files import cache_folder, write_atomic
from edgekd.core import plugins
from edgekd.core.workspace import disk_errors
from edgekd.errors import ToolchainError, did_you_mean
from edgekd.executors.logs import last_lines

ROOT_VARIABLE = "EDGEKD_TOOLCHAINS"
FACTS = "toolchain.json"


@dataclass(frozen=True)
class Lock:
    """The locked requirements of a toolchain: its file, the pinned version of the toolchain's own package, and the Python
    versions that the pins were tried with, the preferred one first."""

    name: str
    path: Path
    version: str
    pythons: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Return the name of the virtualenv's folder; other requirements or Pythons give another, comments do not."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        requirements = "\n".join(line for line in lines if not line.startswith("# ") or line.startswith("# python:"))
        return f"{self.name}-{self.version}-{hashlib.sha256(requirements.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Installed:
    """A finished virtualenv. `size_bytes` is that of its files; `packages` is name -> version as installed."""

    name: str
    version: str
    path: Path
    python_version: str
    installer: str
    created: str
    size_bytes: int
    packages: dict[str, str]

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.path / "bin/python"


def locks() -> dict[str, Lock]:
    """Return the toolchains that can be installed, by name of the target that compiles in it."""
    files = {name: one.info.toolchain.requirements for name, one in plugins.targets() if one.info.toolchain}
    return {name: read_lock(name, path) for name, path in files.items() if path is not None}


def lock_of(name: str) -> Lock:
    """Return the lock of a toolchain; ToolchainError if no toolchain has this name."""
    known = locks()
    if name not in known:
        raise ToolchainError(f"no toolchain has the name {name!r}{did_you_mean(name, known)}")
    return known[name]


def read_lock(name: str, path: Path) -> Lock:
    """Return the lock of a toolchain in a requirements file with `# toolchain: <its own package>` and `# python: <versions>`."""
    text = path.read_text(encoding="utf-8")
    head = dict(re.findall(r"^# (toolchain|python): (.+)$", text, re.M))
    version = re.search(rf"^{re.escape(head['toolchain'])}==([^\s;\\]+)", text, re.M)
    assert version is not None, f"{path}: the toolchain's own package is not pinned"
    return Lock(name, path, version[1], tuple(head["python"].split()))


def root_of(folder: Path | None = None) -> Path:
    """Return the folder of all toolchains: `folder`, `$EDGEKD_TOOLCHAINS`, or one in the user's cache folder.

    Raises:
        ToolchainError: neither is given and the user has no home folder.
    """
    if folder is not None:
        return folder.expanduser().absolute()
    if chosen := os.environ.get(ROOT_VARIABLE):
        return Path(chosen).expanduser().absolute()
    cache = cache_folder()
    if cache is None:
        raise ToolchainError(f"there is no home folder to install toolchains in; set {ROOT_VARIABLE} to a folder")
    return cache / "toolchains"


def installed(root: Path) -> list[Installed]:
    """Return the finished virtualenvs below a root by folder name, also those of other locks."""
    return [found for path in sorted(root.glob(f"[!.]*/{FACTS}")) if (found := _read(path)) is not None]


def find(lock: Lock, root: Path) -> Installed:
    """Return the virtualenv that was made from this lock; ToolchainError when there is none."""
    name = lock.name
    found = _read(root / lock.folder / FACTS)
    if found is None or not found.python.exists():
        others = [one.version for one in installed(root) if one.name == name]
        other = f" (there is one of other requirements, {', '.join(others)})" if others else ""
        raise ToolchainError(
            f"toolchain {name} {lock.version} is not installed{other}; edgekd toolchain install {name}"
        )
    return found


def install(lock: Lock, root: Path) -> Installed:
    """Make the virtualenv of a lock, or return the one that is there.

    It is made under a temporary name and renamed when complete; after a kill `find` sees nothing.

    Raises:
        ToolchainError: no Python that fits, or the installer failed.
        WorkspaceError: the disk is full or cannot be written.
    """
    final, making = root / lock.folder, root / f".making-{lock.folder}"
    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{lock.name}.lock"):
            there = _read(final / FACTS)
            if there is not None and there.python.exists():
                return there
            for left in (making, final):
                shutil.rmtree(left, ignore_errors=True)
            log = root / f"{lock.name}.install.log"
            installer, version = _make(lock, making, log)
            facts = Installed(
                name=lock.name,
                version=lock.version,
                path=final,
                python_version=version,
                installer=installer,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                size_bytes=sum(f.lstat().st_size for f in making.rglob("*") if f.is_file() and not f.is_symlink()),
                packages=packages_in(making),
            )
            write_atomic(making / FACTS, json.dumps({**asdict(facts), "path": final.name}, indent=1))
            os.replace(making, final)
            return facts


def remove(name: str, root: Path) -> list[Path]:
    """Remove every virtualenv of a toolchain and return their folders; ToolchainError when there is none."""
    left_over = f".removing-{name}-*"  # of a removal that was killed
    if not any(one.name == name for one in installed(root)) and not any(root.glob(left_over)):
        raise ToolchainError(f"toolchain {name} is not installed in {root}; edgekd toolchain list")
    with disk_errors(root), FileLock(root / f".{name}.lock"):
        for left in root.glob(left_over):
            shutil.rmtree(left)
        found = [one.path for one in installed(root) if one.name == name]
        for path in found:
            gone = path.with_name(f".removing-{path.name}")
            os.replace(path, gone)
            shutil.rmtree(gone)
    return found


def uv() -> str | None:
    """Return uv's path: beside this Python, else on the PATH."""
    own = Path(sys.executable).with_name("uv")
    return str(own) if own.exists() else shutil.which("uv")


def packages_in(venv: Path) -> dict[str, str]:
    """Return name -> version of what is installed in a virtualenv, read from its dist-info folders."""
    names = [path.name[: -len(".dist-info")] for path in venv.glob("lib/python3*/site-packages/*.dist-info")]
    return {normalised(name): version for name, _, version in sorted(n.partition("-") for n in names)}


def pinned(lock: Lock) -> dict[str, str]:
    """Return name -> version of a lock's packages."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.path.read_text(encoding="utf-8"), re.M)
    return {normalised(name): version for name, version in lines}


def normalised(name: str) -> str:
    """Return a distribution's name in the one spelling of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: Path) -> Installed | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Installed(**{**data, "path": path.parent})
    except (OSError, ValueError, TypeError):  # absent or damaged: not installed
        return None


def _make(lock: Lock, folder: Path, log: Path) -> tuple[str, str]:
    """Make a virtualenv and install the lock; return the installer's name and the Python's version.

    Every file is compared with the lock's hash; a package without one, or with another file, fails the installation.
    """
    python, version = _interpreter(lock)
    installer = uv()
    inside = str(folder / "bin/python")
    if installer:
        steps = [
            [installer, "venv", "--no-project", "--python", python, str(folder)],
            [installer, "pip", "install", "--require-hashes", "--python", inside, "--requirements", str(lock.path)],
        ]
    else:
        steps = [
            [python, "-m", "venv", str(folder)],
            [inside, "-m", "pip", "install", "--require-hashes", "--requirement", str(lock.path)],
        ]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    with open(log, "wb") as file:
        for step in steps:
            code = subprocess.run(
                step, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            ).returncode
            if code != 0:
                shutil.rmtree(folder, ignore_errors=True)
                raise ToolchainError(
                    f"toolchain {lock.name}: {_called(step)} failed with exit code {code}: "
                    f"{last_lines(log, 3)}; whole log: {log}"
                )
    return ("uv" if installer else "pip"), version


def _called(step: list[str]) -> str:
    """Return a command's words before its first option, e.g. `uv pip install`."""
    words = [Path(step[0]).name, *step[1:]]
    return " ".join(words[: next(i for i, word in enumerate(words) if word.startswith("-") and word != "-m")])


def _interpreter(lock: Lock) -> tuple[str, str]:
    """Return a Python that the lock was made for, this one if it is one of them, and its version."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running in lock.pythons:
        return sys.executable, running
    for version in lock.pythons:
        found = shutil.which(f"python{version}")
        # A shim of pyenv may stand for a version that is not there: ask it.
        if found and subprocess.run([found, "-c", ""], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0:
            return found, version
    raise ToolchainError(
        f"toolchain {lock.name} {lock.version} needs Python {' or '.join(lock.pythons)}, this is {running} and none of "
        f"them is on the PATH; install python{lock.pythons[0]} (uv python install {lock.pythons[0]})"
    )
