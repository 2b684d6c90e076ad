"""Fixtures of test boards: real sshds on this machine, see loopback_board.sh and emulated_board.sh.

`make boards` builds what they need into the virtualenv's folder `.boards`. Where a machine cannot run them the tests are
skipped with the reason.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CACHE = Path(sys.prefix) / ".boards"
PYTHON_38 = CACHE / "python" / "bin" / "python"
AARCH64 = CACHE / "aarch64"
StartBoard = Callable[..., "SshdBoard"]


@dataclass(frozen=True)
class SshdBoard:
    """A board that is up, with its files in `folder`."""

    folder: Path
    host: str
    script: Path

    @property
    def ssh_config(self) -> Path:
        """The ssh configuration that names the board `host`."""
        return self.folder / "ssh_config"

    @property
    def home(self) -> Path:
        """The board's home as a folder of this machine; empty with `--disk`."""
        return self.folder / "home"

    def run(self, command: str, stdin: bytes = b"", check: bool = True) -> str:
        """Run a command on the board through ssh and return its output; with `check` a failure raises."""
        done = subprocess.run(
            ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", self.host, command],
            input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"exit code {done.returncode}: {output}"
        return output

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        self._do("cut")

    def freeze(self) -> None:
        """Silence all connections, old and new, until `thaw`."""
        self._do("freeze")

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._do("thaw")

    def reboot(self, seconds: float = 0) -> None:
        """Kill every process of the board, refuse connections for some seconds, and start it again."""
        self._do("reboot", str(seconds))

    def down(self) -> None:
        """Switch the board off: connections are refused."""
        self._do("down")

    def status(self) -> str:
        """Return the processes of the board, one a line."""
        return self._do("status")

    def _do(self, command: str, *arguments: str) -> str:
        return _script(self.script, self.folder, command, *arguments)


@pytest.fixture(scope="session")
def loopback_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdBoard]:
    """A board that all tests of a worker share: Python 3.8, numpy, ONNX Runtime. For faults take `start_board`."""
    yield from _board(tmp_path_factory.mktemp("board"), "--python", str(board_python()))


@pytest.fixture(scope="session")
def emulated_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdBoard]:
    """An emulated aarch64 board that all tests of a worker share; a worker's job takes seconds, nearly all of it imports."""
    if reason := why_no_emulation():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("emulated")
    yield from _board(folder, "--host", "emulated", "--rootfs", str(AARCH64), script=HERE / "emulated_board.sh")


@pytest.fixture
def start_board(tmp_path: Path) -> Iterator[StartBoard]:
    """A function that starts a loopback board of this test's own with options of loopback_board.sh.

    Called as `start_board("--disk", "40m", host="orin")`; the default Python is that of `loopback_board`.
    """
    running: list[Iterator[SshdBoard]] = []

    def start(*options: str, host: str = "board") -> SshdBoard:
        python = () if "--python" in options else ("--python", str(board_python()))
        running.append(_board(tmp_path / f"board-{host}", "--host", host, *python, *options))
        return next(running[-1])

    yield start
    for board in running:
        next(board, None)


@pytest.fixture(scope="session")
def systemd_board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdBoard]:
    """A loopback board with a user manager of systemd, which all tests of a worker share."""
    if reason := why_no_systemd():
        pytest.skip(reason)
    yield from _board(tmp_path_factory.mktemp("systemd"), "--systemd", "--python", str(board_python()))


@pytest.fixture
def ssh_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that makes the hosts of some boards known to every `ssh` that this process starts, as ~/.ssh/config would.

    OpenSSH reads the configuration in the home of the user database and not of $HOME; so an `ssh` that names one goes first
    on the PATH.
    """

    def know(*boards: SshdBoard) -> None:
        folder = tmp_path / "ssh"
        folder.mkdir(exist_ok=True)
        (folder / "config").write_text("".join(f'Include "{board.ssh_config}"\n' for board in boards))
        for tool in ("ssh", "scp", "sftp"):
            real = shutil.which(tool, path="/usr/bin:/bin:/usr/local/bin")
            (folder / tool).write_text(f'#!/bin/sh\nexec {real} -F "{folder / "config"}" "$@"\n')
            (folder / tool).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # with the boards' last answers

    return know


def board_python() -> Path:
    """Return the interpreter of the loopback boards: that of `make boards`, else the one that runs the tests."""
    return PYTHON_38 if PYTHON_38.exists() else Path(sys.executable)


@cache
def why_no_boards() -> str:
    """Return why this machine cannot run a test board, "" when it can."""
    if platform.system() != "Linux":
        return "test boards need Linux"
    path = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    absent = [tool for tool in ("sshd", "ssh", "ssh-keygen", "unshare", "ps") if shutil.which(tool, path=path) is None]
    if absent:
        return f"test boards need {', '.join(absent)}: apt-get install openssh-server openssh-client util-linux procps"
    # Without root the user ids of a board come from /etc/subuid.
    ids = [] if os.geteuid() == 0 else ["--map-auto"]
    tried = ["unshare", "--user", "--map-root-user", *ids, "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(tried, capture_output=True, text=True)
    return f"test boards need user namespaces: {done.stderr.strip()}" if done.returncode else ""


def why_no_systemd() -> str:
    """Return why this machine cannot run a user manager of systemd on a board, "" when it can."""
    if os.geteuid() != 0:
        return "a board with systemd needs root, for a control group of its own"
    absent = [
        tool for tool in ("/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/setpriv") if not Path(tool).exists()
    ]
    return f"a board with systemd needs {', '.join(absent)}: apt-get install systemd" if absent else ""


def why_no_emulation() -> str:
    """Return why this machine cannot run an emulated board, "" when it can."""
    if not AARCH64.is_dir():
        return f"no root file system of an aarch64 board at {AARCH64}: run `make boards`"
    kernel = [int(number) for number in re.findall(r"\d+", platform.release())[:2]]
    is_registered = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    if platform.machine() == "aarch64" or is_registered or kernel >= [6, 7]:
        return ""
    return (
        f"an emulated board needs Linux 6.7, or qemu-aarch64 registered with binfmt_misc; this is {platform.release()}"
    )


def _board(folder: Path, *options: str, script: Path = HERE / "loopback_board.sh") -> Iterator[SshdBoard]:
    """Start a board, yield it once, and remove it."""
    if reason := why_no_boards():
        pytest.skip(reason)
    _script(script, folder, "up", *options)
    host = options[options.index("--host") + 1] if "--host" in options else "board"
    yield SshdBoard(folder, host, script)
    _script(script, folder, "remove")


def _script(script: Path, folder: Path, *command: str) -> str:
    """Run a command of a board's script; its words are the failure's message."""
    done = subprocess.run(
        [str(script), str(folder), *command], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{script.name} {' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout
