"""The dependencies: each names its oldest version, and these versions exist together as wheels for every supported Python."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.architecture.sources import REPOSITORY

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# tensorrt-rtx-cu12 and tensorrt have no wheel of their own on PyPI: they fetch one when they are built.
NO_WHEEL = {"tensorrt", "tensorrt-rtx", "dev"}


def project() -> dict[str, Any]:
    """Table `project` of pyproject.toml."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def dependencies() -> set[str]:
    """Every direct dependency of the project and of its extras, without the extras of packages."""
    table = project()
    found = [one for extra in (table["dependencies"], *table["optional-dependencies"].values()) for one in extra]
    return {re.sub(r"\[.*\]", "", one) for one in found if not one.startswith("edgekd[")}


def test_every_dependency_names_one_oldest_version() -> None:
    found = dependencies()
    assert {one for one in found if not re.match(r"[\w-]+>=[\d.]+($|;)", one)} == set()
    names = [one.split(">=")[0] for one in found]
    assert sorted(names) == sorted(set(names))


def test_the_workflow_tests_every_supported_python() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/test.yml").read_text())
    assert tuple(workflow["jobs"]["versions"]["strategy"]["matrix"]["python"]) == PYTHONS
    assert project()["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.slow
@pytest.mark.parametrize("version", [PYTHONS[0], PYTHONS[-1]])
def test_the_oldest_versions_exist_together_as_wheels(version: str, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which is not installed")
    extras = [f"--extra={name}" for name in sorted(set(project()["optional-dependencies"]) - NO_WHEEL)]
    wanted = ["--python-version", version, "--resolution", "lowest-direct", "--only-binary", ":all:", *extras]
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        *wanted,
        "--output-file",
        str(tmp_path / "oldest.txt"),
        "pyproject.toml",
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if re.search(r"[Ff]ailed to fetch|error sending request|timed out", done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
