"""The requests of one HTTP connection, see `server.py`.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Dict, FrozenSet, Optional

import numpy as np

from edgekd.errors import FrameError, one_line
from edgekd.runner.connection import BareReturn, Reader, TooLarge
from edgekd.runner.frames import Frame
from edgekd.runner.headers import read_header
from edgekd.runner.images import decode_image
from edgekd.runner.results import to_json, to_line

if TYPE_CHECKING:
    from edgekd.runner.server import Server

_ROUTES = {"/infer": "POST", "/health": "GET", "/metrics": "GET"}


class Refusal(Exception):
    """An error response: status, and one line."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def setup(self) -> None:
        """Replace `rfile` by a `Reader`."""
        super().setup()
        limits = self.server.limits
        self.reader = Reader(self.connection, limits.idle_s, limits.seconds, limits.header_bytes)
        self.rfile = self.reader  # type: ignore[assignment]
        self.is_surplus = self.server.count_connection(1) > limits.connections

    def finish(self) -> None:
        """Close so that the client still gets the last answer."""
        with suppress(OSError, ValueError):
            self.wfile.flush()
        self.reader.drain()
        self.server.count_connection(-1)
        with suppress(OSError, ValueError):
            super().finish()

    def handle_one_request(self) -> None:
        """Read one request and answer it."""
        self.close_connection, self._expects, self.requestline, self.request_version = True, False, "", "HTTP/1.1"
        self.command = ""
        try:
            if not self.reader.wait_for_request():
                return
            self.server.count_busy(1)
            try:
                self._answer_one()
            finally:
                self.server.count_busy(-1)
        except OSError:  # also socket.timeout: the client is gone
            self.close_connection = True

    def _answer_one(self) -> None:
        try:
            if self.is_surplus:
                raise Refusal(503, f"more than {self.server.limits.connections} connections", Retry_After="1")
            self.raw_requestline = self.reader.readline()
            if self.parse_request():
                self._check_framing()
                self._route()
        except TooLarge:
            self._refuse(Refusal(431, f"expected at most {self.server.limits.header_bytes} bytes of headers"))
        except BareReturn:
            self._refuse(Refusal(400, "expected no carriage return inside a line of the headers"))
        except socket.timeout:
            self._refuse(Refusal(408, f"the request was not there after {self.server.limits.seconds:g} s"))
        except Refusal as refusal:
            self._refuse(refusal)

    def _route(self) -> None:
        self._check_caller()
        method = _ROUTES.get(self.path)
        if method is None:
            raise Refusal(404, f"expected one of {', '.join(_ROUTES)}")
        if self.command != method:
            raise Refusal(405, f"expected {method} {self.path}, got {self.command[:20]}", Allow=method)
        if self.path == "/infer":
            self._infer()
        elif self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            raise Refusal(400, f"{self.path} takes no body")
        elif self.path == "/health":
            fault, manifest = self.server.queue.fault, self.server.queue.engine.manifest
            facts = {"status": "failing" if fault else "ok", "name": manifest.name, "version": manifest.version}
            facts.update(task=manifest.task, target=manifest.target, precision=manifest.precision)
            facts.update(results=self.server.queue.metrics.results, error=fault, pid=os.getpid())
            self._send(503 if fault else 200, to_line(facts))
        else:
            text = self.server.queue.metrics.text(self.server.connections, self.server.queue.length)
            self._send(200, text.encode("utf-8"), "text/plain; version=0.0.4; charset=utf-8")

    def _check_framing(self) -> None:
        """Refuse what a proxy before this server may read as another number of requests (RFC 9112, sections 5.1, 6.3)."""
        if self.headers.defects or self.headers.get_payload():  # the parser took a bad line for the end of the headers
            raise Refusal(400, "expected headers of the form `Name: value`")
        if len(self.headers.get_all("Content-Length") or []) > 1:
            raise Refusal(400, "expected one Content-Length")

    def _check_caller(self) -> None:
        """Refuse browser pages: host names that are not this server's (DNS rebinding), and requests of other sites."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1:
            raise Refusal(400, "expected one Host header")
        if not is_own_name(hosts[0], self.server.names):
            raise Refusal(403, f"Host {hosts[0][:80]!r} is not a name of this server; start it with --allow-host")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{hosts[0]}".lower():
            raise Refusal(403, "a request from another web site is refused")

    def _infer(self) -> None:
        body, server = self._body(), self.server
        if not server.decoding.acquire(timeout=server.limits.seconds):
            raise Refusal(503, "too many images wait", Retry_After="1")
        try:
            pixels = self._pixels(body)
            timed = server.queue.run(pixels)
        except FrameError as exc:
            raise Refusal(400, one_line(exc)) from exc
        except Refusal:
            raise
        except Exception as exc:
            raise Refusal(500, f"the engine failed: {one_line(exc)}") from exc
        finally:
            server.decoding.release()
        frame = Frame("http", server.next_number(), time.time(), pixels)
        self._send(200, to_line(to_json(frame, timed, server.queue.engine.spec.classes, server.results)))

    def _body(self) -> bytes:
        length, limit = self.headers.get("Content-Length"), self.server.limits.body_bytes
        if "Transfer-Encoding" in self.headers or length is None:
            raise Refusal(411, "expected a Content-Length")
        if not re.fullmatch(r"[0-9]{1,15}", length):
            raise Refusal(400, f"Content-Length: expected a number, got {length[:80]!r}")
        size = int(length)
        if size > limit:
            raise Refusal(413, f"{size} bytes, expected at most {limit}; see --max-body")
        if self.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "expected a body without Content-Encoding")
        if self._expects:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.wfile.flush()
        body = self.reader.read(size)
        if len(body) != size:
            raise Refusal(400, f"expected {size} bytes, got {len(body)}")
        return body

    def _pixels(self, body: bytes) -> np.ndarray:
        raw = self.headers.get("X-Image-Size")
        if raw is not None:
            found = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", raw)
            width, height = (int(side) for side in found.groups()) if found else (0, 0)
            if not found or len(body) != width * height * 3:
                raise FrameError(
                    f"X-Image-Size {raw[:20]!r}: expected WIDTHxHEIGHT and 3 bytes a pixel, got {len(body)}"
                )
            return np.frombuffer(body, np.uint8).reshape(height, width, 3)
        if read_header(body, "body") is None:
            raise Refusal(
                415, "expected a JPEG, PNG, PPM or .npy image as the body, e.g. curl --data-binary @photo.jpg"
            )
        return decode_image(body, "body", self.server.limits.pixels)

    def _refuse(self, refusal: Refusal) -> None:
        self.close_connection, self.request_version = True, "HTTP/1.1"  # 0.9 has no status line
        self._send(refusal.status, to_line({"error": str(refusal)}), headers=refusal.headers)

    def _send(
        self, status: int, body: bytes, kind: str = "application/json", headers: Optional[Dict[str, str]] = None
    ) -> None:
        self.connection.settimeout(self.server.limits.seconds)
        self.server.queue.metrics.count_answer(status)
        self.send_response(status)
        sent = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Content-Type-Options": "nosniff"}
        if self.close_connection:
            sent["Connection"] = "close"
        for name, value in {**sent, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def handle_expect_100(self) -> bool:
        """Ask for the body later, when its length has been checked."""
        self._expects = True
        return True

    def send_error(self, code: int, message: Optional[str] = None, explain: Optional[str] = None) -> None:
        """Answer what `http.server` refuses as we do."""
        self._refuse(Refusal(int(code), one_line(ValueError(message or explain or "bad request"), 120)))

    def version_string(self) -> str:
        """Say no versions."""
        return "edgekd"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet; `/metrics` counts answers."""


def is_own_name(host: str, names: FrozenSet[str]) -> bool:
    """Whether a `Host` header names this server by an IP address, which nobody else can make point here, or by one of `names`."""
    name = re.sub(r":\d+$", "", host.strip()).strip("[]").lower().rstrip(".")
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in names
