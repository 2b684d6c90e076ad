"""A child process that writes frames into a pipe.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, BinaryIO, Callable, Deque, List, Match, Optional, Pattern, Sequence
from weakref import WeakSet

import numpy as np

from edgekd.errors import FrameError, one_line, shortened

if TYPE_CHECKING:
    from edgekd.runner.video import Place

_PIPE_BYTES = 1 << 20  # Linux's limit for everybody (/proc/sys/fs/pipe-max-size)
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, which Python's fcntl has since 3.10
_SECONDS_TO_END = 5.0


class Child:
    """A process whose frames are read from `out`, and whose last line of output is quoted in errors.

    Args:
        command: its arguments; `{pipe}` is replaced by the number of the frames' pipe, without one they come from stdout.
        place: where its frames come from.
        watch: of a process with a pipe: a pattern whose matches in the lines of its stdout are kept in `matches`.

    Raises:
        FrameError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], place: Place, watch: "Optional[Pattern[str]]" = None) -> None:
        self._place, self._watch = place, watch
        self._words: "Deque[str]" = deque(maxlen=20)
        self.matches: "List[Match[str]]" = []
        self._news, self._is_stopped = threading.Condition(), False
        reading, writing = os.pipe()
        has_pipe = any("{pipe}" in word for word in command)
        words = [word.replace("{pipe}", str(writing)) for word in command]
        with suppress(OSError, ImportError):
            import fcntl

            fcntl.fcntl(reading, _SET_PIPE_SIZE, _PIPE_BYTES)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if has_pipe else writing,
                stderr=subprocess.PIPE,
                pass_fds=(writing,) if has_pipe else (),
                start_new_session=True,  # Ctrl-C is ours: the child ends when we say so
            )
        except OSError as exc:
            os.close(reading)
            raise FrameError(f"{command[0]} cannot be run ({one_line(exc)})") from exc
        finally:
            os.close(writing)
        _RUNNING.add(self)
        self.out: BinaryIO = os.fdopen(reading, "rb", _PIPE_BYTES)
        self._listeners = [self._listen(self._process.stderr, self._words.append)]
        if has_pipe:
            self._listeners.append(self._listen(self._process.stdout, self._note))

    def _note(self, line: str) -> None:
        match = self._watch.search(line) if self._watch else None
        if match:
            self.matches.append(match)

    def _listen(self, stream: Optional[IO[bytes]], take: Callable[[str], None]) -> threading.Thread:
        assert stream is not None

        def listen() -> None:
            with stream:
                for line in iter(partial(stream.readline, 4096), b""):
                    with self._news:
                        take(line.decode("utf-8", "replace").strip())
                        self._news.notify_all()
            with self._news:
                self._news.notify_all()

        thread = threading.Thread(target=listen, daemon=True, name="edgekd-child")
        thread.start()
        return thread

    def wait_for_word(self) -> bool:
        """Wait until something is in `matches`; False when the process ended without it."""
        with self._news:
            while not self.matches and self._listeners[-1].is_alive():
                self._news.wait(0.1)
            return bool(self.matches)

    def check_end(self) -> None:
        """Wait for the end of the process; FrameError when it failed and was not stopped."""
        try:
            code = self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.stop()
            raise FrameError("it wrote no more frames and did not end") from None
        for listener in self._listeners:
            listener.join(_SECONDS_TO_END)
        if code and not self._is_stopped:
            address, name = self._place.address, self._place.name  # an address may hold a password
            errors = [
                word for word in self._words if re.search("(?i)error|failed|invalid|no such|cannot|could not", word)
            ]
            last = (errors or list(self._words) or [f"exit code {code}"])[0].replace(address, name)
            raise FrameError(shortened(last, 300))

    def stop(self) -> None:
        """Kill the process and wait for it."""
        self._is_stopped = True
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


_RUNNING: "WeakSet[Child]" = WeakSet()


def stop_children() -> None:
    """Kill what threads that were left behind have started."""
    for child in list(_RUNNING):
        child.stop()


def read_exactly(stream: BinaryIO, array: np.ndarray) -> bool:
    """Fill a C-contiguous array of bytes; whether the stream had enough of them."""
    return bool(stream.readinto(array.data.cast("B")) == array.nbytes)  # type: ignore[attr-defined]


def first_line(command: Sequence[str]) -> str:
    """Return the first line that a program prints; OSError when it cannot be run."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]
