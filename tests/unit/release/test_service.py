"""The unit of a service: its file, and where it serves HTTP. systemd itself: tests/integration/boards/test_deploy_switch.py."""

from __future__ import annotations

import json
import os
import pwd
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgekd.board.job import Job
from edgekd.errors import DeployError
from edgekd.release.health import why_no_answer
from edgekd.release.service import Unit, unit_text
from edgekd.release.tasks import list_releases


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (None, ("127.0.0.1", 8080)),  # the template's own arguments
        ("EDGEKD_RUN='--http 9000'", ("127.0.0.1", 9000)),
        ("EDGEKD_RUN='--http 0.0.0.0:80 --every 5'", ("127.0.0.1", 80)),
        ("EDGEKD_RUN='--http 10.0.0.7:80'", ("10.0.0.7", 80)),
        ("EDGEKD_RUN='camera:0 --reconnect'", None),
        ("EDGEKD_RUN='--http'", None),
        ("EDGEKD_RUN='--http x'", None),
        ("EDGEKD_RUN='--http 80", None),
        ('EDGEKD_RUN="--http 80 it\'s"', None),
    ],
)
def test_the_address_of_a_service_is_that_of_its_arguments(
    line: str | None, address: tuple[str, int] | None, tmp_path: Path
) -> None:
    if line is not None:
        (tmp_path / "service.env").write_text(f"{line}\n")
    assert Unit(tmp_path).address() == address


def test_the_unit_names_the_folder_of_the_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert 'ExecStart="%h/.local/share/edgekd/%i/current/run" $EDGEKD_RUN' in unit_text(
        tmp_path / ".local/share/edgekd"
    )
    text = unit_text(Path("/my data/100 %/edgekd"))  # systemd splits a command at spaces, and reads % as its own
    assert 'ExecStart="/my data/100 %%/edgekd/%i/current/run" $EDGEKD_RUN\n' in text
    assert "EnvironmentFile=-/my data/100 %%/edgekd/%i/service.env\n" in text
    assert "%h" not in text


def test_a_user_without_a_home_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", absent)
    with pytest.raises(DeployError, match="no home folder.*set HOME"):
        unit_text(Path("/data/edgekd"))
    job = Job("releases", "", {"root": "~/x", "name": "", "health_s": 1})
    with pytest.raises(DeployError, match="~/x: this user has no home folder"):
        list_releases(job, lambda word, fraction: None)


def test_a_port_that_nobody_has_does_not_answer() -> None:
    assert why_no_answer("127.0.0.1", 1, 1, 1).startswith(
        "http://127.0.0.1:1/health does not answer as the runner does ("
    )


@pytest.fixture
def health() -> Iterator[tuple[int, dict[str, Any]]]:
    """A port, and what its `/health` answers."""
    facts: dict[str, Any] = {}

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(facts).encode())

        def log_message(self, *words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port, facts
        server.shutdown()
        thread.join()


def test_another_name_with_the_same_engine_on_the_same_port_is_not_this_service(
    health: tuple[int, dict[str, Any]],
) -> None:
    port, facts = health
    ours, absent = os.getpid(), 1 << 23  # above the kernel's largest pid
    for answer, unit, is_well in (
        ({"version": 1, "pid": ours}, ours, True),
        ({"version": 1, "pid": ours}, os.getppid(), True),  # a shell around the runner, in the unit's control group
        ({"version": 1}, ours, True),
        ({"version": 1, "pid": absent}, ours, False),
        ({"version": 2, "pid": ours}, ours, False),
    ):
        facts.clear()
        facts.update(answer)
        why = why_no_answer("127.0.0.1", port, 1, unit)
        assert (why == "") is is_well
        assert is_well or why.endswith("another process has its port")
