"""Ends a local process that makes no progress: a board can be silent on a live connection."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO

_TICK_S = 1.0


class Watchdog:
    """Kills a process that for some seconds neither reads its stdin nor writes its stdout.

    Time in which this machine sleeps is left out.

    Args:
        process: as started.
        stdin: the file that the process reads, whose position shows progress; None without one.
        idle_s: longest time without progress.
    """

    def __init__(self, process: subprocess.Popen[bytes], stdin: IO[bytes] | None, idle_s: float) -> None:
        self.has_killed = False
        self._process, self._stdin, self._idle_s = process, stdin, idle_s
        self._output = 0  # bytes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def add_output(self, size: int) -> None:
        """Count bytes that the process wrote."""
        self._output += size

    def _watch(self) -> None:
        idle_s, before = 0.0, self._progress()
        while not self._ended.wait(_TICK_S):
            now = self._progress()
            idle_s, before = (idle_s + _TICK_S if now == before else 0.0), now
            if idle_s >= self._idle_s:
                self.has_killed = True
                self._process.kill()
                return

    def _progress(self) -> tuple[int, int]:
        position = 0
        if self._stdin is not None:
            with suppress(OSError, ValueError):  # closed meanwhile
                position = os.lseek(self._stdin.fileno(), 0, os.SEEK_CUR)  # the process shares it
        return self._output, position
