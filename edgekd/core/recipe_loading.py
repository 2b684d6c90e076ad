"""Loads a recipe by name or file and checks it; an unknown key is refused with a suggestion.

`load_recipe(path, overrides)` is the only way in. Relative paths start at the recipe's folder. The options of data formats,
quantizers and targets are typed here. Those of families and methods, which import torch, are typed by
`pipeline.checks.check_options` before a run, or where they are first read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgekd.core import plugins
from edgekd.core.recipe import Recipe
from edgekd.core.recipe_file import apply_override, expanded, read_tree
from edgekd.errors import RecipeError, did_you_mean

SectionT = TypeVar("SectionT", bound=BaseModel)


def shipped_recipes() -> dict[str, Path]:
    """Return name -> file of the recipes that come with edgekd, e.g. `semantic/camvid_...`."""
    packaged = Path(str(resources.files("edgekd"))) / "recipes"
    root = packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_recipe(name_or_path: str) -> Path:
    """Return the file of a recipe given by path or by shipped name.

    Raises:
        RecipeError: neither a file nor a shipped recipe.
    """
    path = Path(name_or_path)
    try:
        is_file = path.is_file()
    except (OSError, ValueError) as exc:  # a name too long, a folder that may not be entered
        raise RecipeError(f"recipe {name_or_path!r}: {exc}") from exc
    if is_file:
        return path
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.is_dir():
        raise RecipeError(f"recipe {name_or_path!r} is a folder; expected a YAML file, or the name of a shipped recipe")
    hint = did_you_mean(name_or_path, shipped, "edgekd recipes list")
    raise RecipeError(f"{name_or_path}: no such file, and no shipped recipe has this name{hint}")


def load_recipe(name_or_path: str, overrides: Iterable[str] = (), boards: Iterable[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        name_or_path: a YAML file or the name of a shipped recipe.
        overrides: `key.path=value` strings; values are YAML. `@FILE` is a file with a YAML list of them.
        boards: names of boards that replace the boards of all engines.

    Raises:
        RecipeError: unreadable, not YAML, unknown key or plugin, value that does not fit; all findings in one line.
    """
    path, overrides = find_recipe(name_or_path), expanded(overrides)
    raw = read_tree(path)
    for override in overrides:
        apply_override(raw, override)
    if boards := list(dict.fromkeys(boards)):
        _move_engines(raw, boards)
    recipe = validate(Recipe, raw, str(path))
    _check_relative_paths(recipe, overrides, path)
    recipe = _absolute_paths(recipe, path.parent.resolve())
    check_plugins(recipe, but=plugins.TRAINED)
    return recipe


def stored_recipe(content: dict[str, Any], source: str) -> Recipe:
    """Return the recipe that a report holds, whose paths are absolute.

    Args:
        content: `recipe` of a report.json.
        source: the report, for errors.

    Raises:
        RecipeError: written by an edgekd with other keys, or a plugin is not installed.
    """
    recipe = validate(Recipe, content, source)
    check_plugins(recipe, but=plugins.TRAINED)
    return recipe


def _move_engines(raw: dict[str, Any], boards: list[str]) -> None:
    """Put every engine of a recipe (YAML) on these boards; engines that differ only in their board become one."""
    engines = raw.get("engines")
    if isinstance(engines, list):  # else it is refused with the rest
        moved = [{**one, "board": boards} if isinstance(one, dict) else one for one in engines]
        raw["engines"] = [one for place, one in enumerate(moved) if one not in moved[:place]]


def check_plugins(recipe: Recipe, but: Collection[str] = ()) -> None:
    """Make the typed options of every plugin in a recipe, except plugins of the kinds in `but`.

    Raises:
        RecipeError: an unknown plugin, one whose packages are not installed, an unknown option, or a value that does not
            fit.
    """
    for use in recipe.plugin_uses():
        if use.kind not in but:
            use.typed()


def validate(section: type[SectionT], raw: dict[str, Any], source: str) -> SectionT:
    """Return a section made from plain values; RecipeError names each key that does not fit, and `source`."""
    try:
        return section.model_validate(raw)
    except ValidationError as exc:
        errors = exc.errors()
        findings = "; ".join(_explain(section, error) for error in errors if not _is_echo(error, errors))
        raise RecipeError(f"{source}: {findings}") from exc


def _is_echo(error: Any, errors: Sequence[Any]) -> bool:
    """Return whether a "too short" list is a consequence of wrong items that pydantic left out and reports separately."""
    place = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in errors
    )


def _explain(section: type[BaseModel], error: Any) -> str:
    loc = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"{_loc(loc)}: unknown key{did_you_mean(str(loc[-1]), _known_keys(section, loc[:-1]))}"
    if error["type"] == "missing":
        return f"{_loc(loc)}: missing"
    got = json.dumps(error["input"], default=str)
    text = error["msg"].removeprefix("Value error, ")
    return f"{_loc(loc)}: {text}" + (f", got {got}" if len(got) < 80 and ", got " not in text else "")


def _known_keys(section: type[BaseModel], loc: tuple[Any, ...]) -> Iterable[str]:
    """Return the field names of the section that a pydantic error location points into."""
    schema = section.model_json_schema()
    node = schema
    for part in loc:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    properties: dict[str, Any] = _resolve(schema, node).get("properties", {})
    return properties


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", ()):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _loc(loc: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in loc) or "recipe"


def _check_relative_paths(recipe: Recipe, overrides: Sequence[str], path: Path) -> None:
    """Refuse relative paths in overrides that exist only from the current folder; RecipeError.

    Relative paths start at the recipe's folder. The current folder is meant if the path exists only there, or if the
    recipe is a shipped one, whose folder is not the user's.
    """
    given = [one for use in recipe.plugin_uses() for one in use.options.paths(use.kind, use.name).values()]
    given += [one for one in (recipe.teacher.checkpoint, recipe.student.checkpoint) if one is not None]
    base, here = path.parent.resolve(), Path.cwd()
    is_shipped = path in shipped_recipes().values()
    for override in overrides:
        key, _, value = override.partition("=")
        if (
            Path(value) not in given
            or Path(value).is_absolute()
            or value.startswith("~")
            or os.path.exists(base / value)
        ):
            continue
        if is_shipped or os.path.exists(here / value):
            raise RecipeError(
                f"override {override!r}: {base / value} does not exist; a relative path starts at the recipe's folder; for the "
                f"current folder write --set {key}={here / value}"
            )


def _absolute_paths(recipe: Recipe, base: Path) -> Recipe:
    """Return the recipe with absolute paths; relative ones start at `base`. Paths in plugin options are replaced."""
    for use in recipe.plugin_uses():
        use.options.replace_paths({key: _absolute(p, base) for key, p in use.options.paths(use.kind, use.name).items()})
    updates: dict[str, Any] = {}
    for name, network in (("teacher", recipe.teacher), ("student", recipe.student)):
        if network.checkpoint is not None:
            updates[name] = network.model_copy(update={"checkpoint": _absolute(network.checkpoint, base)})
    folders = {name: getattr(recipe.trainer, name) for name in ("teacher_cache", "log_dir")}
    if given := {name: _absolute(path, base) for name, path in folders.items() if path is not None}:
        updates["trainer"] = recipe.trainer.model_copy(update=given)
    return recipe.model_copy(update=updates)


def _absolute(path: Path, base: Path) -> Path:
    try:
        return (base / path.expanduser()).resolve()
    except (OSError, RuntimeError) as exc:  # no such user, a loop of links, a name too long
        raise RecipeError(f"path {str(path)!r}: {exc}") from exc
