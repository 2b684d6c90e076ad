"""The unit of a service: its file, and where it serves HTTP. systemd itself: tests/integration/boards/test_deploy_switch.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.release.health import why_no_answer
from edgekd.release.service import Unit, unit_text


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
    assert "ExecStart=%h/.local/share/edgekd/%i/current/run $EDGEKD_RUN" in unit_text(tmp_path / ".local/share/edgekd")
    text = unit_text(Path("/data/edgekd"))
    assert "ExecStart=/data/edgekd/%i/current/run $EDGEKD_RUN\n" in text
    assert "%h" not in text


def test_a_port_that_nobody_has_does_not_answer() -> None:
    assert why_no_answer("127.0.0.1", 1, 1).startswith("http://127.0.0.1:1/health does not answer as the runner does (")
