"""Findings that an exact rewrite of the graph removes, tried on a copy of the graph and named in the finding's fix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekd.core import plugins
from edgekd.preflight.findings import Finding
from edgekd.preflight.tables import Table, findings_of
from edgekd.rewrites.graph import Graph

Keys = set[tuple[str, str]]


def findings_with_rewrites(graph: Graph, tables: Sequence[Table], own: Sequence[str]) -> list[Finding]:
    """Return the findings of the tables in a graph, with the rewrites that remove them.

    A rewrite removes a finding when the tables no longer find the same in the same module of the rewritten graph.

    Args:
        graph: the graph to compile.
        tables: tables of the target and chip.
        own: rewrites that the target does itself. The findings that they remove are reported as `rewritten`; the others
            are those of the graph after them.
    """
    known = {rule: name for table in tables for rule, name in table.rewrites.items()}
    given = _found(graph, tables)
    compiled = _rewritten(graph, own)
    found = _found(compiled, tables)
    left = _keys(found)
    done = [
        replace(one, consequence="rewritten", fix=_done_by_target(known[one.rule]))
        for one in given
        if known.get(one.rule) in own and (one.rule, one.module) not in left
    ]
    return [*done, *_with_fixes(compiled, tables, found, known)]


def _with_fixes(graph: Graph, tables: Sequence[Table], found: list[Finding], known: dict[str, str]) -> list[Finding]:
    """Return the findings; where a rewrite in the recipe would remove one, that is its fix."""
    names = {known[one.rule] for one in found if one.rule in known}
    left = {name: _keys(_found(_rewritten(graph, [name]), tables)) for name in sorted(names)}
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


def _keys(findings: list[Finding]) -> Keys:
    return {(one.rule, one.module) for one in findings}


def _rewritten(graph: Graph, names: Sequence[str]) -> Graph:
    """Return a rewritten copy of the graph; the graph itself when the rewrites change nothing."""
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    replaced = [node for name in names for node in plugins.load("rewrites", name).rewrite(model)]
    return Graph(model, graph.path) if replaced else graph
