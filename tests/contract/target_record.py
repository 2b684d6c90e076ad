"""Findings about a target's record: fields of another type, functions that cannot be called as the pipeline calls them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from typing import Any

from edgekd.targets.base import SessionBase, TappedSession, Target, TargetInfo

_FIELDS = typing.get_type_hints(Target)


def findings(target: Target) -> list[str]:
    """Return one line for each thing that is wrong with a target's record."""
    return [*_of_options(target), *_of_facts(target), *_of_sessions(target), *_of_functions(target), *_left_out(target)]


def _of_options(target: Target) -> list[str]:
    options: Any = target.options
    if not dataclasses.is_dataclass(options) or not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return ["options: expected a frozen dataclass"]
    no_default = [
        field.name
        for field in dataclasses.fields(options)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return [f"options: no default for {name}" for name in no_default]


def _of_facts(target: Target) -> list[str]:
    """Return the facts whose value is not one of the field's type."""
    hints = typing.get_type_hints(TargetInfo)
    return [
        f"info.{name}: expected {hint}, got {value!r}"
        for name, hint in hints.items()
        if not _fits(value := getattr(target.info, name), hint)
    ]


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return value in arguments
    if origin is typing.Union:
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, arguments[0]) for one in value)
    return isinstance(value, hint)


def _of_sessions(target: Target) -> list[str]:
    found = []
    for name, base in (("session", SessionBase), ("simulator", SessionBase), ("tap", TappedSession)):
        kind = getattr(target, name)
        if kind is None and name != "session":
            continue
        if not (isinstance(kind, type) and issubclass(kind, base)) or inspect.isabstract(kind):
            found.append(f"{name}: expected a class made of {base.__name__} with all its methods, got {kind!r}")
    return found


def _of_functions(target: Target) -> list[str]:
    found = []
    for name, (parameters, result) in _functions().items():
        function = getattr(target, name)
        if function is None:
            continue
        if not inspect.isfunction(function):
            found.append(f"{name}: expected a function, got {function!r}")
            continue
        try:
            inspect.signature(function).bind(*parameters)
        except TypeError as exc:
            found.append(f"{name}: expected to be called with {len(parameters)} arguments: {exc}")
        returned = typing.get_type_hints(function).get("return", result)
        if _plain(returned) != _plain(result):
            found.append(f"{name}: expected to return {result}, got {returned}")
    return found


def _plain(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return origin and arguments of a type, which are those of `Dict[str, Any]` for `dict[str, Any]` as well."""
    return typing.get_origin(hint) or hint, typing.get_args(hint)


def _functions() -> dict[str, tuple[list[Any], Any]]:
    """Return (types of the arguments, type of the result) of each field that is a function, by name."""
    found = {}
    for name, hint in _FIELDS.items():
        if typing.get_origin(hint) is typing.Union:
            hint = next(one for one in typing.get_args(hint) if one is not type(None))
        if typing.get_origin(hint) not in (None, type):
            arguments, result = typing.get_args(hint)
            found[name] = (list(arguments), result)
    return found


def _left_out(target: Target) -> list[str]:
    """Return the functions of the target's module that are called like a field and are not in it."""
    module = vars(sys.modules[target.options.__module__])
    return [
        f"{name}: the module has a function of this name, the record does not"
        for name in _functions()
        if inspect.isfunction(module.get(name)) and getattr(target, name) is not module[name]
    ]
