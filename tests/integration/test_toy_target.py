"""A target in a package of its own, with every hook and file of one, enrols everywhere without an edit of edgekd."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgekd.release.archive import unpack
from tests.conftest import REPOSITORY
from tests.integration.conftest import TINY
from tests.unit.core.test_plugins import register

TOY = Path(__file__).parent / "toy_edge"
RECIPE = {
    **TINY,
    "distill": {"methods": {}},
    "engines": [
        {"target": "toy", "precision": "fp32", "options": {"cache_dir": "notes"}},
        {"target": "toy", "precision": "int8"},
        {"target": "onnxruntime", "precision": "fp32"},
    ],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `site/` (the installed package), `toolchains/` (its virtualenv) and `tiny.yaml` (a recipe).

    The virtualenv is this Python under another name: what the toolchain's worker sees of edgekd and of the toy are the
    copies that it is given.
    """
    folder = tmp_path_factory.mktemp("toy")
    shutil.copytree(TOY, folder / "site/toy_edge", ignore=shutil.ignore_patterns("__pycache__"))
    register(folder / "site", "targets", "toy", "toy_edge")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    made = run(folder, "from edgekd.executors import venvs; print(venvs.lock_of('toy').folder)")
    venv = folder / "toolchains" / made.stdout.strip()
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "bin/python").chmod(0o755)
    facts = {
        "name": "toy", "version": "1.0", "path": venv.name, "python_version": "3", "installer": "test", "created": "",
        "size_bytes": 1, "packages": {},
    }  # fmt: skip
    (venv / "toolchain.json").write_text(json.dumps(facts))
    return folder


def run(place: Path, program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program in `place`, with the toy installed and its toolchain in its place."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(place / "site"), str(REPOSITORY)]),
        "EDGEKD_TOOLCHAINS": str(place / "toolchains"),
        **variables,
    }
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)


def edgekd(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(place, "from edgekd.cli.main import main; main()", *arguments, **variables)


def test_the_contract_tests_take_it_by_its_name(place: Path) -> None:
    program = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    tests = [str(REPOSITORY / "tests/contract" / f"test_{kind}_contract.py") for kind in ("targets", "chips")]
    done = run(place, program, "-p", "no:cacheprovider", "-k", "toy", "-rs", *tests)
    assert done.returncode == 0, done.stdout
    assert "10 passed" in done.stdout or int(done.stdout.rpartition(" passed")[0].split()[-1]) > 10


def test_doctor_and_toolchain_name_it(place: Path) -> None:
    checks = {one["name"]: one for one in json.loads(edgekd(place, "doctor", "--json").stdout)["checks"]}
    assert checks["target toy"] == {"name": "target toy", "ok": True, "text": "1.0, fp32, int8"}
    absent = json.loads(edgekd(place, "doctor", "--json", TOY_BOARD="0").stdout)["checks"]
    (toy,) = [one["text"] for one in absent if one["name"] == "target toy"]
    assert toy == "1.0, fp32, int8; engines can be built and not run: no toy board in this machine"
    assert "toy          1.0" in edgekd(place, "toolchain", "list").stdout
    starts = edgekd(place, "toolchain", "doctor", "toy")
    assert "ok       starts" in starts.stdout, starts.stdout


def test_the_reference_pages_name_it_with_its_chip(place: Path) -> None:
    docs = str(REPOSITORY / "docs")
    program = f"import sys; sys.path.insert(0, {docs!r}); import generate; print(*(generate.PARTS[part]() for part in sys.argv[1:]))"
    pages = run(place, program, "support", "chips")
    assert "| `toy` | `toychip` | fp32 | toolchain | built here | 1.0 | 2026-11-29 |" in pages.stdout, pages.stderr
    assert "| `toy` | `toychip` | int8 | toolchain | code only | – | – |" in pages.stdout
    assert "| `toychip` | Toy chip | It is a toy. | toy_edge |" in pages.stdout


def test_check_asks_its_parser_its_tables_and_its_own_check(place: Path) -> None:
    done = edgekd(place, "check", "tiny.yaml", "--target", "toy", "--json")
    (report,) = json.loads(done.stdout)
    assert (report["parsed"]["answer"], report["parsed"]["text"]) == ("yes", "toy compiler"), done.stderr
    assert {"cpu_fallback"} == {one["consequence"] for one in report["findings"] if one["operator"] == "Resize"}
    fast = "engines=[{target: toy, precision: int8, options: {is_fast: true}}]"
    refused = edgekd(place, "run", "tiny.yaml", "--out", "refused", "--set", fast)
    assert refused.returncode == 2
    assert "engines: toy-int8: toy: is_fast contradicts precision int8; leave it out" in refused.stderr


def test_a_run_compiles_scores_times_and_reports_it(place: Path) -> None:
    out = place / "run"
    done = edgekd(place, "run", "tiny.yaml", "--out", "run")
    assert done.returncode == 0, done.stderr
    rows = {row["id"]: row for row in json.loads((out / "report.json").read_text())["rows"]}
    for name in ("toy-fp32", "toy-int8"):
        assert rows[name]["status"] == "measured"
        assert rows[name]["latency_ms"]["p50"] > 0
    assert rows["toy-fp32"]["metrics"] == rows["onnxruntime-fp32"]["metrics"]
    manifests = {name: json.loads((out / f"engine/toy-{name}/manifest.json").read_text()) for name in ("fp32", "int8")}
    build = manifests["int8"]["details"]["build"]
    assert build["pixels"] == [8, 64, 96, 3]
    assert build["log_notes"] == ["TOY NOTE: this is no chip"]
    assert str(place) not in build["where"], "the toolchain ran the installed package instead of its copy"
    assert (place / "notes/fp32.txt").is_file(), "a path in a recipe is relative to the recipe"
    assert manifests["int8"]["environment"]["packages"]["thing-toy"] == "1.0"
    assert manifests["int8"]["environment"]["toy_board"] == "1"
    edited = place / "site/toy_edge/rounding.py"
    edited.write_text(edited.read_text().replace("127", "63"))
    again = json.loads(edgekd(place, "run", "tiny.yaml", "--out", "run", "--json").stdout)
    made = {stage["name"] for stage in again["stages"] if not stage["skipped"]}
    assert {"engine/toy-fp32", "engine/toy-int8"} <= made
    assert not {"engine/onnxruntime-fp32", "export", "student"} & made


def test_where_its_board_is_absent_engines_are_built_and_the_row_says_why(place: Path) -> None:
    until = edgekd(place, "compile", "tiny.yaml", "--out", "run", TOY_BOARD="0")
    assert until.returncode == 0, until.stderr
    rows = {row["id"]: row for row in json.loads((place / "run/report.json").read_text())["rows"]}
    assert (rows["toy-fp32"]["status"], rows["toy-fp32"]["reason"]) == ("not measured", "no toy board in this machine")


def test_a_bundle_brings_its_code_and_none_of_the_paths_in_its_options(place: Path) -> None:
    refused = edgekd(place, "bundle", "run/engine/toy-fp32", TOY_BOARD="0")
    assert refused.returncode == 2
    assert "no toy board in this machine" in refused.stderr
    done = edgekd(place, "bundle", "run/engine/toy-fp32", "-o", "toy.tar", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)["manifest"]
    assert (manifest["target"], manifest["module"], manifest["options"]) == ("toy", "toy_edge", {})
    unpack(place / "toy.tar", place / "unpacked")
    assert (place / "unpacked/runtime/toy_edge/__init__.py").is_file()
    assert str(place) not in (place / "unpacked/manifest.json").read_text()
