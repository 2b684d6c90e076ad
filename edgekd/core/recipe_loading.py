"""From the name or the file of a recipe to checked sections; unknown keys are refused with a suggestion.

`load_recipe(path, overrides)` is the only way in. Relative paths in a recipe are relative to the recipe's file.
The keys under `options` belong to a plugin and are checked against its `Options` by `plugin_options`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from edgekd.core import plugins
from edgekd.core.recipe import Options, Recipe
from edgekd.core.recipe_file import apply_override, read_tree
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
    raise RecipeError(
        f"recipe {name_or_path!r} is neither a file nor a shipped recipe{did_you_mean(name_or_path, shipped)}"
    )


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        name_or_path: a YAML file or the name of a shipped recipe.
        overrides: `key.path=value` strings; values are YAML.

    Raises:
        RecipeError: unreadable, not YAML, unknown key, value that does not fit; all findings in one line.
    """
    path = find_recipe(name_or_path)
    raw = read_tree(path)
    for override in overrides:
        apply_override(raw, override)
    recipe = _validate(Recipe, raw, str(path))
    return _absolute_paths(recipe, path.parent.resolve())


def plugin_options(kind: str, name: str, raw: Mapping[str, Any], where: str) -> Any:
    """Return a plugin's `Options` made from the keys of a recipe.

    Raises:
        RecipeError: unknown plugin, unknown key, or a value that does not fit.
    """
    options_type = plugins.options_type(kind, name)
    known = TypeAdapter(options_type).json_schema().get("properties", {})
    for key in raw:
        if key not in known:
            raise RecipeError(f"{where}.{key}: unknown option of {name!r}{did_you_mean(str(key), known)}")
    try:
        return TypeAdapter(options_type).validate_python(dict(raw))
    except ValidationError as exc:
        raise RecipeError("; ".join(_option_error(where, error) for error in exc.errors())) from exc


def _option_error(where: str, error: Any) -> str:
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # of the options together, by their `__post_init__`
        return f"{where}: {said}"
    return f"{where}.{_loc(error['loc'])}: {said}, got {error['input']!r}"


def _validate(section: type[SectionT], raw: dict[str, Any], source: str) -> SectionT:
    try:
        return section.model_validate(raw)
    except ValidationError as exc:
        findings = "; ".join(_explain(section, error) for error in exc.errors())
        raise RecipeError(f"{source}: {findings}") from exc


def _explain(section: type[BaseModel], error: Any) -> str:
    loc = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"{_loc(loc)}: unknown key{did_you_mean(str(loc[-1]), _known_keys(section, loc[:-1]))}"
    if error["type"] == "missing":
        return f"{_loc(loc)}: missing"
    got = json.dumps(error["input"], default=str)
    return f"{_loc(loc)}: {error['msg'].removeprefix('Value error, ')}" + (f", got {got}" if len(got) < 80 else "")


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
    return _resolve(schema, node).get("properties", {})


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", ()):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return node


def _loc(loc: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in loc) or "recipe"


def _absolute_paths(recipe: Recipe, base: Path) -> Recipe:
    """Return the recipe with paths made absolute, relative ones from the recipe's folder."""

    def resolved(network: Any) -> Any:
        updates: Options = {"options": _resolve_option_paths(network.options, base)}
        if network.checkpoint is not None:
            updates["checkpoint"] = _absolute(network.checkpoint, base)
        return network.model_copy(update=updates)

    data = recipe.data.model_copy(update={"options": _resolve_option_paths(recipe.data.options, base)})
    cache = recipe.trainer.teacher_cache
    trainer = recipe.trainer.model_copy(update={"teacher_cache": _absolute(cache, base) if cache else None})
    networks = {"teacher": resolved(recipe.teacher), "student": resolved(recipe.student)}
    engines = tuple(
        engine.model_copy(update={"options": _resolve_option_paths(engine.options, base)}) for engine in recipe.engines
    )
    return recipe.model_copy(update={"data": data, "trainer": trainer, "engines": engines, **networks})


# Plugin options that hold paths have one of these names, in every plugin.
PATH_OPTIONS = ("root", "encoder_weights", "cache_dir", "timing_cache")


def _resolve_option_paths(options: Options, base: Path) -> Options:
    return {
        key: str(_absolute(Path(value), base)) if key in PATH_OPTIONS and isinstance(value, str) else value
        for key, value in options.items()
    }


def _absolute(path: Path, base: Path) -> Path:
    try:
        return (base / path.expanduser()).resolve()
    except (OSError, RuntimeError) as exc:  # no such user, a loop of links, a name too long
        raise RecipeError(f"path {str(path)!r}: {exc}") from exc
