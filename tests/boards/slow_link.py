"""A slow cable for ssh, to be its `ProxyCommand`: python slow_link.py HOST PORT BYTES_PER_SECOND"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable

_PIECE = 16384


def main() -> None:
    """Carry bytes both ways until one side ends."""
    link = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    speed = float(sys.argv[3])
    ways = [(lambda: link.recv(_PIECE), lambda piece: os.write(1, piece)), (lambda: os.read(0, _PIECE), link.sendall)]
    for take, give in ways:
        threading.Thread(target=_carry, args=(take, give, speed)).start()


def _carry(take: Callable[[], bytes], give: Callable[[bytes], object], speed: float) -> None:
    """Give on what is taken, at most at the given speed; the end of one way is the end of the cable."""
    try:
        while piece := take():
            give(piece)
            time.sleep(len(piece) / speed)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
