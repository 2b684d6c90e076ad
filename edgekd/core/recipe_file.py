"""Reads a recipe file into a plain tree of JSON values and applies overrides to it.

Stricter than YAML, because a recipe is hashed, stored in reports and may come from strangers: no tags, no duplicate keys,
no values outside JSON, no unbounded nesting or aliases. A key that is a whole number becomes its text:
`{8: 1.0}` and `{"8": 1.0}` are one recipe with one hash.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from edgekd.errors import RecipeError, one_line

Tree = dict[str, Any]
MAX_DEPTH = 20
MAX_NODES = 10_000  # with aliases written out; the largest shipped recipe has under 100
_INT_BITS = 63
_INT_TAG = "tag:yaml.org,2002:int"
_YAML_FAILURES = (yaml.YAMLError, ValueError, OverflowError, RecursionError)  # e.g. ValueError for the date 2020-13-45


def read_tree(path: Path, what: str = "a recipe") -> Tree:
    """Return the content of a recipe file, or of another file of the same strictness.

    Raises:
        RecipeError: unreadable, not YAML, or not a mapping of plain values.
    """
    return parse_tree(read_text(path, what), path, what)


def parse_tree(text: str, path: Path, what: str = "a recipe") -> Tree:
    """Return the content of a file's text; errors as `read_tree`."""
    try:
        raw = _plain_yaml(text)
    except _YAML_FAILURES as exc:
        raise RecipeError(f"{path}: not readable as {what}: {one_line(exc, None)}") from exc
    if not isinstance(raw, dict):
        raise RecipeError(f"{path}: {what} is a mapping of sections, got {type(raw).__name__}")
    return raw


def read_text(path: Path, what: str = "a recipe") -> str:
    """Return the text of a file; RecipeError when it cannot be read or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise RecipeError(f"{path}: no such file; expected {what}") from exc
    except (OSError, ValueError) as exc:
        raise RecipeError(f"{path}: not readable as {what}: {one_line(exc, None)}") from exc


def expanded(overrides: Iterable[str]) -> list[str]:
    """Return overrides with each `@FILE` replaced by the YAML list of overrides in that file (`edgekd tune` writes one).

    Raises:
        RecipeError: a file that is unreadable or no list of texts.
    """
    found: list[str] = []
    for override in overrides:
        if not override.startswith("@"):
            found.append(override)
            continue
        path = Path(override[1:])
        try:
            content = _plain_yaml(read_text(path, "a list of overrides"))
        except _YAML_FAILURES as exc:
            raise RecipeError(f"{path}: not readable as overrides: {one_line(exc, None)}") from exc
        content = [] if content is None else content
        if not isinstance(content, list) or not all(isinstance(one, str) for one in content):
            raise RecipeError(f"{path}: expected a list of overrides, e.g. `- export.input=uint8_nhwc`")
        found += content
    return found


def apply_override(tree: Tree, override: str) -> None:
    """Set one value in a tree; missing sections on the way are created.

    Args:
        tree: from `read_tree`.
        override: `key.path=value`; list items by index (`engines.0.precision=fp32`), engines also by id
            (`engines.openvino-int8.options.num_threads=1`); the value is YAML.

    Raises:
        RecipeError: not of this form, no such index, or a value where the path needs a section.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise RecipeError(f"override {override!r}: expected key.path=value, e.g. student.train.steps=500")
    try:
        value = _plain_yaml(text)
    except _YAML_FAILURES as exc:
        raise RecipeError(f"override {override!r}: the value is not plain YAML: {one_line(exc, None)}") from exc
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        node = _step(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _step(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        child = node[_index(node, part, override)]
    else:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
    if not isinstance(child, dict | list):
        raise RecipeError(f"override {override!r}: {part!r} holds a value, not a section; set its own key")
    return child


def _index(node: list[Any], part: str, override: str) -> int:
    if part in map(str, range(len(node))):
        return int(part)
    ids = [_id_of(item) for item in node]
    if part in ids:
        return ids.index(part)
    known = f", and no id among {', '.join(filter(None, ids))}" if any(ids) else ""
    raise RecipeError(f"override {override!r}: {part!r} is not an index below {len(node)}{known}")


def _id_of(item: Any) -> str:
    """Return the id of a list item: its own, or the default one of an engine; "" without one."""
    if not isinstance(item, dict):
        return ""
    if item.get("id"):
        return str(item["id"])
    board = item.get("board", "local")
    place = "" if board == "local" else f"@{board}"
    return f"{item['target']}-{item['precision']}{place}" if {"target", "precision"} <= set(item) else ""


class _Loader(yaml.SafeLoader):
    """SafeLoader that also refuses tags and keys given twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"tag {event.tag!r} is not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            text = str(self.construct_yaml_int(key)) if key.tag == _INT_TAG else key.value  # 8, 0x8 and "8" are one
            if text in seen:
                raise yaml.composer.ComposerError(None, None, f"key {text!r} is given twice", key.start_mark)
            seen.add(text)
        return node


def _plain_yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return _Plain().copy(loader.get_single_data(), 0)
    finally:
        loader.dispose()


class _Plain:
    """Copies YAML's values into JSON values, with aliases written out, so that an override changes one copy only."""

    def __init__(self) -> None:
        self.nodes = 0

    def copy(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise ValueError(f"nested deeper than {MAX_DEPTH} or more than {MAX_NODES} values, aliases written out")
        if isinstance(value, dict):
            return {_key(key): self.copy(child, depth + 1) for key, child in value.items()}
        if isinstance(value, list):
            return [self.copy(child, depth + 1) for child in value]
        return _scalar(value)


def _key(key: Any) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return str(_scalar(key))
    return _text(key, "key")


def _scalar(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value, "value")
    if isinstance(value, int) and value.bit_length() > _INT_BITS:
        raise ValueError(f"a whole number of more than {_INT_BITS} bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    if value is not None and not isinstance(value, bool | int | float):
        raise ValueError(f"{type(value).__name__} {str(value)!r}: put it in quotes if it is meant as text")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} {value!r} is not text; put it in quotes")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{what} {value!r} has characters that are not text")
    return value
