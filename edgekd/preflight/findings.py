"""The findings and the verdicts of a check, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgekd.board.precision import Precision

# refused: the toolchain stops or crashes. silent_error: an engine comes out and computes something else.
# silent_error_int8: only when quantized. cpu_fallback: runs, but not on the accelerator. unverified: nobody knows.
# rewritten: the toolchain would refuse or misread it, and the target rewrites it by itself, exactly.
Consequence = Literal["refused", "silent_error", "silent_error_int8", "cpu_fallback", "unverified", "rewritten"]
Answer = Literal["yes", "no", "not tried"]
_FATAL = ("refused", "silent_error")


@dataclass(frozen=True)
class Finding:
    """A problem of the graph on the target.

    rule: the rule that found it: a pattern's name, `Operator.attribute` of a table, or `parser`.
    nodes: names of the nodes, in graph order; empty only for findings about the whole graph.
    operator: type of the first node.
    module: dotted name of the torch module that the first node came from; "" when the file does not say.
    consequence: result of compiling it anyway.
    says: the problem, with numbers.
    fix: what to do.
    evidence: `live` (asked here), `built` (seen when building), `documented` (vendor) or `inferred`.
    source: tool and version, or document and date.
    """

    rule: str
    nodes: tuple[str, ...]
    operator: str
    module: str
    consequence: Consequence
    says: str
    fix: str
    evidence: str
    source: str

    @property
    def is_fatal(self) -> bool:
        """Whether no engine, or no correct engine, can be built."""
        return self.consequence in _FATAL

    def is_fatal_for(self, precision: str) -> bool:
        """Whether it is fatal for an engine of this precision, whose int8 graph may not exist yet."""
        return self.is_fatal or (Precision(precision).is_quantized and self.consequence == "silent_error_int8")


@dataclass(frozen=True)
class Verdict:
    """One of parsed, built, ran, matched: whether, and how that is known or why it was not tried."""

    answer: Answer
    text: str


@dataclass(frozen=True)
class Report:
    """One model for one target and chip (`""`: none named); `precision` is int8 for graphs with Q/DQ, else fp32."""

    model: str
    target: str
    chip: str
    precision: str
    findings: tuple[Finding, ...]
    parsed: Verdict
    built: Verdict
    ran: Verdict
    matched: Verdict

    @property
    def is_ok(self) -> bool:
        """Whether nothing fatal was found and no verdict is no."""
        verdicts = (self.parsed, self.built, self.ran, self.matched)
        return not any(f.is_fatal for f in self.findings) and not any(v.answer == "no" for v in verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {"schema": "edgekd.check/1", "ok": self.is_ok, **asdict(self)}
