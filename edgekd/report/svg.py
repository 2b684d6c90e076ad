"""Matplotlib charts as inline SVG, one drawing for desktops and one for phones.

Colours are placeholders that become CSS variables: a chart follows light and dark mode. Text stays text. The page shows
the drawing that fits (`.wide`, `.narrow` in page.css).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 10.5, 4.2  # inches at 96 px
# Colours as matplotlib draws them -> CSS variables of page.css.
CSS = {
    name: f"#0{i:x}0{i:x}0{i:x}"
    for i, name in enumerate(
        ("fg", "soft", "grid", "good", "bad", "teacher", "student", "distilled", "fp32", "int8", "other"), start=1
    )
}
FG, SOFT, GRID = CSS["fg"], CSS["soft"], CSS["grid"]


def log_axis(set_scale: Callable[[str], Any], axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    set_scale("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def responsive(name: str, numbers: Sequence[str], height: float, draw: Callable[[Axes], None]) -> str:
    """Return both drawings of a chart `height` inches high, with `numbers` in its accessible name."""
    return "".join(
        _svg(f"{name}: {'; '.join(numbers)}", width, height, css, draw)
        for width, css in ((WIDE, "wide"), (NARROW, "narrow"))
    )


def _svg(name: str, width: float, height: float, css: str, draw: Callable[[Axes], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": css + name, "font.size": 9.5, "text.color": FG, "axes.labelcolor": SOFT,
        "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "ytick.labelcolor": FG,
        "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False, "axes.facecolor": "none",
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _inlined(file.getvalue(), name, css, figure)


def _inlined(text: str, name: str, css: str, figure: Figure) -> str:
    """Return matplotlib's SVG file as an element of the page, without header, metadata and unused ids."""
    body = re.sub(r"<metadata>.*?</metadata>", "", text[text.index(">", text.index("<svg")) + 1 :], flags=re.DOTALL)
    body = re.sub(r' id="[^"]*_[^"]*"', "", body)
    for variable, color in CSS.items():
        body = body.replace(color, f"var(--{variable})")
    width, height = 72 * figure.get_size_inches()
    opening = f'<svg class="chart {css}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}"'
    return f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{body}'


def inches(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return float(figure.get_figwidth())


def plain(label: str) -> str:
    """Return a legend's label that matplotlib does not hide: it hides a leading underscore."""
    return f"\u200b{label}" if label.startswith("_") else label
