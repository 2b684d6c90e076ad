"""The public face: `edgekd.__all__`, what it resolves to, and the version."""

from __future__ import annotations

import inspect
import re

import pytest

import edgekd
from edgekd import api
from tests.architecture.sources import modules
from tests.conftest import REPOSITORY


def test_all_is_the_public_functions_of_the_api_and_the_version() -> None:
    functions = {
        name
        for name, value in vars(api).items()
        if inspect.isfunction(value) and value.__module__ == api.__name__ and not name.startswith("_")
    }
    assert set(edgekd.__all__) == functions | {"__version__"}
    assert sorted(edgekd.__all__) == edgekd.__all__


def test_every_name_in_all_resolves() -> None:
    assert [name for name in edgekd.__all__ if getattr(edgekd, name, None) is None] == []


def test_no_other_name_resolves() -> None:
    with pytest.raises(AttributeError, match="module 'edgekd' has no attribute 'load_engin'"):
        _ = edgekd.load_engin


def test_no_module_hides_a_public_name() -> None:
    assert {f"edgekd.{name}" for name in edgekd.__all__} & set(modules()) == set()


def test_the_version_is_the_projects() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'^version = "(.+)"$', text, re.MULTILINE) == [edgekd.__version__]
