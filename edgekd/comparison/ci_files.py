"""Results of a gate for a CI system: JUnit XML and Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from edgekd.board.files import write_atomic
from edgekd.comparison.gate import GateResult
from edgekd.core.workspace import disk_errors

# Characters that XML 1.0 cannot hold.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(result: GateResult) -> str:
    """Return JUnit XML: one test case per check, named by row and limit."""
    failures = str(len(result.broken))
    counts = {"tests": str(len(result.checks)), "failures": failures, "errors": "0", "skipped": "0"}
    suites = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(suites, "testsuite", {"name": _xml(f"edgekd gate {result.run}"), **counts})
    for check in result.checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _xml(check.row), "name": _xml(check.limit), "time": "0"}
        )
        if check.outcome == "broken":
            failure = ElementTree.SubElement(case, "failure", {"message": _xml(check.text), "type": "limit"})
            failure.text = _xml(f"{check.row}: {check.limit}: {check.text}")
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(check.text)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def markdown(result: GateResult) -> str:
    """Return a table for a pull request or a job summary, broken limits first."""
    broken = len(result.broken)
    verdict = (
        f"{broken} of {len(result.checks)} limits are broken" if broken else f"all {len(result.checks)} limits hold"
    )
    against = f" against {_code(result.baseline)}" if result.baseline else ""
    lines = [f"### edgekd gate: {verdict}", "", f"{_code(result.run)}{against}", ""]
    lines += ["| | row | limit | measured |", "|---|---|---|---|"]
    for check in sorted(result.checks, key=lambda one: one.outcome != "broken"):
        mark = "❌ broken" if check.outcome == "broken" else "✅ passed"
        lines.append(f"| {mark} | {_code(check.row)} | {_cell(check.limit)} | {_cell(check.text)} |")
    return "\n".join(lines) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, with its folder; WorkspaceError when it cannot be written."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)


def _code(text: str) -> str:
    return f"`{_cell(text).replace('`', chr(39))}`"


def _cell(text: str) -> str:
    """Escape text for one cell of a Markdown table."""
    line = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return line.replace("&", "&amp;").replace("<", "&lt;")
