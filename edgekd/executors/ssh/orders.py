"""Orders for the supervisor of a job on a board, and the files that the job needs there."""

from __future__ import annotations

import getpass
import hashlib
import json
import platform
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgekd.board.files import sha256_of
from edgekd.board.job import JOB, Job, write_job
from edgekd.board.long_runs import longest_seconds
from edgekd.core import plugins
from edgekd.core.inventory import Board
from edgekd.executors import outcomes, portable
from edgekd.executors.base import Identity
from edgekd.executors.ssh.jobs import SUPERVISOR, Order
from edgekd.executors.ssh.probe import variables
from edgekd.targets.base import Toolchain

QUESTIONS = frozenset({"board_version", "choices", "facts", "version", "why_not_here"})  # tasks that only ask
OUT = "out"  # folder in a job's folder on the board


@dataclass(frozen=True)
class Prepared:
    """A job that is ready to be sent.

    order: for its supervisor.
    contents: SHA-256 -> local file that the job needs in the board's store.
    question: hash of a job that only asks the board about itself (`QUESTIONS`); "" for others.
    """

    order: Order
    contents: Mapping[str, Path]
    question: str


class Orders:
    """Makes the orders for one board.

    Args:
        board: its entry in the inventory.
        wait_s: longest wait while others use the board.
        log_bytes: largest log of a job.
        identity: returns the board's identity.
    """

    def __init__(self, board: Board, wait_s: float, log_bytes: int, identity: Callable[[], Identity]) -> None:
        self._board, self._wait_s, self._log_bytes, self._identity = board, wait_s, log_bytes, identity
        self._hashes: dict[tuple[str, int, int], str] = {}

    def prepare(self, job: Job, files: Mapping[str, Path], folder: Path) -> Prepared:
        """Return a job in the form that the board takes.

        Args:
            job: as in `Executor.run_job`.
            files: as in `Executor.run_job`.
            folder: folder of this machine, for files that are made here.
        """
        board = self._board
        module = plugins.load("targets", job.target).__name__ if job.target else ""
        placed = replace(job, module=module, files={name: f"in/{name}" for name in files}, out_dir=OUT)
        inputs = {f"in/{name}": path for name, path in files.items()}
        inputs |= {JOB: write_job(placed, folder), SUPERVISOR.name: SUPERVISOR}
        hashes = {name: self._hash(path) for name, path in inputs.items()}
        archive = portable.pack(folder / "code.tar", [plugins.load("targets", name) for name, _ in plugins.targets()])
        code = sha256_of(archive)
        content = [hashes, code, board.python, board.environment, user()]
        # The key of a job with files has the board's runtimes and power mode. A job without files asks about the present.
        present = asdict(self._identity()) if files else uuid.uuid4().hex
        order = Order(
            key=_hash_of([*content, present]),
            files=hashes,
            code=code,
            python=board.python,
            environment=(*variables(board), "PYTHONUNBUFFERED=1"),
            holder=f"{user()}: {title(job)}",
            wait_s=self._wait_s,
            timeout_s=outcomes.timeout_s(toolchain(job)) + longest_seconds(job.arguments),
            log_bytes=self._log_bytes,
        )
        contents = {**{hashes[name]: path for name, path in inputs.items()}, code: archive}
        return Prepared(order, contents, _hash_of(content) if job.task in QUESTIONS else "")

    def _hash(self, path: Path) -> str:
        """Return the hash of a file of this machine, computed again only when the file has changed."""
        state = path.stat()
        key = (str(path.absolute()), state.st_size, state.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = sha256_of(path)
        return self._hashes[key]


def user() -> str:
    """Return the user and machine that use a board from here."""
    return f"{getpass.getuser()}@{platform.node()}"


def title(job: Job) -> str:
    """Return the name of a job in messages."""
    return f"{job.target} {job.task}".strip()


def toolchain(job: Job) -> Toolchain:
    """Return the log patterns and the time-out of a job's target."""
    return (plugins.target(job.target).info.toolchain if job.target else None) or Toolchain()


def _hash_of(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
