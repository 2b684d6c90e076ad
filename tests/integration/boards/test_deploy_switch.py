"""The switch on a board with systemd: Python 3.8, a real user manager, units that serve HTTP; kills, reboots, bad releases."""

from __future__ import annotations

import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekd.executors.portable import copy_to
from edgekd.release.service import TEMPLATE
from tests.boards import kill_at
from tests.boards.fixtures import SshdBoard
from tests.boards.small_bundles import HEALTHY, UNHEALTHY, Small, allow, make_bundle, make_key

pytestmark = pytest.mark.slow
ROOT = ".local/share/edgekd"
KILLS = 24


@dataclass
class Service:
    """A name on a board, with edgekd's code there but no host: what a person or a fleet's agent types."""

    board: SshdBoard
    name: str
    port: int
    folder: Path
    count: int = 0

    def install(self, small: Small, *options: str, key: Path | None = None) -> str:
        """Make a bundle, install it on the board, and return what was printed with the exit code."""
        return self.type(f"install ~/{self.sent(small, key)} {' '.join(options)}")

    def sent(self, small: Small, key: Path | None = None) -> str:
        """Make a bundle, copy it to the board's home, and return its name there."""
        self.count += 1
        bundle = make_bundle(self.folder / str(self.count), small, key)
        return self.put(bundle.read_bytes())

    def put(self, content: bytes) -> str:
        """Write a file into the board's home and return its name."""
        self.board.run(f"cat >{self.name}.tar", content)
        return f"{self.name}.tar"

    def type(self, command: str) -> str:
        """Run a command of the installer on the board, and return its output and `exit N`."""
        line = f"PYTHONPATH=~/code python3 -m edgekd.release ~/{ROOT}/{self.name} {command}; echo exit $?"
        return self.board.run(line).strip()

    def said(self) -> str:
        """Return what the service answers now, "" when it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5) as answer:
                return str(answer.read().decode().strip())
        except (OSError, urllib.error.URLError):
            return ""

    def served(self, seconds: float = 20) -> str:
        """Return what the service answers, once it does."""
        end = time.monotonic() + seconds
        while not (word := self.said()) and time.monotonic() < end:
            time.sleep(0.05)
        return word

    def checked(self) -> str:
        """Return what the current release says itself, after its files were compared with their sums."""
        return self.board.run(
            f"cd {ROOT}/{self.name}/current/ && sha256sum --quiet -c SHA256SUMS && ./run --check"
        ).strip()

    def unfinished(self) -> str:
        return self.board.run(f"ls -A {ROOT}/{self.name} | grep in- || true").strip()


@pytest.fixture
def service(systemd_board: SshdBoard, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A new name, whose first release says `one` and is run by systemd."""
    if not (systemd_board.home / "code").exists():
        copy_to(systemd_board.home / "code", [])
        shutil.copy(kill_at.__file__, systemd_board.home / "code")
        systemd_board.run("chmod -R go+rX code 2>/dev/null; true")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Service(systemd_board, f"n{port}", port, tmp_path)
    assert found.install(Small("one", 1)).endswith("exit 0")
    said = found.type(f"service --http {port}")
    assert said.splitlines()[0] == f"edgekd@{found.name}.service: --http {port}", said
    assert found.served() == "one"
    yield found
    found.type("remove")


def test_a_new_release_is_served_by_systemd_and_a_rollback_needs_no_host(service: Service) -> None:
    output = service.install(Small("two", 2))
    lines = [line.split()[0] for line in output.splitlines()]
    assert lines == ["room", "unpack", "fit", "golden", "place", "switch", "restart", "health", "tidy", "exit"], output
    assert service.said() == service.checked() == "two"
    listed = service.type("list").splitlines()
    assert listed[0] == f"{service.name}: active, http://127.0.0.1:{service.port}"
    assert [line.split()[1] for line in listed[1:3]] == ["current", "previous"]
    assert service.type("rollback").endswith("exit 0")
    assert service.said() == service.checked() == "one"


def test_a_second_name_on_the_port_of_the_first_is_not_healthy(service: Service, tmp_path: Path) -> None:
    """Both have the same engine, so the same version; the second one takes its time before it wants the port."""
    slow = Small("one", 1, serve=f"sleep 2; {HEALTHY}")
    second = Service(service.board, f"{service.name}b", service.port, tmp_path / "second")
    try:
        assert second.install(slow).endswith("exit 0")
        said = second.type(f"service --http {service.port}").splitlines()
        assert said[-1] == "exit 1"
        assert f"edgekd@{second.name}.service is enabled, but not healthy: " in said[-2]
        assert "another process has its port" in said[-2] or "does not stay up" in said[-2]
        assert service.said() == "one"
    finally:
        second.type("remove")


def test_the_same_name_in_another_folder_leaves_the_service_alone(service: Service) -> None:
    """As after `deploy: {folder: ...}` was changed because the disk is full."""
    other = f"PYTHONPATH=~/code python3 -m edgekd.release ~/other/{service.name}"
    said = service.board.run(f"{other} install ~/{service.sent(Small('two', 2))}; echo exit $?").strip().splitlines()
    assert said[-1] == "exit 0"
    assert [line.split()[0] for line in said[-3:-1]] == ["restart", "tidy"]
    assert service.said() == "one"
    assert service.board.run(f"{other} remove; echo exit $?").strip() == "exit 0"
    assert service.said() == service.checked() == "one"


BAD = {
    "ends at once": (Small("two", 2, serve="exit 1"), "does not stay up; see: journalctl --user -u edgekd@"),
    "does not become healthy": (Small("two", 2, serve=UNHEALTHY), "/health answers 500 "),
    "hangs": (Small("two", 2, serve="exec sleep 1000"), "/health does not answer"),
    "golden": (Small("two", 2, check="exit 1"), "golden: two"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_release_that_does_not_serve_is_switched_back(what: str, service: Service) -> None:
    small, why = BAD[what]
    said = service.install(small, "--health-s", "3" if "health" in what or what == "hangs" else "20").splitlines()
    assert said[-1] == "exit 1"
    assert why in said[-2]
    assert what == "golden" or said[-2].endswith(", which serves")
    assert service.served() == service.checked() == "one"
    assert service.unfinished() == ""


def test_kill_9_before_any_change_leaves_the_old_or_the_new_release_serving(service: Service) -> None:
    """Each kill falls before another change of the file system. A release says its own word."""
    total = int(killed(service, 0, service.sent(Small("w0", 2))).split()[-1])
    assert service.served() == service.checked() == "w0"
    are_new = []
    for number in range(KILLS):
        old, current, new = service.said(), service.checked(), f"w{number + 1}"
        place = 1 + number * (total - 1) // (KILLS - 1)
        output = killed(service, place, service.sent(Small(new, number + 3)))
        assert "Killed" in output or output.endswith("137"), (place, output)
        assert service.served() in (old, new), place
        assert service.checked() in (current, new), place
        are_new.append(service.checked() == new)
        if number % 6 == 5:  # what a kill left does not stand in the way; the way back leads to what has served
            old = service.said()
            assert service.install(Small(new, number + 3)).endswith("exit 0")
            assert service.said() == service.checked() == new
            assert service.unfinished() == ""
            assert old == new or service.type("rollback").endswith("exit 0")
            assert service.said() == service.checked() == old
    assert any(are_new)  # some kills come after the switch
    assert are_new.count(False) > KILLS / 2


def killed(service: Service, number: int, bundle: str) -> str:
    line = f"PYTHONPATH=~/code python3 ~/code/kill_at.py {number} ~/{ROOT} {service.name} ~/{bundle}; echo exit $?"
    return service.board.run(line).replace("exit 0", "").strip()


def test_a_board_serves_the_current_release_after_a_reboot(service: Service) -> None:
    assert service.install(Small("two", 2)).endswith("exit 0")
    service.board.reboot()
    assert service.served() == service.checked() == "two"


def test_wrong_bytes_and_signatures_leave_the_release_before(service: Service, tmp_path: Path) -> None:
    ours, foreign = make_key(tmp_path, "ours"), make_key(tmp_path, "foreign")
    service.board.run(f"cat >{ROOT}/allowed_signers", allow(ours).encode())
    try:
        signed = make_bundle(tmp_path / "signed", Small("two", 2), ours).read_bytes()
        place = signed.index(b"two\n")
        wrong = signed[:place] + b"owt\n" + signed[place + 4 :]
        other = make_bundle(tmp_path / "other", Small("three", 3), ours).read_bytes()
        refused = {
            "engine/word is damaged": wrong,
            "is not signed": make_bundle(tmp_path / "unsigned", Small("two", 2)).read_bytes(),
            "does not allow": make_bundle(tmp_path / "foreign-one", Small("two", 2), foreign).read_bytes(),
            "is not valid for this bundle": with_signature_of(other, signed),
            "truncated": signed[: len(signed) // 2],
        }
        for why, content in refused.items():
            said = service.type(f"install ~/{service.put(content)}").splitlines()
            assert (said[-1], len(said)) == ("exit 1", 3), said  # `room`, the error, the code
            assert why in said[-2]
            assert service.said() == service.checked() == "one"
        assert service.type(f"install ~/{service.put(signed)}").endswith("exit 0")
        assert service.said() == "two"
    finally:
        service.board.run(f"rm {ROOT}/allowed_signers")


def with_signature_of(other: bytes, bundle: bytes) -> bytes:
    """Return a bundle with another one's signature, which is as long."""
    begin, end = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
    theirs = other[other.index(begin) : other.index(end)]
    place = bundle.index(begin)
    return bundle[:place] + theirs + bundle[place + len(theirs) :]


def test_the_unit_is_one_that_systemd_reads_without_a_warning(systemd_board: SshdBoard) -> None:
    systemd_board.run(
        "mkdir -p verify && cat >verify/edgekd@x.service",
        TEMPLATE.read_bytes().replace(b"%h/.local/share/edgekd/%i/current/run", b"/bin/true"),
    )
    shown = systemd_board.run("XDG_RUNTIME_DIR=/run/user/1000 systemd-analyze verify --user verify/edgekd@x.service")
    assert shown == ""
