"""Differences of two runs besides their results: keys of the recipe, versions, the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from edgekd.comparison.model import Change
from edgekd.comparison.runs import Run
from edgekd.core.recipe_file import MAX_DEPTH
from edgekd.errors import shortened
from edgekd.report.part import Json
from edgekd.report.units import MISSING

# Keys that differ in every run and do not affect results.
_IGNORED = frozenset({"python", "memory_bytes"})


def changes(old: Run, new: Run) -> list[Change]:
    """Return the differences of two runs besides their results, in the order of their keys."""
    before, after = old.report, new.report
    packages = [_mapping(report.environment.get("packages")) for report in (before, after)]
    versions = [
        found | _runtimes(run) | {"python": run.report.environment.get("python")}
        for found, run in zip(packages, (old, new), strict=True)
    ]
    return [
        *_differences("recipe", before.recipe, after.recipe),
        *_differences("version", versions[0], versions[1]),
        *_differences("machine", _machine(old), _machine(new)),
    ]


def _differences(kind: Literal["recipe", "version", "machine"], old: Json, new: Json) -> Iterator[Change]:
    before, after = (dict(_flat(content)) for content in (old, new))
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield Change(kind=kind, key=key, old=before.get(key, MISSING), new=after.get(key, MISSING))


def _flat(content: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested data as (dotted key, text). A list item's key is its `id`, else its index."""
    if depth > MAX_DEPTH:  # no recipe is nested as deep: a file that somebody made
        yield prefix, "..."
    elif isinstance(content, Mapping) and content:
        for key, value in content.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    elif isinstance(content, list) and any(isinstance(one, Mapping) for one in content):
        for place, value in enumerate(content):
            own = value.get("id") if isinstance(value, Mapping) else None
            yield from _flat(value, f"{prefix}.{own or place}", depth + 1)
    elif prefix:
        yield prefix, shortened(str(content))


def _mapping(value: Any) -> Json:
    return dict(value) if isinstance(value, Mapping) else {}


def _runtimes(run: Run) -> Json:
    """Return the versions that the sessions themselves reported, by runtime."""
    found = {}
    for row in run.report.rows:
        if version := row.runtime.get("version"):
            found[f"{row.target} runtime" + ("" if row.board in ("", "local") else f" on {row.board}")] = version
    return found


def _machine(run: Run) -> Json:
    """Return the facts of the machines by board. A report without boards has the facts of one machine."""
    boards = {name: {**board.hardware, **board.use} for name, board in run.report.boards.items()}
    own = {key: value for key, value in run.report.environment.items() if key not in {*_IGNORED, "packages"}}
    return {**own, **{key: value for key, value in boards.items() if key != "local"}, **boards.get("local", {})}
