"""Ends work with child processes as Ctrl+C does, so that no child is left."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM (a scheduler's, `kill`'s) and SIGHUP (a closed terminal's) raise KeyboardInterrupt while the block lasts.

    An ignored signal (SIGHUP under nohup) stays ignored. Works in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    for one, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(one, signal.default_int_handler)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
