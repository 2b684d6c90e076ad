"""A board over SSH as an executor: nothing is installed on it, and a job belongs to no connection."""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import platform
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.files import FULL_BYTES, sha256_of
from edgekd.board.job import JOB, RESULT, Job, Json, write_job
from edgekd.board.long_runs import longest_seconds
from edgekd.board.session import Session
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.core.inventory import Board
from edgekd.errors import ArtifactError, BoardAnswerError, BoardError, TargetError, ToolchainCrashError, WorkspaceError
from edgekd.executors import outcomes, portable
from edgekd.executors.base import Identity, Progress, no_progress
from edgekd.executors.board_state import prepare
from edgekd.executors.machine import Machine, facts_job, machine_of
from edgekd.executors.ssh.client import Client, Link
from edgekd.executors.ssh.greeting import greet
from edgekd.executors.ssh.jobs import SUPERVISOR, Jobs, Order, Status
from edgekd.executors.ssh.lock import Waiting
from edgekd.executors.ssh.probe import Probed, probe, variables
from edgekd.executors.ssh.results import Receiver, checked
from edgekd.executors.ssh.session import BoardSession
from edgekd.executors.ssh.store import Store, no_room
from edgekd.targets.base import Toolchain

_log = logging.getLogger(__name__)
_LOG, _OUT = "log", "out"  # in a job's folder on the board
_FIRST_SLICE_S = 1.0
_MOST_RESULT = 64 << 20  # bytes of result.json, which is read whole
_MOST_REBOOTS = 2  # during one job


@dataclass(frozen=True)
class Limits:
    """Limits of the work on a board.

    link: of the connection.
    wait_s: for others who use the board.
    slice_s: longest wait on the board in one call; the progress of a job is seen as often.
    log_bytes: what a job may print.
    result_bytes: what a job may write.
    """

    link: Link = field(default_factory=Link)
    wait_s: float = 3600.0
    slice_s: float = 30.0
    log_bytes: int = 32 << 20
    result_bytes: int = 8 << 30


@dataclass(frozen=True)
class _Place:
    """edgekd's folder on a board that was met, with what is in it."""

    folder: str
    store: Store
    jobs: Jobs


class SshBoard:
    """The executor of one board of the inventory.

    Args:
        board: its entry.
        limits: for tests and for links that are unusual.
    """

    def __init__(self, board: Board, limits: Limits = Limits()) -> None:
        self._board, self._limits = board, limits
        self._client = Client(board.name, board.ssh, limits.link)
        self._hashes: dict[tuple[str, int, int], str] = {}

    def run_job(
        self, job: Job, files: Mapping[str, Path], out_dir: Path, log: Path, progress: Progress = no_progress
    ) -> Json:
        """Do a job on the board under its lock, or collect what the same job of an earlier run left there.

        Raises:
            BoardError: out of reach, in use, rebooted twice, or the job was cancelled.
            TargetError: the board lacks what a job needs, the target refuses, or the job failed; see `outcomes.value_of`.
            BoardAnswerError: the board sends what the job did not write.
            WorkspaceError: a disk is full.
        """
        place = self._place
        with TemporaryDirectory(prefix="edgekd-board-") as folder:
            order, contents = self._order(job, files, Path(folder))
            waiting, reboots = Waiting(self._board.name, order.wait_s), 0
            while True:
                place.store.push(contents, waiting, progress)
                status = self._ended(order, waiting, progress)
                if status.state == "absent":  # the link was lost as it began, or another process has collected it
                    continue
                if status.state != "rebooted":
                    if status.why == "busy":
                        place.jobs.forget(order.key)
                        raise waiting.over(status.holder)
                    return self._collected(job, order, status, out_dir, log)
                place.jobs.forget(order.key)
                reboots += 1
                if reboots == _MOST_REBOOTS:
                    raise BoardError(
                        f"board {self._board.name}: rebooted {reboots} times during {_what(job)}; look at its power supply and "
                        "temperature"
                    )
                _log.warning("board %s rebooted during %s; doing it again", self._board.name, _what(job))

    def open_session(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Return a session whose every run is a job; ArtifactError when the artifact is no engine."""
        if artifact.kind != "engine":
            raise ArtifactError(f"{artifact.path}: a board runs artifacts of kind engine, got {artifact.kind}")
        return BoardSession(self, artifact)

    def identity(self) -> Identity:
        """Return the board that engines and latencies belong to, asked once."""
        return self._machine.identity

    def facts(self) -> Facts:
        """Return hardware, system, clocks and temperatures of the board, asked once."""
        return self._machine.facts

    def prepare(self) -> list[str]:
        """Wait until the board is quiet and return what disturbs a measurement even then; errors as `board_state.prepare`."""
        return prepare(self._board, self._ask_machine)

    def holder(self) -> str:
        """Return who holds the board for which job and since when, "" when nobody does."""
        return self._place.jobs.holder()

    def cancel(self) -> str:
        """End the job that holds the board and return whose it was, "" when there is none."""
        return self._place.jobs.cancel()

    def probe(self) -> Probed:
        """Return what the board says of itself, also one that edgekd cannot use; BoardError when it is out of reach."""
        return probe(self._client, self._board)

    def clean(self) -> None:
        """Delete all that edgekd has put on the board; BoardError while a job runs there."""
        Jobs(self._client, self._board.folder).clean()

    def close(self) -> None:
        """End the connection; jobs go on."""
        self._client.close()

    @cached_property
    def _place(self) -> _Place:
        folder = greet(self._client, self._board)
        size_bytes = int(self._board.store_gb * 1e9)
        return _Place(folder, Store(self._client, folder, size_bytes, self._limits.slice_s), Jobs(self._client, folder))

    @cached_property
    def _machine(self) -> Machine:
        return self._ask_machine()

    def _ask_machine(self) -> Machine:
        with TemporaryDirectory(prefix="edgekd-ask-") as folder:
            return machine_of(self.run_job(facts_job(), {}, Path(folder), Path(folder) / "log.txt"))

    def _order(self, job: Job, files: Mapping[str, Path], folder: Path) -> tuple[Order, dict[str, Path]]:
        """Return what a job's supervisor is told, and the files that the job needs in the store, by hash.

        Args:
            job: as in `run_job`.
            files: as in `run_job`.
            folder: of this machine, for files that are made here.
        """
        board, limits = self._board, self._limits
        module = plugins.load("targets", job.target).__name__ if job.target else ""
        placed = replace(job, module=module, files={name: f"in/{name}" for name in files}, out_dir=_OUT)
        inputs = {f"in/{name}": path for name, path in files.items()}
        inputs |= {JOB: write_job(placed, folder), SUPERVISOR.name: SUPERVISOR}
        hashes = {name: self._hash(path) for name, path in inputs.items()}
        modules = [plugins.load("targets", name) for name, _ in plugins.targets()]
        archive = portable.pack(folder / "code.tar", modules)
        code = sha256_of(archive)
        user = f"{getpass.getuser()}@{platform.node()}"
        # A job that reads files is that of the board's runtimes and power mode. One that reads none asks about the present.
        present = asdict(self.identity()) if files else uuid.uuid4().hex
        content = [hashes, code, board.python, board.environment, user, present]
        order = Order(
            key=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32],
            files=hashes,
            code=code,
            python=board.python,
            environment=_environment(board, f"{self._place.folder}/code/{code}"),
            holder=f"{user}: {_what(job)}",
            wait_s=limits.wait_s,
            timeout_s=outcomes.timeout_s(_toolchain(job)) + longest_seconds(job.arguments),
            log_bytes=limits.log_bytes,
        )
        return order, {**{hashes[name]: path for name, path in inputs.items()}, code: archive}

    def _hash(self, path: Path) -> str:
        """Return the hash of a file of this machine, computed again only when the file has changed."""
        state = path.stat()
        key = (str(path.absolute()), state.st_size, state.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = sha256_of(path)
        return self._hashes[key]

    def _ended(self, order: Order, waiting: Waiting, progress: Progress) -> Status:
        """Start a job or join it, wait for its end and return how it ended."""
        jobs, name, slice_s = self._place.jobs, self._board.name, _FIRST_SLICE_S
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
                "board %s: its job goes on; run the command again to collect it, or: edgekd board cancel %s", name, name
            )
            raise
        return status

    def _collected(self, job: Job, order: Order, status: Status, out_dir: Path, log: Path) -> Json:
        """Bring what an ended job left here, remove it there, and return the value of its result."""
        jobs = self._place.jobs
        with TemporaryDirectory(prefix="edgekd-result-") as folder:
            result = Path(folder) / RESULT
            try:
                if status.state == "ended" and status.why != "cancelled":
                    self._pull(order, status, {RESULT: result, _LOG: log}, out_dir)
            except ArtifactError:
                jobs.forget(order.key)  # else the next run would refuse it again
                raise
            jobs.forget(order.key)
            return self._value(job, order, status, result, log)

    def _value(self, job: Job, order: Order, status: Status, result: Path, log: Path) -> Json:
        """Return the value of a job's result, or raise why there is none."""
        name, what = self._board.name, f"board {self._board.name}: {_what(job)}"
        if status.why == "cancelled":
            raise BoardError(f"{what} was ended by `edgekd board cancel {name}`")
        if status.state == "died":
            raise ToolchainCrashError(f"{what}: its supervisor was killed on the board (often: out of memory)")
        try:
            if status.why == "timeout":
                raise outcomes.timed_out(order.timeout_s, log, what)
            if status.why == "flooded":
                raise outcomes.flooded(order.log_bytes, log, what)
            code = status.code if status.code < 128 else 128 - status.code  # the shell's 128 + signal
            return outcomes.value_of(result, code, log, _toolchain(job), what)
        except (TargetError, WorkspaceError) as exc:
            if isinstance(exc, WorkspaceError) or status.free_bytes < FULL_BYTES:  # whatever else it looks like
                raise no_room(name, self._place.folder, status.free_bytes, None, str(exc)) from exc
            raise

    def _pull(self, order: Order, status: Status, places: Mapping[str, Path], out_dir: Path) -> None:
        """Bring the files of a job here, whole and checked."""
        listed = dict(status.files)
        try:
            if listed.pop(JOB, ("", 0))[0] != order.files[JOB]:
                raise ArtifactError("this is what another job wrote")
            most_of = {RESULT: _MOST_RESULT, _LOG: order.log_bytes}
            files = checked(listed, places, out_dir, self._limits.result_bytes, most_of)
            receiver, names = Receiver(files), [one.name for one in files]
            self._client.insist(lambda: self._place.jobs.send(order.key, names, receiver.offset, receiver.write))
            receiver.close()
        except ArtifactError as exc:
            raise BoardAnswerError(
                f"board {self._board.name}: {exc}; its result is not used; run the command again"
            ) from exc
        except OSError as exc:
            raise WorkspaceError(f"{out_dir}: {exc.strerror or exc}; make room and run the command again") from exc


def _what(job: Job) -> str:
    """Return the name of a job in messages."""
    return f"{job.target} {job.task}".strip()


def _toolchain(job: Job) -> Toolchain:
    """Return the log patterns and the time-out of a job's target."""
    return (plugins.target(job.target).info.toolchain if job.target else None) or Toolchain()


def _environment(board: Board, code: str) -> tuple[str, ...]:
    """Return `NAME=VALUE` for a job that finds edgekd's code in a folder of the board."""
    paths = [code, board.environment.get("PYTHONPATH", "")]
    return (*variables(board), f"PYTHONPATH={':'.join(filter(None, paths))}", "PYTHONUNBUFFERED=1")
