"""Parts of `report.json` about energy, sustained load and the state of boards, and their tables on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from edgekd.board.state_text import described, not_readable
from edgekd.errors import ArtifactError
from edgekd.report.part import Json, Number, Part
from edgekd.report.units import MISSING, milliseconds, ratio

if TYPE_CHECKING:
    from edgekd.report.model import BoardMachine, Row

TIMELINES = "timelines.json"  # in the report's data folder: row id -> timeline


class MeterEnergy(Part):
    """Energy per frame by one meter, in a stretch of the engine alone between two idle ones."""

    meter: str = Field("", description="rails that are summed, e.g. `VDD_IN`")
    scope: str = Field("", description="what the meter covers and leaves out")
    method: str = Field("", description="`trapezoid` of power values, or `counter`")
    gross_mj: Number = Field(None, description="millijoule per frame; null with a `reason`")
    net_mj: Number = Field(None, description="the same without the idle power")
    reason: str = Field("", description="why a figure is withheld: it cannot be told from noise")
    idle_before_w: Number = Field(None, description="mean power with the engine open and not running")
    busy_w: Number = Field(None, description="mean power while the engine ran")
    idle_after_w: Number = Field(None, description="as `idle_before_w`, afterwards")
    uncertainty: Number = Field(None, description="difference of the idle powers as a fraction of the net power")
    frames: int = Field(0, description="frames of the stretch")
    seconds: Number = Field(None, description="length of the stretch")
    distinct: int = Field(0, description="different values of the sensor in it")


class EnergyPerFrame(Part):
    """Energy per frame of one engine."""

    meters: list[MeterEnergy] = Field([], description="by meter, the one that covers most first")
    reason: str = Field("", description="why there is none: no power sensor")

    @property
    def first(self) -> MeterEnergy:
        """The meter that covers most; without any, an empty one with the reason."""
        return self.meters[0] if self.meters else MeterEnergy(reason=self.reason)


class SustainedLatency(Part):
    """Latency of one engine that ran back to back."""

    seconds: Number = Field(None, description="length of the run")
    runs: int = Field(0, description="number of inferences")
    window_s: Number = Field(
        None, description="length of the first and the last window: a minute, or half of a short run"
    )
    first_p50_ms: Number = Field(None, description="median of the first window")
    last_p50_ms: Number = Field(None, description="median of the last window")
    last_p99_ms: Number = Field(None, description="p99 of the last window; null where its runs cannot carry it")
    ratio: Number = Field(None, description="`last_p50_ms` over `first_p50_ms`")
    throttled_after_s: Number = Field(None, description="seconds to the first sign of throttling; null without one")
    signs: list[str] = Field([], description="first sign of each sensor in words, in the order of time")
    hottest: str = Field("", description="zone that is hottest at the end")
    start_c: Number = Field(None, description="its temperature at the begin, °C")
    end_c: Number = Field(None, description="its temperature at the end, °C")
    slope_k_per_min: Number = Field(None, description="its slope in the last window, kelvin per minute")
    is_steady: bool | None = Field(
        None, description="whether the slope is below 0.5 K/min; null where none can be read"
    )
    cool_down: str = Field("", description="wait before the run, in words")


class SamplingCost(Part):
    """Slow-down by the sampler of sensors, from alternating bursts with and without it."""

    fraction: Number = Field(None, description="of the engine time")
    spread: Number = Field(None, description="half of the interquartile range of the rounds")
    rounds: int = Field(0, description="pairs of bursts")


class Timeline(Part):
    """Sustained latency and sensors by the second, for the page."""

    second: list[int] = Field([])
    p50_ms: list[float] = Field([])
    p99_ms: list[float] = Field([])
    sensors: dict[str, list[Number]] = Field({})


@dataclass(frozen=True)
class StateTable:
    """State of a board before and after its bench, ready to print: name, before, after; and what cannot be read."""

    board: str
    lines: list[tuple[str, str, str]]
    unreadable: list[str]


def state_tables(boards: Mapping[str, BoardMachine]) -> list[StateTable]:
    """Return a table for each board whose state was recorded."""
    tables = []
    for name, board in boards.items():
        if not board.state:
            continue
        before, after = (described(board.state.get(when) or {}) for when in ("before", "after"))
        lines = [(key, before.get(key, MISSING), after.get(key, MISSING)) for key in {**before, **after}]
        tables.append(StateTable(name, lines, not_readable(board.state.get("before") or {})))
    return tables


def energy_text(row: Row) -> str:
    """Return gross and net energy per frame, `450 / 200 mJ`, or why there is none; "" where it was not asked for."""
    if row.energy is None:
        return ""
    first = row.energy.first
    return first.reason or f"{milliseconds(first.gross_mj)} / {milliseconds(first.net_mj)}"


def sustained_text(row: Row) -> str:
    """Return the sustained median and its ratio to that of the bench's bursts, `15.0 ms, 1.50×`; "" where there is none."""
    if row.sustained is None or row.sustained.last_p50_ms is None:
        return ""
    last = row.sustained.last_p50_ms
    return milliseconds(last) + (f" ({ratio(last / row.p50_ms)})" if row.p50_ms else "")


def timelines_of(folders: Sequence[Path]) -> Json:
    """Return row id -> timeline of the benches in these folders that have long runs."""
    found: Json = {}
    for folder in folders:
        path = folder / "long_runs.json"
        if path.exists():
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
            found |= {row: content["timeline"] for row, content in rows.items() if content["timeline"]}
    return found


def read_timelines(path: Path) -> dict[str, Timeline]:
    """Return the timelines in a file by row id, {} without the file.

    Raises:
        ArtifactError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {row: Timeline.model_validate(timeline) for row, timeline in content.items()}
    except (OSError, ValueError, ValidationError, AttributeError) as exc:
        raise ArtifactError(f"{path}: damaged ({exc}); run the recipe again to rewrite it") from exc
