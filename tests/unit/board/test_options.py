"""Declared options: defaults, descriptions and paths, and that pydantic reads such a dataclass like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from edgekd.board.options import descriptions, option, path_options


@dataclass(frozen=True)
class Options:
    """A required path, a limited number, a path that may be a switch, and a mapping."""

    root: str = option(..., "Folder.", is_path=True)
    weight: Annotated[float, Field(ge=0)] = option(1.0, "Weight.")
    start: str | Literal[True] | None = option(None, "File.", is_path=True)
    strides: dict[int, float] = option({8: 0.5}, "Weight of each stride.")
    plain: int = 3


def test_descriptions_and_paths_are_read_from_the_declaration() -> None:
    assert descriptions(Options) == {
        "root": "Folder.", "weight": "Weight.", "start": "File.", "strides": "Weight of each stride.", "plain": ""
    }  # fmt: skip
    assert path_options(Options) == ("root", "start")


def test_defaults_are_those_of_the_declaration() -> None:
    assert Options("x") == Options("x", 1.0, None, {8: 0.5}, 3)
    with pytest.raises(TypeError, match="root"):
        Options()  # type: ignore[call-arg]


def test_a_default_that_can_change_is_copied() -> None:
    Options("x").strides[16] = 1.0
    assert Options("x").strides == {8: 0.5}


@pytest.mark.parametrize(
    ("given", "place"),
    [({}, "root"), ({"root": "x", "weight": -1}, "weight"), ({"root": "x", "strides": {"a": 1}}, "a")],
)
def test_pydantic_keeps_types_limits_and_required_options(given: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        TypeAdapter(Options).validate_python(given)
    assert place in refusal.value.errors()[0]["loc"]


def test_pydantic_fills_in_the_defaults() -> None:
    read = TypeAdapter(Options).validate_python({"root": "x", "strides": {"4": 2}, "start": True})
    assert read == Options("x", 1.0, True, {4: 2.0}, 3)
