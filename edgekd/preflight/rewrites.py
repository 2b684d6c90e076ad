"""Findings that an exact rewrite of the graph removes: tried on a copy, and said in the finding's fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.core import plugins
from edgekd.preflight.findings import Finding
from edgekd.preflight.graph import Graph
from edgekd.preflight.tables import Table, findings_of

Places = set[tuple[str, str]]


def findings_with_rewrites(graph: Graph, tables: Sequence[Table], own: Sequence[str]) -> list[Finding]:
    """Return what the tables find in a graph, knowing which rewrites remove it.

    A rewrite counts only after it was applied to a copy of the graph in which the tables no longer find the same in the
    same module.

    Args:
        graph: what is compiled.
        tables: of the target and chip.
        own: rewrites that the target does by itself. What they remove is reported as `rewritten`; the rest is what is
            found after them.
    """
    known = {rule: name for table in tables for rule, name in table.rewrites.items()}
    given = _found(graph, tables)
    with TemporaryDirectory() as folder:
        seen = _after(graph, own, Path(folder) / "own.onnx")
        found = _found(seen, tables)
        left = _places(found)
        done = [
            replace(one, consequence="rewritten", fix=_done_by_target(known[one.rule]))
            for one in given
            if known.get(one.rule) in own and (one.rule, one.module) not in left
        ]
        return [*done, *_with_fixes(seen, tables, found, known)]


def _with_fixes(graph: Graph, tables: Sequence[Table], found: list[Finding], known: dict[str, str]) -> list[Finding]:
    """Return findings, those that a rewrite in the recipe would remove with that as their fix."""
    names = {known[one.rule] for one in found if one.rule in known}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        left = {name: _places(_found(_after(graph, [name], path), tables)) for name in sorted(names)}
    return [
        replace(one, fix=f"export.rewrite: [{known[one.rule]}], {_exactness(known[one.rule])}")
        if one.rule in known and (one.rule, one.module) not in left[known[one.rule]]
        else one
        for one in found
    ]


def _done_by_target(name: str) -> str:
    return f"none needed: the target does {name} by itself, {_exactness(name)}"


def _exactness(name: str) -> str:
    error = plugins.load("rewrites", name).ERROR
    return f"equal to {error:g} of the largest value" if error else "bit-equal"


def _found(graph: Graph, tables: Sequence[Table]) -> list[Finding]:
    return [one for table in tables for one in findings_of(graph, table)]


def _places(findings: list[Finding]) -> Places:
    return {(one.rule, one.module) for one in findings}


def _after(graph: Graph, names: Sequence[str], path: Path) -> Graph:
    """Return the graph after rewrites, written to a path; itself when they change nothing."""
    import onnx

    model = onnx.load(str(graph.path))
    if not [node for name in names for node in plugins.load("rewrites", name).rewrite(model)]:
        return graph
    onnx.save(model, str(path))
    return Graph(path)
