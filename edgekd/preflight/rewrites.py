"""Findings that an exact rewrite of the graph removes: tried on a copy, and named in the finding's fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.core import plugins
from edgekd.preflight.findings import Finding
from edgekd.preflight.graph import Graph
from edgekd.preflight.tables import Table, findings_of


def with_rewrites(graph: Graph, tables: Iterable[Table], findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, each with the rewrite in its fix that removes it from its module.

    A rewrite is named only after it was applied to a copy of the graph and the table no longer finds the same there.
    """
    found, known = list(findings), {rule: name for table in tables for rule, name in table.rewrites.items()}
    names = {known[one.rule] for one in found if one.rule in known}
    left = {name: _left(graph, tables, name) for name in sorted(names)}
    return [
        replace(one, fix=_fix(known[one.rule]))
        if one.rule in known and (one.rule, one.module) not in left[known[one.rule]]
        else one
        for one in found
    ]


def _fix(name: str) -> str:
    error = plugins.load("rewrites", name).ERROR
    return (
        f"export.rewrite: [{name}] removes it, {f'equal to {error:g} of the largest value' if error else 'bit-equal'}"
    )


def _left(graph: Graph, tables: Iterable[Table], name: str) -> set[tuple[str, str]]:
    """Return (rule, module) of what is found after a rewrite."""
    import onnx

    model = onnx.load(str(graph.path))
    plugins.load("rewrites", name).rewrite(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rewritten.onnx"
        onnx.save(model, str(path))
        rewritten = Graph(path)
        return {(one.rule, one.module) for table in tables for one in findings_of(rewritten, table)}
