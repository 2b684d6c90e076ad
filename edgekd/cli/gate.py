"""`edgekd gate`: checks a finished run against limits, for CI; imports no framework."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.errors import GateError, UserError


def gate(
    run: Annotated[Path, typer.Argument(help="Output folder of `edgekd run`, or a report.json.")],
    limits: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file of limits.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Run folder or report.json to compare with.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown table.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a run against limits: exit code 0 when all hold, 1 when one is broken, 2 for wrong input.

    With a baseline and no limits, no row may be measurably worse than in the baseline. Tolerances: 1 point of the primary
    metric, 5 % of the median latency, 1 % of the size. A missing row or figure breaks its limit.
    """
    from edgekd.cli import show
    from edgekd.comparison import ci_files
    from edgekd.comparison.gate import gate as check_run
    from edgekd.comparison.limits import baseline_limits, read_limits
    from edgekd.comparison.runs import Run

    if limits is None and baseline is None:
        raise UserError("nothing to check against; give --limits FILE, --baseline REPORT, or both")
    read = read_limits(limits) if limits else None
    checked, before = Run(run), Run(baseline) if baseline else None
    result = check_run(
        checked, read or baseline_limits(checked.report.task), before, needs_every_figure=read is not None
    )
    if junit:
        ci_files.write_text(junit, ci_files.junit(result))
    if markdown:
        ci_files.write_text(markdown, ci_files.markdown(result))
    if json:
        show.print_json(result.to_dict())
    else:
        for check in result.checks:
            print(show.visible(f"{check.outcome}: {check.row}: {check.limit}: {check.text}"))
    if result.broken:
        raise GateError(f"{len(result.broken)} of {len(result.checks)} limits are broken")
