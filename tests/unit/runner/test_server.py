"""The server loses and mixes no answer, and refuses what is too large, damaged, slow or of a browser's page."""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekd.board.detection import Selection
from edgekd.runner.engine import open_engine
from edgekd.runner.engine_queue import EngineQueue
from edgekd.runner.handler import is_own_name
from edgekd.runner.metrics import Metrics
from edgekd.runner.results import ResultSettings
from edgekd.runner.server import Limits, Server, parse_address
from tests.small_release import HEIGHT, WIDTH, striped, write_color_release

PIXELS = HEIGHT * WIDTH
QUICK = Limits(body_bytes=20_000, pixels=10_000, seconds=0.5, idle_s=0.5, connections=4)


@contextmanager
def serving(folder: Path, limits: Limits) -> Iterator[Server]:
    with open_engine(folder) as engine:
        queue = EngineQueue(engine, Metrics(engine.manifest))
        server = Server(("127.0.0.1", 0), queue, ResultSettings(Selection()), limits, frozenset({"board.local"}))
        server.start()
        yield server
        server.close()
        queue.close()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_color_release(tmp_path_factory.mktemp("release") / "color")


@pytest.fixture(scope="module")
def server(release: Path) -> Iterator[Server]:
    with serving(release, Limits()) as running:
        yield running


@pytest.fixture(scope="module")
def quick(release: Path) -> Iterator[Server]:
    with serving(release, QUICK) as running:
        yield running


def as_file(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "npy":
        np.save(file, image)
    elif kind == "ppm":
        file.write(b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes())
    else:
        Image.fromarray(image).save(file, kind)
    return file.getvalue()


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()


def raw(server: Server, data: bytes, is_half_closed: bool = False) -> bytes:
    """Return all that the server says to some bytes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(data)
        if is_half_closed:
            connection.shutdown(socket.SHUT_WR)
        said = b""
        while chunk := connection.recv(65536):
            said += chunk
    return said


@pytest.mark.parametrize("kind", ["PNG", "npy", "ppm"])
def test_the_answer_has_the_share_of_each_class(server: Server, kind: str) -> None:
    status, answer = ask(server, "POST", "/infer", as_file(striped(768, 384), kind))
    assert status == 200
    assert answer["schema"] == "edgekd.results/1"
    assert answer["classes"] == {"red": 0.5, "green": 0.25, "blue": 0.25}
    assert (answer["width"], answer["height"]) == (WIDTH, HEIGHT)
    assert set(answer["milliseconds"]) == {"pre", "engine", "post"}


def test_raw_pixels_come_with_their_size(server: Server) -> None:
    image = striped(768, 384)
    status, answer = ask(server, "POST", "/infer", image.tobytes(), X_Image_Size=f"{WIDTH}x{HEIGHT}")
    assert (status, answer["classes"]["red"]) == (200, 0.5)
    for size in ("48x33", "0x0", "x", "-48x-32", "999999x999999"):
        assert ask(server, "POST", "/infer", image.tobytes(), X_Image_Size=size)[0] == 400


def test_a_thousand_requests_of_eight_clients_are_answered_each_with_its_own_result(server: Server) -> None:
    images = [as_file(striped(number, 0), "npy") for number in range(1000)]  # its number is the count of red pixels

    def client(first: int) -> list[tuple[int, int, float]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        found = []
        for number in range(first, 1000, 8):
            connection.request("POST", "/infer", images[number])
            answer = connection.getresponse()
            found.append((answer.status, number, json.loads(answer.read())["classes"].get("red", 0)))
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        answers = [one for part in pool.map(client, range(8)) for one in part]
    assert sorted(answers) == [(200, number, round(number / PIXELS, 4)) for number in range(1000)]


def test_health_and_metrics_say_what_runs(server: Server) -> None:
    ask(server, "POST", "/infer", as_file(striped(1, 1), "npy"))
    status, health = ask(server, "GET", "/health")
    assert (status, health["status"], health["name"], health["task"]) == (200, "ok", "tiny", "semantic")
    status, text = ask(server, "GET", "/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert status == 200
    assert values['edgekd_release_info{name="tiny",version="1",target="onnxruntime",precision="fp32"}'] == "1"
    assert (
        int(values["edgekd_results_total"]) == int(values['edgekd_stage_seconds_bucket{stage="engine",le="+Inf"}']) > 0
    )
    assert values['edgekd_stage_seconds_count{stage="post"}'] == values["edgekd_results_total"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/infer/", 404),
        ("GET", "/infer?x=1", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/infer", 405),
        ("PUT", "/infer", 405),
        ("OPTIONS", "/infer", 405),
        ("POST", "/health", 405),
        ("BREW", "/metrics", 405),
    ],
)
def test_other_paths_and_methods_are_refused(server: Server, method: str, path: str, status: int) -> None:
    found, answer = ask(server, method, path)
    assert found == status
    assert "expected" in answer["error"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 415, "expected a JPEG, PNG, PPM or .npy image"),
        (b"hello", 415, "expected a JPEG, PNG, PPM or .npy image"),
        (b"GIF89a" + bytes(99), 415, "expected a JPEG, PNG, PPM or .npy image"),
        (as_file(striped(5, 5), "PNG")[:-30], 400, "damaged or truncated"),
        (as_file(striped(5, 5), "JPEG")[:-99], 400, "damaged or truncated"),
        (as_file(striped(5, 5), "npy")[:-1], 400, "expected 4608 bytes of pixels, got 4607"),
        (b"P6 20000 20000 255\n", 400, "claims 20000x20000 pixels, expected at most 10000"),
        (bytes(20_001), 413, "20001 bytes, expected at most 20000"),
    ],
)
def test_bodies_that_are_no_image_are_refused(quick: Server, body: bytes, status: int, says: str) -> None:
    found, answer = ask(quick, "POST", "/infer", body)
    assert found == status
    assert says in answer["error"]


POST = b"POST /infer HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"\r\n", 411),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 411),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello", 411),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: +5\r\n\r\nhello", 400),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (POST + b"Content-Length: 99999999999999\r\n\r\n", 413),
        (POST + b"Content-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello", 415),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_malformed_requests_get_one_answer_and_the_connection_ends(quick: Server, data: bytes, status: int) -> None:
    assert raw(quick, data).startswith(b"HTTP/1.1 %d " % status)


HIDDEN = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"no colon\r\nContent-Length: 42\r\n",
        b"Content-Length : 42\r\n",
        b"Content-Length: 0\r\nContent-Length: 42\r\n",
        b"Transfer-Encoding:\r\nContent-Length: 0\r\n",
        b"X: y\rContent-Length: 0\r\n",
    ],
)
def test_a_request_that_others_read_as_another_number_of_requests_gets_one_refusal(quick: Server, lines: bytes) -> None:
    said = raw(quick, GET + lines + b"\r\n" + HIDDEN)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1 ") == 1


def test_a_body_that_ends_early_is_refused(quick: Server) -> None:
    said = raw(quick, POST + b"Content-Length: 100\r\n\r\nP6", is_half_closed=True)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"expected 100 bytes, got 2" in said


def test_a_client_that_waits_for_100_continue_is_refused_before_it_sends_the_body(quick: Server) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: "
    assert raw(quick, head + b"30000\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    body = as_file(striped(5, 5), "npy")
    with socket.create_connection(("127.0.0.1", quick.server_port), timeout=20) as connection:
        connection.sendall(head + b"%d\r\n\r\n" % len(body))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"GET /health HTTP/1.1\r\nHost: local", POST + b"Content-Length: 100\r\n\r\nP6"])
def test_a_client_that_sends_a_byte_now_and_then_is_let_go(quick: Server, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", quick.server_port), timeout=20) as connection:
        connection.sendall(start)
        said, began = b"", time.monotonic()
        connection.settimeout(0.1)
        while not said:
            assert time.monotonic() - began < 20
            try:
                connection.sendall(b"x")
                said = connection.recv(100)
            except TimeoutError:
                pass
    assert said.startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_asks_nothing_ends_without_a_word(quick: Server) -> None:
    assert raw(quick, b"") == b""


def test_more_connections_than_allowed_are_told_to_come_later_and_the_others_stay(release: Path) -> None:
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with serving(release, replace(QUICK, idle_s=20, seconds=20, connections=2)) as server:
        held = [socket.create_connection(("127.0.0.1", server.server_port), timeout=20) for _ in range(2)]
        for connection in held:
            connection.sendall(get)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        said = raw(server, get)
        assert said.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in said
        for connection in held:
            connection.sendall(get)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
            connection.close()


def test_an_engine_that_fails_is_said_and_the_next_image_goes_well(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = server.queue.engine.predictor
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "_for", lambda size: 1 / 0)
        status, answer = ask(server, "POST", "/infer", as_file(striped(1, 1), "npy"))
        assert (status, answer["error"]) == (500, "the engine failed: division by zero")
        assert ask(server, "GET", "/health")[0] == 503
    assert ask(server, "POST", "/infer", as_file(striped(1, 1), "npy"))[0] == 200
    assert ask(server, "GET", "/health")[0] == 200


def test_pages_of_a_browser_are_refused(server: Server) -> None:
    body = as_file(striped(1, 1), "npy")
    assert ask(server, "POST", "/infer", body, Host="evil.example")[0] == 403
    assert ask(server, "POST", "/infer", body, Origin="http://evil.example")[0] == 403
    assert ask(server, "POST", "/infer", body, Origin="null")[0] == 403
    assert ask(server, "POST", "/infer", body, Host="board.local:8080")[0] == 200


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost", True),
        ("LOCALHOST.:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("192.168.0.2", True),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_the_host_header_is_an_address_or_a_known_name(host: str, is_own: bool) -> None:
    assert is_own_name(host, frozenset({"localhost"})) is is_own


def test_the_address_is_loopback_unless_it_is_given() -> None:
    assert parse_address("8080") == ("127.0.0.1", 8080)
    assert parse_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert parse_address("[::1]:80") == ("::1", 80)
    for wrong in ("", "x", "1:x", "99999"):
        with pytest.raises(ValueError, match="expected PORT or HOST:PORT"):
            parse_address(wrong)
