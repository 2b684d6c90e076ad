"""Reads frames in a separate thread, ahead of the engine: all of them, or only the newest.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Callable, Deque, Generator, Generic, Iterable, Optional, TypeVar

T = TypeVar("T")
_AHEAD = 2  # frames that wait while none is dropped
_POLL_S = 0.1  # after which a stop is seen


class FrameThread(Generic[T]):
    """Iterates over what a thread reads.

    dropped: frames that were replaced by newer ones since the last frame that was taken.

    Args:
        frames: read in the thread. What it raises is raised after the frames before it.
        is_newest: a frame that nobody has taken makes room for the next one; else the thread waits.
        is_stopped: ends the iteration.
        patience_s: seconds without a frame after which `on_stall` is called; None: waits for ever.
        on_stall: raises.
    """

    def __init__(
        self,
        frames: Iterable[T],
        is_newest: bool,
        is_stopped: Callable[[], bool],
        patience_s: Optional[float] = None,
        on_stall: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped = 0
        self._frames, self._is_newest, self._is_stopped = frames, is_newest, is_stopped
        self._patience_s, self._on_stall = patience_s, on_stall
        self._waiting: Deque[T] = deque()
        self._news = threading.Condition()
        self._is_over, self._is_left = False, False
        self._failure: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._read, daemon=True, name="edgekd-frames")

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    return
        except BaseException as exc:  # noqa: BLE001 - raised where the frames are taken
            self._failure = exc
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()

    def _put(self, frame: T) -> bool:
        with self._news:
            if self._is_newest and self._waiting:
                self._waiting.clear()
                self.dropped += 1
            while len(self._waiting) >= _AHEAD and not self._is_left:
                self._news.wait()
            self._waiting.append(frame)
            self._news.notify_all()
            return not self._is_left

    def __iter__(self) -> Generator[T, None, None]:
        self._thread.start()
        try:
            while True:
                with self._news:
                    frame = self._next()
                if frame is None:
                    break
                yield frame
        finally:
            with self._news:
                self._is_left = True
                self._news.notify_all()
        if self._failure:
            raise self._failure

    def _next(self) -> Optional[T]:
        """Return the next frame, None at the end or when stopped. The lock is held."""
        since = time.monotonic()
        while not self._waiting:
            if self._is_over or self._is_stopped():
                return None
            if self._patience_s is not None and time.monotonic() - since > self._patience_s:
                self._on_stall()
            self._news.wait(_POLL_S)
        if self._is_stopped():
            return None
        self._news.notify_all()
        return self._waiting.popleft()
