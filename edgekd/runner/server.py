"""A small HTTP server: `POST /infer`, `GET /health`, `GET /metrics`. Standard library.

It is for programs on the same machine: no encryption and no passwords, and pages of a browser are refused, by their `Host`
(DNS rebinding) and their `Origin`.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, FrozenSet, Optional, Tuple

from edgekd.runner.engine_queue import EngineQueue
from edgekd.runner.handler import Handler
from edgekd.runner.images import MOST_PIXELS
from edgekd.runner.results import ResultSettings

_SECONDS_TO_FINISH = 5.0


@dataclass(frozen=True)
class Limits:
    """Limits of the server.

    body_bytes, pixels, header_bytes: of a request.
    seconds: for a request to arrive, and to be answered once it is in.
    idle_s: that a connection may wait for its next request.
    connections: number served at a time; the same number again get the answer 503.
    decoding: images that are decoded or wait for the engine at a time.
    """

    body_bytes: int = 16 << 20
    pixels: int = MOST_PIXELS
    header_bytes: int = 16 << 10
    seconds: float = 30.0
    idle_s: float = 60.0
    connections: int = 32
    decoding: int = 4


class Server(ThreadingMixIn, HTTPServer):
    """Serves an engine until `close`.

    Args:
        address: host and port; port 0 takes a free one.
        queue: the engine.
        results: what answers hold.
        limits: limits of requests.
        names: host names by which clients may call it, beside IP addresses and `localhost`.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: Tuple[str, int],
        queue: EngineQueue,
        results: ResultSettings,
        limits: Optional[Limits] = None,
        names: FrozenSet[str] = frozenset(),
    ) -> None:
        self.queue, self.results, self.limits = queue, results, limits or Limits()
        self.names = names | {"localhost"}
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.decoding = threading.BoundedSemaphore(self.limits.decoding)
        self._places = threading.BoundedSemaphore(2 * self.limits.connections)
        self._lock, self.connections, self.busy, self._number = threading.Lock(), 0, 0, 0
        super().__init__(address, Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="edgekd-http", daemon=True)

    def server_bind(self) -> None:
        """Bind without `HTTPServer`'s look-up of this machine's name, which takes seconds where there is no DNS."""
        self.allow_reuse_address = True
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def start(self) -> None:
        """Serve in background threads."""
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, and give the requests that are here a moment to be answered."""
        self.shutdown()
        until = time.monotonic() + _SECONDS_TO_FINISH
        while self.busy and time.monotonic() < until:
            time.sleep(0.02)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, or close it at twice the limit of connections."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that disconnects is not an error."""

    def count_connection(self, change: int) -> int:
        """Change the number of open connections and return it."""
        with self._lock:
            self.connections += change
            return self.connections

    def count_busy(self, change: int) -> None:
        """Change the number of requests under way."""
        with self._lock:
            self.busy += change

    def next_number(self) -> int:
        """Return the number of an answer, from 0."""
        with self._lock:
            self._number += 1
            return self._number - 1


def parse_address(text: str) -> Tuple[str, int]:
    """Return host and port of `8080` or `192.168.0.2:8080`; ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError(f"expected PORT or HOST:PORT, got {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
