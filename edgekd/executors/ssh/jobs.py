"""Jobs on a board: each starts once, runs without a connection, and is waited for on the board."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from edgekd.errors import BoardAnswerError
from edgekd.executors.logs import printable
from edgekd.executors.ssh.client import Client, Sink

_SCRIPT = Path(__file__).with_name("jobs.sh").read_text()
SUPERVISOR = Path(__file__).with_name("supervisor.sh")
# Seconds in which a script of jobs.sh may work without a word.
_LAY_OUT_S = 240.0  # copies the files of a job where the file system has no hard links
_SKIP_S = 240.0  # reads over what came before a lost link
_CANCEL_S = 30.0
_CLEAN_S = 240.0
State = Literal["absent", "waiting", "running", "ended", "died", "rebooted"]


@dataclass(frozen=True)
class Order:
    """A job's order for its supervisor on the board.

    key: name of the job's folder: the hash of what the job does.
    files: name in the job's folder -> name in the store.
    code: name in the store of the archive of edgekd's portable part.
    python: the interpreter.
    environment: environment of the job, `NAME=VALUE`.
    holder: user and job, shown to others who wait for the board.
    wait_s: for the board's lock. timeout_s: for the job. log_bytes: of its log.
    """

    key: str
    files: Mapping[str, str]
    code: str
    python: str
    environment: tuple[str, ...]
    holder: str
    wait_s: float
    timeout_s: float
    log_bytes: int


@dataclass(frozen=True)
class Status:
    """State of a job.

    state: `waiting` for the lock, which `holder` has; `died` with its supervisor; `rebooted` together with the board.
    progress: progress that a running job reports: step and fraction done.
    why: reason of its end: "" (finished), `timeout`, `flooded`, `cancelled`, `busy`.
    code: exit code of an ended job, more than 128: the signal.
    free_bytes: free bytes of the board's disk when it ended or died.
    files: path -> (SHA-256, bytes) of its output files, unchecked.
    """

    state: State
    holder: str = ""
    progress: tuple[str, float] | None = None
    why: str = ""
    code: int = 0
    free_bytes: int = 0
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)


class Jobs:
    """The jobs in edgekd's folder on a board."""

    def __init__(self, client: Client, folder: str) -> None:
        self._client, self._folder = client, folder

    def start(self, order: Order, slice_s: float) -> Status:
        """Start a job, unless one of its key is there from the last day, and wait for it at most `slice_s`."""
        files = "".join(f"{hashed} {name}\n" for name, hashed in order.files.items()) + "end\n"
        limits = f"{order.wait_s:g}", f"{order.timeout_s:g}", order.log_bytes
        words = order.key, f"{slice_s:g}", order.code, *limits, order.holder, order.python, *order.environment
        return _status(self._call("start", *words, stdin=files.encode(), work_s=slice_s + _LAY_OUT_S))

    def wait(self, key: str, slice_s: float) -> Status:
        """Wait for the end of a job, at most `slice_s`."""
        return _status(self._call("wait_for", key, f"{slice_s:g}", work_s=slice_s))

    def send(self, key: str, names: list[str], offset: int, sink: Sink) -> None:
        """Give `sink` the content of files one after another, from a byte on; errors as `Client.call`."""
        self._client.call(
            _SCRIPT + 'send "$@"', self._folder, key, offset,
            stdin="".join(f"{name}\n" for name in names).encode(), sink=sink, work_s=_SKIP_S,
        )  # fmt: skip

    def forget(self, key: str) -> None:
        """Remove a job's folder from the board."""
        self._call("forget", key)

    def holder(self) -> str:
        """Return the user and job that hold the board, "" if it is free."""
        return _status(self._call("held_by")).holder

    def cancel(self) -> str:
        """End the job that holds the board and return its owner, "" if the board is free."""
        return _status(self._call("cancel", work_s=_CANCEL_S)).holder

    def clean(self) -> None:
        """Remove edgekd's files from the board; BoardError while somebody holds it."""
        self._call("clean", work_s=_CLEAN_S)

    def _call(self, command: str, *arguments: object, stdin: bytes | None = None, work_s: float = 0) -> str:
        script = _SCRIPT + f'{command} "$@"'
        return self._client.insist(
            lambda: self._client.call(script, self._folder, *arguments, stdin=stdin, work_s=work_s)
        )


def _status(text: str) -> Status:
    """Return the status that a script printed; BoardAnswerError for any other text."""
    facts: dict[str, str] = {}
    hashes: dict[str, str] = {}
    sizes: dict[str, int] = {}
    try:
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            if word == "file":
                hashes[value[66:]] = value[:64]
            elif word == "size":
                size, _, name = value.partition(" ")
                sizes[name] = int(size)
            else:
                facts[word] = printable(value)
        state = facts.get("state", "absent")
        if (
            state not in get_args(State)
            or hashes.keys() != sizes.keys()
            or (state == "ended" and "complete" not in facts)
        ):
            raise ValueError
        return Status(
            state=cast(State, state),
            holder=facts.get("holder", ""),
            progress=_progress(facts.get("progress", "")),
            why=facts.get("why", ""),
            code=int(facts.get("code", 0)),
            free_bytes=int(facts.get("free", 0)),
            files={name: (hashes[name], sizes[name]) for name in sizes},
        )
    except ValueError as exc:
        raise BoardAnswerError(f"unexpected job status: {text[:200]!r}; expected a state and output files") from exc


def _progress(text: str) -> tuple[str, float] | None:
    """Return the progress that a job reports, None without one or for an invalid one."""
    try:
        what, fraction = json.loads(text)
        done = float(fraction)
    except (ValueError, TypeError, RecursionError, OverflowError):  # deep JSON, an integer of 400 digits
        return None
    return (printable(str(what))[:80], done) if 0 <= done <= 1 else None
