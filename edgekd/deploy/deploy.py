"""Brings a bundle to a board and makes it the current release of a name there; lists, rolls back and removes releases.

The installer is a job of the board (`edgekd.release.install`): a lost link does not stop it, and it runs under the board's lock,
so it disturbs no measurement. Its code is that of this edgekd, never the bundle's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from edgekd.board.arguments import InstallArguments, ReleasesArguments
from edgekd.board.files import cache_folder
from edgekd.board.job import Job, Json, Progress
from edgekd.bundle.verify import Verified
from edgekd.core.inventory import Board, load_inventory
from edgekd.errors import BoardAnswerError, BoardDiskError, BoardError, DeployError, EdgekdError, RecipeError, one_line
from edgekd.executors.base import no_progress
from edgekd.executors.ssh.board import Limits, SshBoard
from edgekd.release.install import CONTROL, Step
from edgekd.release.overview import NameRow, ReleaseRow

LIMITS = Limits(slice_s=4.0)  # a person watches
_ParsedT = TypeVar("_ParsedT")


@dataclass(frozen=True)
class Deployed:
    """Result of a deployment (JSON-ready): the steps, and the command to type next, "" if there is none."""

    steps: tuple[Step, ...]
    next_command: str


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a bundle is installed.

    may_be_older: take a lower version than the current one's.
    is_dry: do all checks on the board, and switch nothing.
    """

    may_be_older: bool = False
    is_dry: bool = False


def deploy(
    bundle: Verified,
    board_name: str,
    name: str | None = None,
    conditions: Conditions = Conditions(),
    progress: Progress = no_progress,
) -> Deployed:
    """Make a bundle the current release of a name on a board.

    Args:
        bundle: see `source.bundle_of`.
        board_name: in the inventory.
        name: name of the service; None: the manifest's.
        conditions: see there.
        progress: called with the name of a step that is done, and with `sending` and the fraction of bytes.

    Raises:
        RecipeError: the inventory has no such board, or forbids deploying to it.
        BoardError: the board cannot be reached.
        DeployError: the release did not become current; the previous one serves.
    """
    board = _board(board_name)
    with _executor(board) as executor:
        name, chip = name or bundle.manifest.name, executor.probe().chip
        arguments: InstallArguments = {
            "root": board.deploy.folder,
            "name": name,
            "bundle": "bundle",
            "chip": chip,
            "needs_signature": board.deploy.require_signature,
            "may_be_older": conditions.may_be_older,
            "is_dry": conditions.is_dry,
            "variables": board.environment,
            "health_s": board.deploy.health_s,
            "call": uuid.uuid4().hex,
        }
        with _refusals(board):
            value = _run(executor, Job("install", "", arguments), {"bundle": bundle.path}, progress)
        steps = _steps(board, value)
        return Deployed(steps, _next(board, name, steps))


def roll_back(board_name: str, name: str | None = None) -> tuple[Step, ...]:
    """Go back to the release before the current one and return the steps; errors as `deploy`."""
    board = _board(board_name)
    with _executor(board) as executor, _refusals(board):
        job = Job("roll_back", "", _one_name(executor, board, name))
        value = _run(executor, job, {}, no_progress)
        return _steps(board, value)


def remove(board_name: str, name: str | None = None) -> str:
    """Stop a service of a board, delete its releases, and return its name; errors as `deploy`."""
    board = _board(board_name)
    with _executor(board) as executor, _refusals(board):
        arguments = _one_name(executor, board, name)
        _run(executor, Job("remove_releases", "", arguments), {}, no_progress)
        return arguments["name"]


def releases(board_name: str, name: str | None = None) -> list[NameRow]:
    """Return the releases of a board, of all names or of one; errors as `deploy`."""
    board = _board(board_name)
    with _executor(board) as executor, _refusals(board):
        return _rows(executor, board, name or "")


def _rows(executor: SshBoard, board: Board, name: str) -> list[NameRow]:
    value = _run(executor, Job("releases", "", _arguments(board, name)), {}, no_progress)
    return _parsed(board, lambda: [_row(one) for one in value["names"]])


def _row(data: Json) -> NameRow:
    return NameRow(**{**data, "releases": tuple(ReleaseRow(**one) for one in data["releases"])})


def _one_name(executor: SshBoard, board: Board, name: str | None) -> ReleasesArguments:
    """Return the arguments for one name; without a name, the board's only one."""
    if name is None:
        known = [row.name for row in _rows(executor, board, "")]
        if len(known) != 1:
            raise DeployError(
                f"expected --name, one of: {', '.join(known)}" if known else "no release is deployed on this board"
            )
        (name,) = known
    return _arguments(board, name)


def _arguments(board: Board, name: str) -> ReleasesArguments:
    return {"root": board.deploy.folder, "name": name, "health_s": board.deploy.health_s}


def _next(board: Board, name: str, steps: tuple[Step, ...]) -> str:
    """Return the command that makes a service of a release which no unit runs."""
    done = [step.name for step in steps]
    if "switch" not in done or "health" in done:
        return ""
    return f"ssh {board.ssh} {board.deploy.folder}/{name}/{CONTROL} service --http 8080"


def _steps(board: Board, value: Json) -> tuple[Step, ...]:
    return _parsed(board, lambda: tuple(Step(**one) for one in value["steps"]))


def _run(executor: SshBoard, job: Job, files: dict[str, Path], progress: Progress) -> Json:
    log = (cache_folder() or Path.cwd()) / "deploy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="edgekd-deploy-") as folder:
        return executor.run_job(job, files, Path(folder), log, progress)


def _parsed(board: Board, parse: Callable[[], _ParsedT]) -> _ParsedT:
    try:
        return parse()
    except (KeyError, TypeError) as exc:
        raise BoardAnswerError(
            f"board {board.name}: cannot read the installer's answer ({exc!r}); run the command again"
        ) from exc


def _board(name: str) -> Board:
    board = load_inventory().board(name)
    if not board.deploy.allowed:
        raise RecipeError(f"board {name}: the inventory says `deploy: false`; change it there to deploy to this board")
    return board


@contextmanager
def _refusals(board: Board) -> Iterator[None]:
    """Turn a refusal into a DeployError: exit code 1, the release before serves. A board that is lost or in use is none."""
    try:
        yield
    except EdgekdError as exc:
        if isinstance(exc, BoardError) and not isinstance(exc, BoardDiskError):
            raise
        text = one_line(exc, None)
        prefix = f"board {board.name}: "
        raise DeployError(text if text.startswith(prefix) else prefix + text) from exc


@contextmanager
def _executor(board: Board) -> Iterator[SshBoard]:
    with closing(SshBoard(board, LIMITS)) as executor:
        yield executor
