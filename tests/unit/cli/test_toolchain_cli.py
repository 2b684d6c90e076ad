"""`edgekd toolchain`: results on stdout, exit code 1 when something is wrong, 2 for a name that nobody has."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import edgekd


def test_list_names_what_can_be_installed(tmp_path: Path) -> None:
    rows = json.loads(edgekd("toolchain", "list", "--json", "--folder", str(tmp_path)).stdout)
    assert [(row["name"], row["version"], row["installed"]) for row in rows] == [("rknn", "2.5.0", False)]


def test_doctor_of_what_is_not_installed_says_how_to_install_it(tmp_path: Path) -> None:
    done = edgekd("toolchain", "doctor", "rknn", "--json", "--folder", str(tmp_path))
    assert done.returncode == 1
    (check,) = json.loads(done.stdout)
    assert not check["ok"]
    assert "edgekd toolchain install rknn" in check["text"]


def test_an_unknown_name_is_one_line(tmp_path: Path) -> None:
    done = edgekd("toolchain", "install", "rkn", "--folder", str(tmp_path))
    assert done.returncode == 2
    assert "no toolchain has the name 'rkn'" in done.stderr
    assert "Traceback" not in done.stderr
