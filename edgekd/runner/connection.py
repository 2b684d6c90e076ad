"""The reading side of an HTTP connection, with limits that `http.server` does not have: seconds in all, bytes of headers.

A time-out of a socket is one for each read, and a client that sends a byte now and then would hold a thread for ever.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any

_DRAIN_S, _DRAIN_BYTES = 2.0, 64 << 20


class TooLarge(Exception):
    """More bytes of headers than allowed."""


class BareReturn(Exception):
    """A carriage return inside a line of the headers: Python's parser begins a new line there, others do not."""


class _Raw(io.RawIOBase):
    """A socket as a stream whose reads end at a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.deadline = connection, 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout("too slow")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Reader:
    """The input of a request handler: `rfile` of `http.server`.

    Args:
        connection: the client's.
        idle_s: seconds to wait for a request.
        seconds: for a request to be there with headers and body.
        header_bytes: largest number of bytes of request line and headers.
    """

    def __init__(self, connection: socket.socket, idle_s: float, seconds: float, header_bytes: int) -> None:
        self._raw = _Raw(connection)
        self._buffered = io.BufferedReader(self._raw, 1 << 16)
        self._idle_s, self._seconds, self._header_bytes = idle_s, seconds, header_bytes
        self._left = 0
        self.has_begun = False

    def wait_for_request(self) -> bool:
        """Wait for the first byte of a request; False at the end of the connection. `socket.timeout` when none comes."""
        self._raw.deadline, self.has_begun = time.monotonic() + self._idle_s, False
        self.has_begun = bool(self._buffered.peek(1))
        self._raw.deadline, self._left = time.monotonic() + self._seconds, self._header_bytes
        return self.has_begun

    def readline(self, size: int = -1) -> bytes:
        """Return a line of the headers; `socket.timeout` when it is late.

        Raises:
            TooLarge: the headers are longer than allowed. BareReturn: see there.
        """
        line = self._buffered.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise TooLarge
        if b"\r" in line[:-2]:
            raise BareReturn
        return line

    def read(self, size: int) -> bytes:
        """Return `size` bytes of the body, fewer at the end of the connection; `socket.timeout` when they are late."""
        return self._buffered.read(size)

    def drain(self) -> None:
        """Read and forget for a moment what the client still sends: closing at once would take the answer from it."""
        self._raw.deadline, left = time.monotonic() + _DRAIN_S, _DRAIN_BYTES
        with suppress(OSError, ValueError):
            self._raw.connection.shutdown(socket.SHUT_WR)
            while left > 0:
                data = self._buffered.read1(1 << 16)
                if not data:
                    return
                left -= len(data)

    def close(self) -> None:
        """Release the stream; the server closes the socket."""
        self._buffered.detach()

    @property
    def closed(self) -> bool:
        """Never: asked by `http.server`."""
        return False
