"""Reasons why a finished artifact is made again: the differences between two contents of its cache key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_SHOWN = 3  # reasons in one line


def reasons(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Return the differences between two contents of a stage's cache key (`Stage.key_content`) in words, "" if equal.

    Args:
        before: from the manifest of the present artifact; None for a manifest of an older edgekd.
        now: from the recipe.
    """
    if before is None:
        return "it was made by an older edgekd, whose manifests do not say what they depend on"
    found = list(_reasons(before, json.loads(json.dumps(now))))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _reasons(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if before.get("edgekd") != now["edgekd"]:
        yield f"edgekd {before.get('edgekd')} -> {now['edgekd']}"
    if before.get("stage") != now["stage"]:
        yield "this edgekd makes it differently"
    for name in ("task", "seed"):
        if before.get(name) != now[name]:
            yield f"{name} {before.get(name)} -> {now[name]}"
    for path, old, new in differences(before.get("config"), now["config"]):
        yield f"{path} {short(old)} -> {short(new)}"
    for name, path in (("files", "the file"), ("code", "the code of")):
        yield from (f"{path} {key} changed" for key, _, _ in differences(before.get(name), now[name]))
    if before.get("external_state") != now["external_state"]:
        changes = differences(before.get("external_state"), now["external_state"])
        yield from (f"outside of the run: {path or 'state'} {short(old)} -> {short(new)}" for path, old, new in changes)
    yield from (f"its input {name} changed" for name in _changed_inputs(before, now))


def _changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = before.get("inputs") or {}, now["inputs"]
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def differences(before: Any, now: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, old value, new value) of every leaf in which two JSON values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from differences(before.get(name), now.get(name), f"{path}.{name}" if path else str(name))
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and len(before) == len(now)
        and any(isinstance(one, dict) for one in now)
    ):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{path}.{place}")
    elif before != now:
        yield path, before, now


def short(value: Any) -> str:
    """Return a value as JSON, cut to 40 characters."""
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
