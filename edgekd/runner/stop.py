"""A request to stop: by a signal, or by the reader of the results.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import signal
import time
from typing import Any

_SLICE_S = 0.05


class Stop:
    """A flag that a signal handler may set: unlike `threading.Event` it has no lock that the handler could wait for."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._is_set

    def set(self) -> None:
        """Ask to stop."""
        self._is_set = True

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait for some seconds, or until it is set; whether it is."""
        until = time.monotonic() + seconds
        while not self._is_set and time.monotonic() < until:
            time.sleep(min(_SLICE_S, max(0.0, until - time.monotonic())))
        return self._is_set


def on_signals(stop: Stop) -> None:
    """Let SIGTERM and SIGINT set the flag; the second one ends the process as it would by itself."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
