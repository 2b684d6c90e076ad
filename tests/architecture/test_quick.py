"""The fast lane: which tests are in it, and that collecting them imports no framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.sources import FRAMEWORKS, REPOSITORY, modules_of_tests
from tests.quick import needs_framework

COLLECT = """
import sys, pytest
code = pytest.main(["-p", "tests.quick", "--collect-only", "-q"])
print(int(code), *sys.modules)
"""


@pytest.mark.slow
def test_collecting_the_fast_lane_imports_no_framework() -> None:
    command = [sys.executable, "-c", COLLECT]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    code, *imported = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout
    assert {name.partition(".")[0] for name in imported} & FRAMEWORKS == set()
    assert "tests/architecture/test_quick.py: " in done.stdout


def test_the_fast_lane_leaves_out_files_that_import_a_framework_by_any_way() -> None:
    left_out = {name for name, file in modules_of_tests().items() if needs_framework(file)}
    assert "tests.unit.models.test_build" in left_out  # torch itself
    assert "tests.unit.train.test_loop" in left_out  # through the tiny task and edgekd.train
    assert "tests.unit.cli.test_cli" in left_out  # through the server that imports all of them
    assert "tests.integration.test_report_browser" in left_out  # through the conftest.py of its folder
    assert not {name for name in left_out if name.startswith(("tests.architecture", "tests.unit.core"))}
