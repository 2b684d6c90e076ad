"""Starts commands of Python by forking a process that has imported the frameworks, so that each need not import them again.

`python -m edgekd.study.preloaded MODULE...` is that process. It imports modules and trains nothing, so that no thread of a
framework, no CUDA context and no random state exists before the fork. Each command is a process of its own, with its own log,
signals and exit code, and goes on when this process or the study ends, like a child of the study.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, Protocol

# What a run imports, up to its score. One that is not installed is left to the run, which says so.
MODULES = ("edgekd.cli.main", "edgekd.train.stage", "edgekd.distill.stage", "edgekd.evaluate.stage", "timm")
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # those of the process group are for the commands
_MESSAGE_BYTES = 1 << 17


class Started(Protocol):
    """A process that was started; `subprocess.Popen` is one."""

    pid: int

    def wait(self) -> int:
        """Wait for the end and return the exit code, or minus the number of the signal that ended it."""

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""


def start(command: Sequence[str], log: BinaryIO, environment: Mapping[str, str]) -> Started:
    """Start a command as a child; both its streams go to the log."""
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


class Preloaded:
    """A process with the frameworks imported, from which commands are forked. It is started with the first command.

    Args:
        environment: environment variables of the imports, such as the number of OpenMP's threads.
        modules: what it imports; modules that are not installed are left out.
    """

    def __init__(self, environment: Mapping[str, str], modules: Sequence[str] = MODULES) -> None:
        self._environment, self._modules = dict(environment), modules
        self._socket: socket.socket | None = None

    def __enter__(self) -> Preloaded:
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None:
            self._socket.close()

    def start(self, command: Sequence[str], log: BinaryIO, environment: Mapping[str, str]) -> Started:
        """Start a command; one that is not `python -m MODULE ...`, or a system without Linux's processes, has no use of the imports.

        Call it from one thread at a time.
        """
        if list(command[:2]) != [sys.executable, "-m"] or not hasattr(os, "pidfd_open"):
            return start(command, log, environment)
        if self._socket is None:
            self._socket = self._open()
        unset = dict.fromkeys(self._environment.keys() - environment.keys())
        changed = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        message = json.dumps({"command": command[2:], "environment": {**unset, **changed}}).encode()
        answers, there = os.pipe()
        try:
            socket.send_fds(self._socket, [message], [log.fileno(), there])
        except OSError:  # it was killed
            os.close(answers)
            self._socket = None
            return start(command, log, environment)
        finally:
            os.close(there)
        return _Forked(answers)

    def _open(self) -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, "-m", "edgekd.study.preloaded", str(its.fileno()), *self._modules]
            subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self._environment, pass_fds=[its.fileno()])
        return ours


class _Forked:
    """A command that was forked; its pid and then its exit code come through a pipe."""

    def __init__(self, answers: int) -> None:
        self._answers = os.fdopen(answers, "rb", buffering=0)
        self._lock, self._is_told_to_stop = threading.Lock(), False
        self.pid, self._process = 0, -1  # until it is forked

    def wait(self) -> int:
        """See `Started`."""
        with self._answers, suppress(ValueError):  # no number: the process that forks was killed
            self._began(int(self._answers.readline()))
            return int(self._answers.readline())
        return -signal.SIGKILL

    def _began(self, pid: int) -> None:
        with self._lock, suppress(ProcessLookupError):  # it has ended already
            self.pid, self._process = pid, os.pidfd_open(pid)
        if self._is_told_to_stop:
            self.terminate()

    def terminate(self) -> None:
        """See `Started`."""
        with self._lock, suppress(ProcessLookupError):
            self._is_told_to_stop = True
            if self._process >= 0:
                signal.pidfd_send_signal(self._process, signal.SIGTERM)


def serve(requests: socket.socket, handlers: Mapping[signal.Signals, Any]) -> list[str] | None:
    """Fork a process for each request until the other side has gone.

    Args:
        requests: commands with the files for their log and their exit code.
        handlers: of signals, in the forked processes.

    Returns:
        the command, in a forked process; None in this one.
    """
    running: dict[int, int] = {}  # pid -> the pipe for its exit code
    ended_r, ended_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(ended_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as waiting:
        waiting.register(requests, selectors.EVENT_READ)
        waiting.register(ended_r, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in waiting.select()}
            if ended_r in ready:
                os.read(ended_r, 4096)
                _report(running)
            if requests not in ready:
                continue
            message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, 2)
            if not message:
                return None
            log, answers = fds
            signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)  # until the forked process ignores them no more
            if pid := os.fork():
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
                running[pid] = answers
                os.close(log)
                _answer(answers, pid)
                continue
            signal.set_wakeup_fd(-1)
            for one, handler in {**handlers, signal.SIGCHLD: signal.SIG_DFL}.items():
                signal.signal(one, handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
            for fd in (ended_r, ended_w, answers, *running.values()):
                os.close(fd)
            requests.close()
            return _become(json.loads(message), log)


def _report(running: dict[int, int]) -> None:
    """Send the exit codes of the processes that have ended."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            answers = running.pop(pid)
            _answer(answers, os.waitstatus_to_exitcode(status))
            os.close(answers)


def _answer(answers: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the study was killed
        os.write(answers, b"%d\n" % number)


def _become(request: dict[str, Any], log: int) -> list[str]:
    """Give this process the streams and the environment of a request; return its command."""
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    for name, value in request["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return list(request["command"])


def main() -> None:
    """Import the modules, then fork commands until the study has gone."""
    fd, *modules = sys.argv[1:]
    handlers = {one: signal.signal(one, signal.SIG_IGN) for one in _IGNORED}
    requests = socket.socket(fileno=int(fd))
    os.set_inheritable(requests.fileno(), False)
    for name in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    # Python 3.12 warns of any thread. Those that are here are of OpenBLAS, which ends them before a fork.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    command = serve(requests, handlers)
    if command is None:
        os._exit(0)  # nothing is open; at a regular exit triton's bindings list what they leaked
    module, *arguments = command
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # runpy warns of a module that is imported already
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
