"""The options of every plugin: each is described, and its default is a value that a recipe could give."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import TypeAdapter

from edgekd.board.options import descriptions, path_options
from edgekd.core import plugins
from edgekd.core.plugin_options import path_options_of

PLUGINS = [(kind, name) for kind in plugins.WITH_OPTIONS for name in plugins.names(kind)]


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_option_has_a_description(kind: str, name: str) -> None:
    assert [key for key, text in descriptions(plugins.options_type(kind, name)).items() if not text.endswith(".")] == []


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_paths_are_those_that_the_source_shows(kind: str, name: str) -> None:
    assert path_options(plugins.options_type(kind, name)) == path_options_of(kind, name)


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_the_defaults_are_what_the_options_take(kind: str, name: str) -> None:
    options_type = plugins.options_type(kind, name)
    required = {field.name: "x" for field in dataclasses.fields(options_type) if not has_default(field)}
    made = options_type(**required)
    assert TypeAdapter(options_type).validate_python(dataclasses.asdict(made)) == made
    assert dataclasses.is_dataclass(made)
    assert options_type.__dataclass_params__.frozen


def has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
