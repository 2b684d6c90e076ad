"""Runs scripts on a board through the system's OpenSSH client, over one connection that all calls share.

It is the user's `ssh`, so the user's configuration, agent, jump hosts and host keys apply. Exit code 255 is ssh's own: the
call may or may not have happened, so every script can be repeated.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import IO, TypeVar

from edgekd.errors import BoardDiskError, BoardError
from edgekd.executors.logs import printable
from edgekd.executors.ssh.watchdog import Watchdog

log = logging.getLogger(__name__)
Sink = Callable[[bytes], None]
T = TypeVar("T")
_CHUNK = 1 << 18
_MOST_OUTPUT = 32 << 20  # of a script
_MARK = "edgekd-begins"  # first line of a script's output; a login shell may print lines before it
_HEAD = Path(__file__).with_name("board.sh")
_SSH_FAILED = 255
NO_SPACE = "No space left on device"
_PERSIST_S = 120  # a connection that nobody closes ends by itself
_CLOSE_S = 10  # for the end of a connection
_LONGEST_FOLDER = (
    60  # macOS takes 104 bytes for a socket's path; the folder's name, the socket's and ssh's suffix are 33
)
# Pattern of ssh's message -> why retrying cannot help, and what to do.
_REFUSALS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "its host key has changed; if that is right, remove the old key as ssh says; "
    "try: ssh {to}",
    "Host key verification failed": "its host key is unknown; check it and accept it once: ssh {to}",
    "Permission denied": "it refuses your key; install it: ssh-copy-id {to}",
    "bad configuration option": "your ssh configuration has an error; try: ssh {to}",
}


@dataclass(frozen=True)
class Link:
    """Limits of a connection.

    connect_s: time-out of one attempt to connect.
    alive_s, alive_count: a connection that is silent for `alive_s` seconds `alive_count` times is given up.
    answer_s: time-out of a script without progress on a live connection, added to its working time.
    retry_s: pause before the next attempt, once there was contact.
    give_up_s: time without contact after a failed call until this side gives up.
    is_shared: whether one connection serves all calls; Windows' OpenSSH cannot do that.
    """

    connect_s: int = 10
    alive_s: int = 5
    alive_count: int = 3
    answer_s: float = 60.0
    retry_s: float = 2.0
    give_up_s: float = 300.0
    is_shared: bool = os.name != "nt"


class _Failed(Exception):
    """A call failed; `stderr` is all of its stderr, the text the last line of it."""

    def __init__(self, stderr: str, code: int) -> None:
        super().__init__(
            _last_line(stderr) or ("the connection was closed" if code == _SSH_FAILED else f"exit code {code}")
        )
        self.stderr = stderr


class LinkLost(_Failed):
    """The connection failed: the script ran, or not, or in part."""


class NoAnswer(LinkLost):
    """The script made no progress for too long on a connection that is alive or being made."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:.0f} s; its disk or its system may hang", _SSH_FAILED)


class ScriptError(_Failed):
    """The script failed on the board."""


class Client:
    """The connection to one board.

    Args:
        name: name of the board, in messages.
        destination: a Host of the user's ssh configuration, or user@host.
        link: limits.
    """

    def __init__(self, name: str, destination: str, link: Link) -> None:
        self.name, self.link = name, link
        self._destination = destination
        self._socket = Path()
        self._end_connection: Callable[[], object] | None = None
        self._was_met = False
        self._lost_at: float | None = None  # monotonic time of the first call that failed since the last contact

    def call(
        self,
        script: str,
        *arguments: object,
        stdin: IO[bytes] | bytes | None = None,
        sink: Sink | None = None,
        work_s: float = 0,
    ) -> str:
        """Run a script in edgekd's folder on the board, the first argument, once; see `run`."""
        return self.run(_HEAD.read_text() + script, *arguments, stdin=stdin, sink=sink, work_s=work_s)

    def run(
        self,
        script: str,
        *arguments: object,
        stdin: IO[bytes] | bytes | None = None,
        sink: Sink | None = None,
        work_s: float = 0,
    ) -> str:
        """Run a script once and return its output; with `sink` that gets the output instead.

        Args:
            script: shell script.
            arguments: arguments of the script.
            stdin: stdin of the script: bytes, or a file from its position on.
            sink: called with the output, piece by piece.
            work_s: longest silent working time of the script; `Link.answer_s` is added.

        Raises:
            LinkLost: the connection failed.
            NoAnswer: a LinkLost; the script neither took nor gave a byte for too long.
            ScriptError: the script's exit code is not 0.
        """
        command = shlex.join(["sh", "-c", f"echo {_MARK}\n{script}", "edgekd", *map(str, arguments)])
        output: list[bytes] = []
        idle_s = self.link.answer_s + work_s
        with tempfile.TemporaryFile() as stderr, _as_file(stdin) as file:
            process = self._start(command, file, stderr)
            assert process.stdout is not None  # a pipe
            try:
                with Watchdog(process, file, idle_s) as watchdog:
                    for chunk in self._after_mark(process.stdout, watchdog, is_bounded=sink is None):
                        (sink or output.append)(chunk)
                    code = process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            stderr.seek(0)
            message = stderr.read().decode(errors="replace")
        if watchdog.has_killed and code < 0:
            raise NoAnswer(idle_s)
        if code == _SSH_FAILED or code < 0:
            raise LinkLost(message, code)
        self._was_met, self._lost_at = True, None
        if code:
            raise ScriptError(message, code)
        return b"".join(output).decode(errors="replace")

    def _start(self, command: str, stdin: IO[bytes] | None, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start ssh with a command of the board."""
        words = ["ssh", *self._options(), "--", self._destination, command]
        given = subprocess.DEVNULL if stdin is None else stdin
        try:
            return subprocess.Popen(words, stdin=given, stdout=subprocess.PIPE, stderr=stderr)
        except FileNotFoundError as exc:
            raise BoardError("ssh is not installed here; install OpenSSH's client (openssh-client)") from exc

    def _after_mark(self, stream: IO[bytes], watchdog: Watchdog, is_bounded: bool) -> Iterator[bytes]:
        """Yield a script's output, without the login's output before it; BoardError when that is too much."""
        login, is_script, size = b"", False, 0
        while chunk := stream.read1(_CHUNK):  # type: ignore[attr-defined]  # a BufferedReader
            watchdog.add_output(len(chunk))
            size += len(chunk)
            if size > _MOST_OUTPUT and (is_bounded or not is_script):
                raise BoardError(f"board {self.name}: expected a few lines, got more than {_MOST_OUTPUT >> 20} MiB")
            if not is_script:
                login, mark, chunk = (login + chunk).partition(f"{_MARK}\n".encode())
                is_script = bool(mark)
            if is_script:
                yield chunk

    def insist(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt until the connection holds.

        Raises:
            BoardError: the board was never reached, refuses this host, or was out of reach for `give_up_s`; or a script failed.
            BoardDiskError: the board's disk is full.
        """
        while True:
            try:
                return attempt()
            except ScriptError as exc:
                if NO_SPACE in exc.stderr:
                    raise BoardDiskError(f"board {self.name}: its disk is full ({exc}); make room there") from exc
                raise BoardError(f"board {self.name}: {exc}") from exc
            except LinkLost as exc:
                self._give_up(exc)
                time.sleep(self.link.retry_s)

    def _give_up(self, exc: LinkLost) -> None:
        """Raise BoardError unless another attempt may succeed."""
        to, seconds = self._destination, self.link.give_up_s
        for pattern, advice in _REFUSALS.items():
            if pattern.lower() in exc.stderr.lower():
                raise BoardError(f"board {self.name}: {advice.format(to=to)} ({exc})") from exc
        if isinstance(exc, NoAnswer) and not self._was_met:
            raise BoardError(f"board {self.name}: {exc}; try: ssh {to} df") from exc
        if not self._was_met:
            raise BoardError(f"board {self.name}: unreachable ({exc}); is it on? try: ssh {to}") from exc
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warning("board %s: no contact (%s); trying again for %g s", self.name, exc, seconds)
        if time.monotonic() - self._lost_at > seconds:
            raise BoardError(
                f"board {self.name}: no contact for {seconds:g} s ({exc}); its job continues; run the command again "
                "to collect it"
            ) from exc

    def close(self) -> None:
        """End the shared connection; the next call makes another one."""
        if self._end_connection is not None:
            self._end_connection()
            self._end_connection = None

    def _options(self) -> list[str]:
        link = self.link
        words = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={link.connect_s}"]
        words += ["-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes", "-a", "-x"]  # a person's, for a terminal
        words += ["-o", f"ServerAliveInterval={link.alive_s}", "-o", f"ServerAliveCountMax={link.alive_count}"]
        if not link.is_shared:
            return [*words, "-o", "ControlMaster=no", "-o", "ControlPath=none"]
        if self._end_connection is None:
            self._socket = _private_folder() / "s"
            self._end_connection = weakref.finalize(self, _end_connection, self._socket, self._destination)
        path = str(self._socket).replace("%", "%%")
        return [*words, "-o", "ControlMaster=auto", "-o", f"ControlPath={path}", "-o", f"ControlPersist={_PERSIST_S}"]


def _private_folder() -> Path:
    """Return a new folder of this user alone, whose path is short enough for a socket."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if place and len(place) < _LONGEST_FOLDER and os.access(place, os.W_OK):
            return Path(tempfile.mkdtemp(prefix="edgekd-", dir=place))
    raise BoardError("ssh needs a folder for its socket: expected XDG_RUNTIME_DIR or /tmp to be writable")


def _end_connection(socket: Path, destination: str) -> None:
    command = ["ssh", "-o", f"ControlPath={str(socket).replace('%', '%%')}", "-O", "exit", "--", destination]
    with suppress(OSError, subprocess.TimeoutExpired):  # a connection that nobody ends does so after `_PERSIST_S`
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CLOSE_S)
    rmtree(socket.parent, ignore_errors=True)


@contextmanager
def _as_file(content: IO[bytes] | bytes | None) -> Iterator[IO[bytes] | None]:
    """Yield a file for a process's stdin: a file at its position, bytes as a file, or nothing."""
    if isinstance(content, bytes):
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            yield file
    else:
        yield content


def _last_line(text: str) -> str:
    lines = [line for line in map(printable, text.splitlines()) if line]
    return lines[-1] if lines else ""
