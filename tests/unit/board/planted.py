"""Sensor series with values that a test chooses, and the samples that hold them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.board.sampling import Samples, SensorSeries
from edgekd.board.sensors.sources import Channel

NS = 1_000_000_000


def series(
    quantity: str,
    name: str,
    value: Callable[[float], float],
    seconds: float,
    hz: float = 5.0,
    group: str = "",
    wraps_at: float | None = None,
) -> SensorSeries:
    """Return a sensor that reads `value(second)` from second 0 to `seconds`."""
    times = np.arange(round(seconds * hz) + 1) / hz
    channel = Channel(name, quantity, group, "planted", wraps_at)
    return SensorSeries(channel, (times * NS).astype(np.int64), np.array([value(t) for t in times.tolist()]))


def samples(*all_series: SensorSeries, unreadable: dict[str, str] | None = None) -> Samples:
    """Return the samples of these series."""
    return Samples({one.channel.key: one for one in all_series}, unreadable or {}, 5.0)
