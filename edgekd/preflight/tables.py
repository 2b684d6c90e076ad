"""Tables of a target's supported operators by chip: YAML beside the target, with source and date.

chips               chips of the target that it is for (absent: all)
source, date        where the rows come from
operators           run on the accelerator; with this list, an operator that is in none is `unverified`
cpu_operators       run on the CPU of the same chip
limits              operator -> kernel, strides, pads, dilations, input_size, factor: [least, most]; one_of: values
fixes               operator -> what to do about a limit
rewrites            finding (`Operator`, `Operator.limit` or a pattern) -> the rewrite that may remove it
patterns            name in patterns.py -> consequence, says, fix, evidence, source
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.core import chips as known
from edgekd.core import plugins
from edgekd.errors import ArtifactError, UserError, did_you_mean, one_line
from edgekd.preflight.findings import Consequence, Finding
from edgekd.preflight.patterns import PATTERNS, kernel, resize_factor
from edgekd.rewrites.graph import Graph, attributes, module_of, name_of

_RANGES = ("kernel", "strides", "pads", "dilations", "input_size", "factor")
_SMALLEST = {"strides": 1, "dilations": 1, "pads": 0, "ceil_mode": 0}  # ONNX's defaults
_DEFAULTS = {**_SMALLEST, "mode": "nearest", "coordinate_transformation_mode": "half_pixel"}


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Row):
    """Ranges [least, most] of an operator's numbers, and values that attributes may have."""

    kernel: tuple[int, int] | None = None
    strides: tuple[int, int] | None = None
    pads: tuple[int, int] | None = None
    dilations: tuple[int, int] | None = None
    input_size: tuple[int, int] | None = None
    factor: tuple[int, int] | None = None
    one_of: dict[str, list[int | str]] = {}


class Pattern(_Row):
    """The consequence of a pattern for the target."""

    consequence: Consequence
    says: str
    fix: str
    evidence: str
    source: str = ""


class Table(_Row):
    """One file of a target's `INFO.support`."""

    chips: list[str] = []
    source: str
    date: str
    operators: list[str] = []
    cpu_operators: list[str] = []
    limits: dict[str, Limits] = {}
    fixes: dict[str, str] = {}
    rewrites: dict[str, str] = {}
    patterns: dict[Literal[tuple(PATTERNS)], Pattern] = {}  # type: ignore[valid-type]

    @property
    def origin(self) -> str:
        """Source and date."""
        return f"{self.source}, {self.date}"


def tables_of(target: str) -> list[Table]:
    """Return the tables of a target; ArtifactError for one that is damaged."""
    return [_read(path) for path in plugins.target(target).info.support]


@cache
def _read(path: Path) -> Table:
    try:
        return Table.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as exc:
        raise ArtifactError(f"{path}: not a table of supported operators: {one_line(exc)}") from exc


def tables_for(target: str, chip: str) -> list[Table]:
    """Return the tables of a target for a chip ("": no chip); `without_table` reports a missing one.

    Raises:
        UserError: the target's tables are by chip, and it has no such chip.
    """
    of_target = tables_of(target)
    found = [table for table in of_target if not table.chips or chip in table.chips]
    chips = {one for table in of_target for one in table.chips}
    compiled_for = chips | {name for name in known.names() if target in known.load(name).targets}
    if chips and chip not in compiled_for:
        said = (
            f"no chip {chip!r}{did_you_mean(chip, compiled_for)}"
            if chip
            else f"expected --chip, one of {', '.join(sorted(compiled_for))}"
        )
        raise UserError(f"target {target}: {said}")
    if chip and not chips:
        raise UserError(f"target {target}: nothing is known by chip, got --chip {chip}; leave it out")
    return found


def without_table(target: str, chip: str) -> Iterator[Finding]:
    """Yield a finding that a chip's operators are unknown, if the target's tables are by chip and none has this one."""
    of_target = [table for table in tables_of(target) if table.chips]
    if of_target and not any(chip in table.chips for table in of_target):
        says = f"no table says which operators {chip} takes, only for {', '.join(sorted(of_target[0].chips))}"
        fix = "let the vendor's toolkit build it (--build) and look, before training"
        yield Finding("table", (), "", "", "unverified", says, fix, "inferred", of_target[0].origin)


def findings_of(graph: Graph, table: Table) -> Iterator[Finding]:
    """Yield what a table finds in a graph, patterns first, findings of one kind and module together."""
    covered: set[str] = set()
    for name, pattern in table.patterns.items():
        for match in PATTERNS[name](graph):
            covered.update(map(name_of, match.nodes))
            yield _finding(
                name, match.nodes, pattern.consequence, f"{match.says}: {pattern.says}", pattern.fix,
                (pattern.evidence, pattern.source or table.origin),
            )  # fmt: skip
    for node in graph.nodes:
        if name_of(node) not in covered:
            yield from _about_operator(node, table)
        yield from _about_limits(graph, node, table)


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with those of one rule and module as one, fatal ones first."""
    groups: dict[tuple[str, str, str], Finding] = {}
    for one in findings:
        key = (one.rule, one.module or one.operator, one.consequence)
        if key in groups:
            nodes = dict.fromkeys((*groups[key].nodes, *one.nodes))
            one = Finding(**{**vars(groups[key]), "nodes": tuple(nodes)})
        groups[key] = one
    return tuple(sorted(groups.values(), key=lambda one: not one.is_fatal))


def _about_operator(node: Any, table: Table) -> Iterator[Finding]:
    kind, evidence = node.op_type, ("documented", table.origin)
    if kind in table.cpu_operators:
        says = f"{kind} is documented for the chip's CPU only; the toolkit may rewrite it"
        yield _finding(f"{kind}", (node,), "cpu_fallback", says, "avoid it, or do it after the network", evidence)
    elif table.operators and kind not in table.operators:
        says = f"{kind} is in none of our lists for this chip"
        yield _finding(f"{kind}", (node,), "unverified", says, "compile and look, before training", evidence)


def _about_limits(graph: Graph, node: Any, table: Table) -> Iterator[Finding]:
    kind = "DepthwiseConv" if _is_depthwise(graph, node) and "DepthwiseConv" in table.limits else node.op_type
    limits = table.limits.get(kind)
    if limits is None:
        return
    given = {**_DEFAULTS, **attributes(node)}
    wrong = [
        (name, f"{name} {_plain(values)}, expected {least} to {most}")
        for name in _RANGES
        if (bounds := getattr(limits, name)) and (values := _numbers(graph, node, name, given))
        for least, most in [bounds]
        if not all(least <= value <= most and float(value).is_integer() for value in values)
    ]
    for name, allowed in limits.one_of.items():
        chosen = given[name] if isinstance(given[name], list | tuple) else [given[name]]
        if not set(chosen) <= set(allowed):
            wrong.append((name, f"{name} {_plain(chosen)}, expected {' or '.join(map(str, allowed))}"))
    for name, says in wrong:
        fix = table.fixes.get(node.op_type, "stay inside, or compile and look before training")
        evidence = ("documented", table.origin)
        yield _finding(f"{kind}.{name}", (node,), "cpu_fallback", f"{kind} with {says} on the NPU", fix, evidence)


def _numbers(graph: Graph, node: Any, name: str, given: dict[str, Any]) -> tuple[float, ...]:
    """Return the numbers of a node that a limit is about; empty when they are not known, or the limit does not apply."""
    if name == "kernel":
        return kernel(graph, node) or ()
    size = (graph.shape(node.input[0]) or ())[2:]
    if name == "input_size":
        return size
    if name == "factor":
        factor = resize_factor(graph, node)
        return () if factor is None or size == (1, 1) or set(factor) == {1.0} else factor
    value: Any = given.get(name, 1)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_depthwise(graph: Graph, node: Any) -> bool:
    group = attributes(node).get("group", 1) if node.op_type == "Conv" else 1
    channels = graph.shape(node.input[0])
    return group > 1 and channels is not None and group == channels[1]


def _plain(values: Any) -> str:
    return "x".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)


def _finding(
    rule: str, nodes: tuple[Any, ...], consequence: Consequence, says: str, fix: str, known: tuple[str, str]
) -> Finding:
    first = nodes[0] if nodes else None
    names = tuple(map(name_of, nodes))
    module = module_of(first) if first is not None else ""
    return Finding(rule, names, first.op_type if first is not None else "", module, consequence, says, fix, *known)
