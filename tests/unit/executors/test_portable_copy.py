"""The portable copy: a worker in it finds edgekd's targets and those of other packages, whole, and nothing else of edgekd."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.executors import portable

TARGET = """
from dataclasses import dataclass
from edgekd.targets.base import SessionBase, Target, TargetInfo
{imports}

@dataclass(frozen=True)
class Options:
    "None."

def runtime_version(): return VERSION
def build_engine(request): raise AssertionError

TARGET = Target(TargetInfo(".bin", "toolchain", "vendor", ("int8",), ""), Options, SessionBase, runtime_version, build_engine)
"""


@pytest.mark.parametrize("kind", ["module", "package", "package in a package"])
def test_a_target_of_another_package_is_copied_under_its_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, name = tmp_path / "site", {"module": "alone", "package": "whole"}.get(kind, "outer.inner")
    place = site.joinpath(*name.split("."))
    place.parent.mkdir(parents=True)
    if kind == "module":
        place.with_suffix(".py").write_text(TARGET.format(imports="VERSION = '1.0'"))
    else:
        place.mkdir()
        (place / "__init__.py").write_text(TARGET.format(imports=f"from {name}.facts import VERSION"))
        (place / "facts.py").write_text("VERSION = '1.0'\n")
    if "." in name:  # what stands around the target need not be portable, and is not copied
        (place.parent / "__init__.py").write_text("import sys\nassert 'pytest' in sys.modules\n")
    monkeypatch.syspath_prepend(str(site))
    code = portable.copy_to(tmp_path / "code", [importlib.import_module(name)])
    program = f"import importlib, sys; print(importlib.import_module({name!r}).TARGET.runtime_version(), *sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=code, env={}, capture_output=True, text=True)
    assert done.stdout.startswith("1.0 "), done.stderr
    assert not (code / "edgekd/core").exists()
    assert (code / "edgekd/worker.py").is_file()
