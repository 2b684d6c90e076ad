"""The error of each engine layer by layer: its part of `report.json`, of the page, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from edgekd.layers.model import COMPARISONS, LayerErrors
from edgekd.layers.table import headers, rows
from edgekd.report.part import Json, Number, Part
from edgekd.report.svg import CSS, FG, GRID, NARROW, inches, responsive

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgekd.core.artifact import Artifact

SHOWN = 40  # rows of a table that are not folded
_MOST_DB = 80.0  # the top of the picture: more is as good
_KIND = "layers/"


class EngineLayers(Part):
    """The errors of an engine layer by layer; dB of signal to noise, null where it was not measured, 200 for no difference."""

    engine: str = Field(description="id of the engine")
    images: int = Field(description="training images that were compared")
    layers: list[Json] = Field(
        description="in graph order: `name` (ONNX node), `op`, `module`, `macs` (share), `number` (of layers of one module, 0: the "
        "only one), `is_float`; `alone`: of the outputs when only this layer is quantized; `single`: of its tensor "
        "from float inputs, by a toolchain's analysis; `accumulated`: of its tensor, Q/DQ graph against float; "
        "`engine`, `board`: of its tensor, engine against Q/DQ graph and board against engine; "
        "`engine_own`, `board_own`: the same from the engine's own inputs, without roundings that the engine leaves out; `allowed`: "
        "the lowest of these that rounding can explain; `cause`: `range`, `inputs` or `weights`, which make most of the layer's "
        "quantization noise; `outside`: with `range`, the share of values outside"
    )
    answer: dict[str, Number] = Field(
        description="dB of the outputs by comparison: `quantization`, `runtime`, `board`, `taps`"
    )
    blamed: list[Json] = Field(
        description="layers to blame, the worst first: `comparison`, `layer`, `text`, `cause`, `others` (that stand out with it)"
    )
    sentence: str = Field(description="the first of them in words, or why nothing stands out")
    notes: list[str] = Field([], description="what was not compared, and why")


def engine_layers(artifacts: Mapping[str, Artifact]) -> dict[str, EngineLayers]:
    """Return the errors by engine, of the artifacts that have them."""
    found = {name: one.details for name, one in artifacts.items() if name.startswith(_KIND)}
    return {name.removeprefix(_KIND): EngineLayers.model_validate(dict(details)) for name, details in found.items()}


@dataclass(frozen=True)
class LayersTable:
    """An engine's layers, ready to print; `figure` is SVG, `rows` and `folded` together are the table."""

    label: str
    images: int
    sentence: str
    others: list[str]
    answers: list[str]
    notes: list[str]
    figure: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]
    folded: list[tuple[str, ...]]


def layers_tables(layers: Mapping[str, EngineLayers], labels: Mapping[str, str]) -> list[LayersTable]:
    """Return the page's part, for each engine that has errors."""
    return [_table(LayerErrors.from_dict(one.model_dump()), labels.get(name, name)) for name, one in layers.items()]


def _table(found: LayerErrors, label: str) -> LayersTable:
    texts = rows(found)
    answers = {COMPARISONS[name]: value for name, value in found.answer.items() if value is not None}
    return LayersTable(
        label=label,
        images=found.images,
        sentence=found.sentence,
        others=[one.text for one in found.blamed[1:]],
        answers=[f"{name} {'the same' if value >= 200 else f'{value:.1f} dB'}" for name, value in answers.items()],
        notes=list(found.notes),
        figure=layers_chart(found, label),
        headers=headers(found),
        rows=texts[:SHOWN],
        folded=texts[SHOWN:],
    )


def layers_chart(found: LayerErrors, label: str) -> str:
    """Return the layers in graph order: bars alone, a line accumulated, a second line the engine; "" with nothing to draw."""
    shown = {name: [(place, value) for place, one in enumerate(found.layers) if (value := getattr(one, name)) is not None]
             for name in ("alone", "accumulated", "engine")}  # fmt: skip
    if not any(shown.values()):
        return ""
    blamed = {place for place, layer in enumerate(found.layers) if layer.name in {one.layer for one in found.blamed}}

    def draw(axes: Axes) -> None:
        axes.set_axisbelow(True)
        for title, color, bars in (
            ("alone, at the outputs", CSS["int8"], [one for one in shown["alone"] if one[0] not in blamed]),
            ("alone, the layer to blame", CSS["bad"], [one for one in shown["alone"] if one[0] in blamed]),
        ):
            if bars:
                axes.bar(*_columns(bars), width=0.75, color=color, alpha=0.55, label=title)
        if shown["accumulated"]:
            axes.plot(
                *_columns(shown["accumulated"]), color=CSS["student"], linewidth=1.8, label="accumulated: Q/DQ – float"
            )
        if shown["engine"]:
            axes.plot(*_columns(shown["engine"]), "--", color=CSS["teacher"], linewidth=1.6, label="engine – Q/DQ")
        floats = [place for place, one in enumerate(found.layers) if one.is_float]
        if floats:
            axes.plot(floats, [2.0] * len(floats), "^", color=FG, markersize=6, label="in float")
        for place in blamed:
            _name(axes, found, place)
        axes.set_xlim(-0.7, len(found.layers) - 0.3)
        axes.set_ylim(min([0.0, *(value for values in shown.values() for _, value in values)]), _MOST_DB + 2)
        axes.set_xlabel("layer, in graph order")
        axes.set_ylabel("signal to noise, dB")
        axes.grid(axis="y", color=GRID)
        columns = 2 if inches(axes) > NARROW else 1
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=columns, frameon=False, labelcolor=FG)

    numbers = [
        f"{one.title} " + ", ".join(
            f"{name} {value:.1f} dB" for name in shown if (value := getattr(one, name)) is not None
        )
        for one in found.layers
    ]  # fmt: skip
    return responsive(f"Error of each layer, {label}", numbers, 4.2, draw)


def _name(axes: Axes, found: LayerErrors, place: int) -> None:
    """Write a layer's name beside its place, at the top, on the side that has room."""
    is_late = place > len(found.layers) / 2
    axes.axvline(place, color=CSS["bad"], linewidth=1, linestyle=":", zorder=0)
    axes.annotate(
        found.layers[place].title, (place, _MOST_DB), (-4 if is_late else 4, 3), textcoords="offset points", fontsize=8.5,
        color=CSS["bad"], ha="right" if is_late else "left", va="bottom", annotation_clip=False,
    )  # fmt: skip


def _columns(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [place for place, _ in points], [min(value, _MOST_DB) for _, value in points]
