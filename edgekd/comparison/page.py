"""A comparison as one self-contained HTML file that needs no network and no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.comparison.ci_files import write_text
from edgekd.comparison.model import ComparedRow, Comparison, Difference, Pair
from edgekd.comparison.table import UNITS, change_text, refused_lines, value_text, verdict_text
from edgekd.core.task_metrics import TASKS
from edgekd.report.svg import CSS, FG, SOFT, WIDE, inches, responsive
from edgekd.report.templates import PAGE, page_environment
from edgekd.report.units import utc_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HERE = Path(__file__).parent
_COLORS = {"better": CSS["good"], "worse": CSS["bad"]}


@dataclass(frozen=True)
class PairPart:
    """One pair as the page shows it. Figures are SVG markup, empty where nothing is compared.

    rows: row, figure, and the texts of its change and verdict.
    """

    pair: Pair
    refused: list[str]
    charts: list[str]
    rows: list[tuple[ComparedRow, Difference, str, str]]


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page of a comparison, atomically.

    Raises:
        PackageError: jinja2 or matplotlib is not installed.
        WorkspaceError: the file cannot be written.
    """
    write_text(path, render(comparison))


def render(comparison: Comparison) -> str:
    """Return the page of a comparison; PackageError as in `write_page`."""
    environment = page_environment(_HERE)
    environment.filters |= {"value": value_text, "unit": UNITS.__getitem__, "utc": utc_time}
    parts = [_part(comparison, pair) for pair in comparison.pairs]
    style = (PAGE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(comparison=comparison, parts=parts, style=style)


def _part(comparison: Comparison, pair: Pair) -> PairPart:
    task = TASKS[comparison.task]
    charts = [
        _chart(pair, task.metric, f"{task.title}, {pair.new} minus {pair.old}, percentage points"),
        _chart(pair, "latency_p50_ms", f"engine time p50, {pair.new} over {pair.old}"),
        _chart(pair, "size_bytes", f"size, {pair.new} over {pair.old}"),
    ]
    rows = [(row, one, change_text(one), verdict_text(one)) for row in pair.rows for one in row.figures]
    return PairPart(pair, refused_lines(pair), [chart for chart in charts if chart], rows)


def _chart(pair: Pair, figure: str, title: str) -> str:
    """Return one dot with its interval per row; "" where nothing changed or was compared."""
    found = [(row, one) for row in pair.rows for one in row.figures if one.figure == figure and one.change is not None]
    if all(one.verdict == "same" and one.low == one.high for _, one in found):
        return ""
    factor = 100.0 if found[0][1].unit == "fraction" else 1.0

    def draw(axes: Axes) -> None:
        is_narrow = inches(axes) < WIDE
        for place in range(len(found)):  # not one line: it would cross the texts above the bars
            axes.plot([0.0 if factor > 1 else 1.0] * 2, [place - 0.08, place + 0.42], color=SOFT, linewidth=1)
        for place, (_, one) in enumerate(found):
            color = _COLORS.get(verdict_text(one), SOFT)
            change = (one.change or 0.0) * factor
            if one.low is not None and one.high is not None:
                axes.plot([one.low * factor, one.high * factor], [place, place], color=color, linewidth=3, alpha=0.45)
            axes.plot(change, place, "o", color=color, markersize=6)
            axes.annotate(  # narrow: from the axis on, so that no text crosses it
                f"{change_text(one)}  {verdict_text(one)}", (0.02 if is_narrow else change, place), (0, 7),
                xycoords=("axes fraction" if is_narrow else "data", "data"), textcoords="offset points",
                ha="left" if is_narrow else "center", fontsize=8, color=FG,
            )  # fmt: skip
        axes.set_yticks(range(len(found)), [row.id for row, _ in found], parse_math=False)
        axes.set_ylim(len(found) - 0.5, -0.8)
        axes.margins(x=0.3)
        axes.set_xlabel(title)

    return responsive(title, _numbers(found), 0.42 * len(found) + 0.9, draw)


def _numbers(found: Sequence[tuple[ComparedRow, Difference]]) -> list[str]:
    return [f"{row.id} {change_text(one)} {verdict_text(one)}" for row, one in found]
