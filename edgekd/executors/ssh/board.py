"""A board over SSH as an executor: nothing is installed on it, and a job belongs to no connection."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.files import FULL_BYTES
from edgekd.board.job import JOB, RESULT, Job, Json, Progress
from edgekd.board.session import Session
from edgekd.board.sysinfo import Facts
from edgekd.core.artifact import Artifact
from edgekd.core.inventory import Board
from edgekd.errors import ArtifactError, BoardAnswerError, BoardError, TargetError, ToolchainCrashError, WorkspaceError
from edgekd.executors import outcomes
from edgekd.executors.base import Identity, no_progress
from edgekd.executors.board_state import confirm, prepare
from edgekd.executors.machine import Machine, facts_job, machine_of
from edgekd.executors.ssh.client import Client, Link, ScriptError
from edgekd.executors.ssh.greeting import greet
from edgekd.executors.ssh.jobs import Jobs, Order, Status
from edgekd.executors.ssh.lock import Waiting
from edgekd.executors.ssh.orders import Orders, Prepared, title, toolchain, user
from edgekd.executors.ssh.probe import Probed, probe
from edgekd.executors.ssh.questions import Questions
from edgekd.executors.ssh.results import Receiver, checked
from edgekd.executors.ssh.session import BoardSession
from edgekd.executors.ssh.store import Store, no_room

_log = logging.getLogger(__name__)
_LOG = "log"  # in a job's folder on the board
_FIRST_SLICE_S = 1.0
_MOST_RESULT = 64 << 20  # bytes of result.json, which is read whole
_MOST_REBOOTS = 2  # during one job


@dataclass(frozen=True)
class Limits:
    """Limits of the work on a board.

    link: limits of the connection.
    wait_s: longest wait while others use the board.
    slice_s: longest wait on the board in one call, and so the period of progress reports.
    log_bytes: largest log of a job.
    result_bytes: largest result of a job.
    """

    link: Link = field(default_factory=Link)
    wait_s: float = 3600.0
    slice_s: float = 30.0
    log_bytes: int = 32 << 20
    result_bytes: int = 8 << 30


@dataclass(frozen=True)
class _RemoteFolder:
    """edgekd's folder on a board, and the last answers of that board."""

    path: str
    store: Store
    jobs: Jobs
    questions: Questions


class SshBoard:
    """The executor of one board of the inventory.

    Args:
        board: its entry.
        limits: for tests and for links that are unusual.
    """

    def __init__(self, board: Board, limits: Limits = Limits()) -> None:
        self._board, self._limits = board, limits
        self._client = Client(board.name, board.ssh, limits.link)
        self._orders = Orders(board, limits.wait_s, limits.log_bytes, self.identity)
        self._known: Machine | None = None

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job on the board under its lock, or collect the result of the same job from an earlier run.

        Raises:
            BoardError: out of reach, in use, rebooted twice, or the job was cancelled.
            TargetError: the board lacks a requirement, the target refuses, or the job failed; see `outcomes.value_of`.
            BoardAnswerError: the board sends files that the job did not write.
            WorkspaceError: a disk is full.
        """
        with TemporaryDirectory(prefix="edgekd-board-") as folder:
            prepared = self._orders.prepare(job, files, Path(folder))
            value = self._answer_during_own_job(prepared.question)
            if value is None:
                value = self._done(job, prepared, out_dir, log, progress)
                if prepared.question:
                    self._remote.questions.keep(prepared.question, value)
            return value

    def open_session(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Return a session whose every run is a job; ArtifactError when the artifact is no engine."""
        if artifact.kind != "engine":
            raise ArtifactError(f"{artifact.path}: a board runs artifacts of kind engine, got {artifact.kind}")
        return BoardSession(self, artifact)

    def identity(self) -> Identity:
        """Return the board that engines and latencies belong to, asked once."""
        return self._machine().identity

    def facts(self) -> Facts:
        """Return hardware, system, clocks and temperatures of the board, asked once."""
        return self._machine().facts

    def prepare(self) -> None:
        """Wait until the board is quiet, but not for a job of this user; errors as `board_state.prepare`."""
        if not self._has_own_job():
            prepare(self._board, self._ask_machine)

    def confirm(self, state: object) -> list[str]:
        """Return the disturbances of a measurement from the state that its job reports; errors as `board_state.confirm`."""
        return confirm(self._board, self._machine(), self._ask_machine(), state)

    def holder(self) -> str:
        """Return the user, job and start time of the job that holds the board, "" if it is free."""
        return self._remote.jobs.holder()

    def cancel(self) -> str:
        """End the job that holds the board and return its owner, "" if the board is free."""
        return self._remote.jobs.cancel()

    def probe(self) -> Probed:
        """Return the board's probe, also for a board that edgekd cannot use; BoardError if it cannot be reached."""
        return probe(self._client, self._board)

    def clean(self) -> None:
        """Delete edgekd's files on the board; BoardError while a job runs there."""
        Jobs(self._client, self._board.folder).clean()

    def close(self) -> None:
        """End the connection; jobs go on."""
        self._client.close()

    @cached_property
    def _remote(self) -> _RemoteFolder:
        probed = greet(self._client, self._board)
        path, size_bytes = probed.folder, int(self._board.store_gb * 1e9)
        store = Store(self._client, path, size_bytes, self._limits.slice_s)
        return _RemoteFolder(path, store, Jobs(self._client, path), Questions(self._board.ssh, probed.boot))

    def _machine(self) -> Machine:
        return self._known or self._ask_machine()

    def _ask_machine(self) -> Machine:
        """Ask the board for its machine as it is now, and remember it."""
        with TemporaryDirectory(prefix="edgekd-ask-") as folder:
            self._known = machine_of(self.run_job(facts_job(), {}, Path(folder), Path(folder) / "log.txt"))
        return self._known

    def _has_own_job(self) -> bool:
        return self._remote.jobs.holder().startswith(f"{user()}: ")

    def _answer_during_own_job(self, question: str) -> Json | None:
        """Return the last answer to a question while a job of this user runs on the board; None at other times."""
        value = self._remote.questions.answer(question) if question else None
        return value if value is not None and self._has_own_job() else None

    def _done(self, job: Job, prepared: Prepared, out_dir: Path, log: Path, progress: Progress) -> Json:
        """Do a job or join it, again where the board reboots, and return the value of its result."""
        remote, order, reboots = self._remote, prepared.order, 0
        waiting = Waiting(self._board.name, order.wait_s)
        while True:
            remote.store.push(prepared.contents, waiting, progress)
            status = self._ended(order, waiting, progress)
            if status.state == "absent":  # the link was lost as it began, or another process has collected it
                continue
            if status.why == "busy":
                remote.jobs.forget(order.key)
                raise waiting.over(status.holder)
            if status.state != "rebooted":
                if (value := self._collected(job, order, status, out_dir, log)) is not None:
                    return value
                continue
            remote.jobs.forget(order.key)
            reboots += 1
            if reboots == _MOST_REBOOTS:
                raise BoardError(
                    f"board {self._board.name}: rebooted {reboots} times during {title(job)}; look at its power supply and "
                    "temperature"
                )
            _log.warning("board %s rebooted during %s; doing it again", self._board.name, title(job))

    def _ended(self, order: Order, waiting: Waiting, progress: Progress) -> Status:
        """Start a job or join it, wait for its end and return how it ended."""
        jobs, name, slice_s = self._remote.jobs, self._board.name, _FIRST_SLICE_S
        try:
            status = jobs.start(order, slice_s)
            while status.state in ("waiting", "running"):
                if status.state == "waiting":
                    waiting.say(status.holder)
                if status.progress is not None:
                    progress(*status.progress)
                slice_s = min(2 * slice_s, self._limits.slice_s)
                status = jobs.wait(order.key, slice_s)
        except KeyboardInterrupt:
            _log.warning(
                "board %s: its job goes on; run the command again to collect the result, or: edgekd board cancel %s",
                name,
                name,
            )
            raise
        return status

    def _collected(self, job: Job, order: Order, status: Status, out_dir: Path, log: Path) -> Json | None:
        """Bring the files of an ended job here, remove it there, and return the value of its result.

        None when another process, which runs the same job, has collected it meanwhile.
        """
        jobs = self._remote.jobs
        with TemporaryDirectory(prefix="edgekd-result-") as folder:
            result = Path(folder) / RESULT
            try:
                if status.state == "ended" and status.why != "cancelled":
                    self._pull(order, status, {RESULT: result, _LOG: log}, out_dir)
            except ArtifactError:
                jobs.forget(order.key)  # else the next run would refuse it again
                raise
            except BoardError as exc:
                if isinstance(exc.__cause__, ScriptError) and jobs.wait(order.key, 0).state == "absent":
                    return None
                raise
            jobs.forget(order.key)
            return self._value(job, order, status, result, log)

    def _value(self, job: Job, order: Order, status: Status, result: Path, log: Path) -> Json:
        """Return the value of a job's result, or raise why there is none."""
        name, what = self._board.name, f"board {self._board.name}: {title(job)}"
        if status.why == "cancelled":
            raise BoardError(f"{what} was ended by `edgekd board cancel {name}`; run the command again")
        try:
            if status.state == "died":
                raise ToolchainCrashError(f"{what}: its supervisor was killed on the board (often: out of memory)")
            if status.why == "timeout":
                raise outcomes.timed_out(order.timeout_s, log, what)
            if status.why == "flooded":
                raise outcomes.flooded(order.log_bytes, log, what)
            code = status.code if status.code < 128 else 128 - status.code  # the shell's 128 + signal
            return outcomes.value_of(result, code, log, toolchain(job), what)
        except (TargetError, WorkspaceError) as exc:
            if isinstance(exc, WorkspaceError) or status.free_bytes < FULL_BYTES:  # a full disk has many symptoms
                raise no_room(name, self._remote.path, status.free_bytes, None, str(exc)) from exc
            raise

    def _pull(self, order: Order, status: Status, places: Mapping[str, Path], out_dir: Path) -> None:
        """Bring the files of a job here, whole and checked."""
        listed = dict(status.files)
        try:
            if listed.pop(JOB, ("", 0))[0] != order.files[JOB]:
                raise ArtifactError("the files are of another job")
            most_of = {RESULT: _MOST_RESULT, _LOG: order.log_bytes}
            files = checked(listed, places, out_dir, self._limits.result_bytes, most_of)
            receiver, names = Receiver(files), [one.name for one in files]
            self._client.insist(lambda: self._remote.jobs.send(order.key, names, receiver.offset, receiver.write))
            receiver.close()
        except ArtifactError as exc:
            raise BoardAnswerError(
                f"board {self._board.name}: {exc}; its result is not used; run the command again"
            ) from exc
        except OSError as exc:
            raise WorkspaceError(f"{out_dir}: {exc.strerror or exc}; make room and run the command again") from exc
