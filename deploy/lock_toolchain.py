"""Writes the hashes into a toolchain's lock: python deploy/lock_toolchain.py edgekd/targets/rknn/toolchain.txt

Versions stay as they stand in the file. For each package the hashes of the wheels that uv would install under Linux on
x86-64 and arm64 with the lock's Python are written; other files of the release, source packages among them, cannot be
installed from the lock. Needs uv, and Python 3.11 for tomllib.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import tomllib

PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")


def main(lock: Path) -> None:
    """Rewrite one lock in place, its head and the order of its packages kept."""
    text = lock.read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.-]+)(==[^\s;\\]+(?: ; [^\\\n]+?)?)(?: \\)?$", text, re.M)
    python = re.search(r"^# python: (\S+)", text, re.M)
    assert python is not None, f"{lock}: no line `# python: ...`"
    hashes = wheel_hashes([f"{name}{rest}" for name, rest in pins], python[1])
    lines = [line for line in text.splitlines() if line.startswith("#")]
    for name, rest in pins:
        lines.append(" \\\n".join([f"{name}{rest}", *(f"    --hash=sha256:{one}" for one in hashes[name])]))
    lock.write_text("\n".join(lines) + "\n", encoding="utf-8")


def wheel_hashes(requirements: list[str], python: str) -> dict[str, list[str]]:
    """Return package -> SHA-256 of its wheels, sorted, as the package index tells them to uv."""
    found: dict[str, set[str]] = {}
    with TemporaryDirectory() as folder:
        given, made = Path(folder) / "requirements.txt", Path(folder) / "pylock.toml"
        given.write_text("\n".join(requirements), encoding="utf-8")
        for platform in PLATFORMS:
            subprocess.run(
                ["uv", "pip", "compile", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", python,
                 "--python-platform", platform, "--format", "pylock.toml", "-o", str(made), str(given)],
                check=True,
            )  # fmt: skip
            for package in tomllib.loads(made.read_text(encoding="utf-8"))["packages"]:
                wheels = {wheel["hashes"]["sha256"] for wheel in package["wheels"]}
                found.setdefault(package["name"], set()).update(wheels)
    return {name: sorted(hashes) for name, hashes in found.items()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
