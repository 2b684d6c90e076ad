"""Ends work that has child processes as Ctrl+C does, so that none of them is left behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM (a scheduler's, `kill`'s) and SIGHUP (a closed terminal's) raise KeyboardInterrupt while the block lasts.

    A signal that is ignored, as SIGHUP is under nohup, stays so. Of the main thread alone, as signals are.
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
