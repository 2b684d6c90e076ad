"""Threads that share the work on one image.

Numpy releases the interpreter lock while it computes, so threads help where each call takes tens of microseconds.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Callable, List, Sequence, Tuple

Work = Callable[[], None]


def shares(total: int, count: int) -> List[Tuple[int, int]]:
    """Return start and stop of each of `count` even shares of `total` rows."""
    return [(total * i // count, total * (i + 1) // count) for i in range(count)]


def run_together(parts: Sequence[Work]) -> None:
    """Call all parts at the same time, the first one in this thread, and return when all have ended; raises what one raised."""
    if len(parts) == 1:
        parts[0]()
        return
    others = [_pool(len(parts) - 1).submit(part) for part in parts[1:]]
    try:
        parts[0]()
    finally:
        wait(others)  # all of them: they write into buffers of the next image
    for other in others:
        other.result()


@lru_cache(maxsize=None)
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="edgekd-image")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child process has none of the threads
