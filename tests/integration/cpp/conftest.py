"""The C++ runner's programs, built once by CMake and shared by all tests and workers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import REPOSITORY


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs `edgekd-run` and `edgekd-allocations`, built with warnings as errors."""
    if "EDGEKD_CPP_BUILD" in os.environ:  # another build: of another processor, or with a sanitizer
        return Path(os.environ["EDGEKD_CPP_BUILD"])
    if shutil.which("cmake") is None or not (shutil.which("c++") or shutil.which("g++")):
        pytest.skip("no cmake or no C++ compiler here: apt-get install cmake g++")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cpp-build"
    found = importlib.util.find_spec("openvino")
    runtime = (
        f"-DOpenVINO_DIR={Path(str(found.origin)).parent / 'cmake'}" if found is not None else "-DEDGEKD_OPENVINO=OFF"
    )
    source = REPOSITORY / "deploy/cpp"
    commands = [
        ["cmake", "-S", str(source), "-B", str(folder), "-DEDGEKD_WARNINGS=ON", "-DEDGEKD_TESTS=ON", runtime],
        ["cmake", "--build", str(folder)],
    ]
    with FileLock(f"{folder}.lock"):
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


@pytest.fixture(scope="session")
def program(built: Path) -> Path:
    """The program `edgekd-run`."""
    return built / "edgekd-run"
