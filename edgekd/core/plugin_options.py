"""Options of a plugin, as the mapping in a recipe and as the plugin's typed `Options`.

A recipe holds `PluginOptions`. `plugin_options` makes typed options of any mapping: of a recipe's, once, and of the
options in an engine's manifest when the engine is opened.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from edgekd.board.options import class_name_options, path_options
from edgekd.core import plugins, user_code
from edgekd.errors import RecipeError, UserError, did_you_mean

# Options of earlier releases, by kind of plugin and name: the new option with its values, and the meaning of the old values.
_REPLACED = {("quantizers", "reduce_range"): ("weight_bits: 7|8|auto", "true was 7, false was 8")}


class PluginOptions(Mapping[str, Any]):
    """The options of one plugin as the recipe's mapping; `typed` makes the plugin's `Options`.

    As a mapping it has no defaults. Dumps, hashes and cache keys hold the mapping, so that they do not change when a
    plugin gets another option.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self._given = dict(given or {})
        self._typed: dict[tuple[str, str], Any] = {}

    def __getitem__(self, name: str) -> Any:
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"PluginOptions({self._given!r})"

    def typed(self, kind: str, name: str, where: str) -> Any:
        """Return the plugin's `Options`, made at the first call. where: their key in the recipe, for errors.

        Raises:
            RecipeError: as `plugin_options`.
        """
        if (kind, name) not in self._typed:
            self._typed[kind, name] = plugin_options(kind, name, self._given, where)
        return self._typed[kind, name]

    def paths(self, kind: str, name: str) -> dict[str, Path]:
        """Return the options that the plugin declares as paths and that hold text here."""
        declared = path_options_of(kind, name) if self._given else ()
        given = {key: self._given.get(key) for key in declared}
        return {key: Path(value) for key, value in given.items() if isinstance(value, str)}

    def in_keys(self, kind: str, name: str) -> dict[str, Any]:
        """Return the options as cache keys hold them: without paths, and with a number for each class name of a data format.

        A key holds the content of a path's file, and the class names of the data set.
        """
        if not self._given:
            return {}
        paths = self.paths(kind, name)
        names = class_name_options(plugins.options_type(kind, name)) if kind == "formats" else ()
        return {
            key: _numbered(value) if key in names else value for key, value in self._given.items() if key not in paths
        }

    def replace_paths(self, paths: Mapping[str, Path]) -> None:
        """Replace paths in this object; only for the recipe's loader, before anything reads the options."""
        self._given.update({key: str(path) for key, path in paths.items()})
        self._typed.clear()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def made(value: Any, validated: core_schema.ValidatorFunctionWrapHandler) -> PluginOptions:
            return value if isinstance(value, cls) else cls(validated(value))

        return core_schema.no_info_wrap_validator_function(
            made,
            core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()),
            serialization=core_schema.plain_serializer_function_ser_schema(dict),
        )


def plugin_options(kind: str, name: str, given: Mapping[str, Any], where: str) -> Any:
    """Return a plugin's `Options` made of a mapping.

    Raises:
        RecipeError: an unknown plugin, one whose packages are not installed or whose paths cannot be read from its source,
            an unknown option, or a value that does not fit.
    """
    try:
        options_type = plugins.options_type(kind, name)
    except UserError as exc:
        raise RecipeError(f"{where}: {exc}") from exc
    expected = "expected `Options` to be a frozen dataclass whose fields have types that pydantic can check"
    with user_code.blamed(f"{where}: the options of {name!r} cannot be read", expected):
        known = [field.name for field in dataclasses.fields(options_type)]
        adapter = TypeAdapter(options_type)
    if path_options(options_type) != path_options_of(kind, name):
        raise RecipeError(
            f"{where}: the paths among the options of {name!r} cannot be read from its source; declare `class Options` in "
            "its own module, and each path there as option(default, description, is_path=True)"
        )
    for key in given:
        if key not in known:
            raise RecipeError(f"{where}.{key}: unknown option of {name!r}{_replacement(kind, str(key), known)}")
    try:
        return adapter.validate_python(dict(given))
    except ValidationError as exc:
        errors = _of_the_kind_given(exc.errors())
        hints = dict.fromkeys(hint for error in errors if (hint := _hint(error)))
        raise RecipeError("; ".join([*(_option_error(where, error) for error in errors), *hints])) from exc


def _replacement(kind: str, key: str, known: Sequence[str]) -> str:
    """Return the end of an error about an unknown option: the option that replaces it, or the closest known ones."""
    option, before = _REPLACED.get((kind, key), ("", ""))
    is_there = option.partition(":")[0] in known
    return f"; use {option} instead ({before})" if is_there else did_you_mean(key, known)


def _numbered(names: Any) -> Any:
    """Return names in a list or a mapping as numbers in the order of their first occurrence; anything else unchanged."""
    entries = list(names.values()) if isinstance(names, dict) else names
    if not isinstance(entries, list | tuple):
        return names
    order = list(dict.fromkeys(name for name in entries if isinstance(name, str)))
    numbers = [order.index(name) if isinstance(name, str) else name for name in entries]
    return dict(zip(names, numbers, strict=True)) if isinstance(names, dict) else numbers


def path_options_of(kind: str, name: str) -> tuple[str, ...]:
    """Return the names of the options that a plugin declares as paths, () for an unknown plugin.

    Families and methods import torch, which boards do not have and which takes seconds elsewhere. Their declaration is
    read from the source, without an import.
    """
    if kind not in plugins.TRAINED:
        return path_options(plugins.options_type(kind, name))
    try:
        module = ast.parse(plugins.source_of(kind, name))
    except (SyntaxError, ValueError):
        return ()  # importing it raises the error
    return tuple(
        field.target.id
        for one in module.body
        if isinstance(one, ast.ClassDef) and one.name == "Options"
        for field in one.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_path(field.value)
    )


def _is_path(value: ast.expr | None) -> bool:
    """Return whether the value is a call with `is_path=True`."""
    return isinstance(value, ast.Call) and any(
        word.arg == "is_path" and isinstance(word.value, ast.Constant) and word.value.value is True
        for word in value.keywords
    )


# pydantic's names for the alternatives of a type such as `tuple[str, ...] | str` in an error's location.
_KINDS = ((dict, "dict["), (list, ("tuple[", "list[")), (str, "str"), (bool, "bool"), (int, "int"), (float, "float"))


def _of_the_kind_given(errors: list[Any]) -> list[dict[str, Any]]:
    """Return the errors of the alternative that the value is meant as: for `[no]` (names or a file) those of the names."""
    found: list[dict[str, Any]] = []
    for error in errors:
        name, *rest = error["loc"] or ("",)
        tag = rest[0] if rest and isinstance(rest[0], str) else ""
        kind = next((kind for kind, prefix in _KINDS if tag.startswith(prefix)), None)
        if kind is None:
            found.append(error)
        elif len(rest) > 1 or isinstance(error["input"], kind):  # inside of the value, or of its kind
            found.append({**error, "loc": (name, *rest[1:])})
    seen = {error["loc"][0] for error in found if error["loc"]}
    left = {error["loc"][0]: error for error in reversed(errors) if error["loc"] and error["loc"][0] not in seen}
    return found + [{**error, "loc": (name,)} for name, error in left.items()]


def _option_error(where: str, error: Any) -> str:
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # an error of `__post_init__`, which sees all options
        return f"{where}: {said}"
    return f"{where}.{'.'.join(map(str, error['loc']))}: {said}, got {error['input']!r}"


def _hint(error: Any) -> str:
    """Return a hint where YAML has made a number, a date or a truth value of text, else ""."""
    given = error["input"]
    if error["type"] == "string_type" and (given is None or isinstance(given, bool | int | float)):
        return "YAML reads no, yes, on, off, null and numbers as values: put the text in quotes"
    return "YAML reads # as a comment: put colours in quotes" if error["type"] == "dict_type" and given is None else ""
