"""Examines a board: each check has a finding and the command that fixes a fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.job import Job
from edgekd.board.sysinfo import Facts
from edgekd.core import chips, plugins
from edgekd.core.inventory import Board
from edgekd.errors import BoardError, EdgekdError
from edgekd.executors.base import Identity
from edgekd.executors.board_state import disturbances, hottest_zone, unmet
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.ssh.checks import BoardCheck, checks_of
from edgekd.executors.ssh.probe import Probed


def examine(board: Board, executor: SshBoard) -> list[BoardCheck]:
    """Return all checks of a board; those that run a job only when the first ones pass and nobody holds the board."""
    try:
        probed = executor.probe()
    except BoardError as exc:
        return [BoardCheck("ssh", "wrong", str(exc))]
    checks = [BoardCheck("ssh", "ok", board.ssh), *checks_of(board, probed)]
    if probed.holder:
        return [*checks, BoardCheck("runtimes", "note", "not asked while the board is held")]
    if any(check.state == "wrong" for check in checks if check.name != "chip"):
        return checks
    checks += runtimes(probed, executor)
    try:
        return [*checks, *state_checks(board, executor.identity(), executor.facts()["state"])]
    except EdgekdError as exc:
        return [*checks, BoardCheck("state", "wrong", str(exc))]


def runtimes(probed: Probed, executor: SshBoard) -> list[BoardCheck]:
    """Return a check of the runtime of each target that is for the board's chip; without any the first one is wrong."""
    names = chips.load(probed.chip).targets if probed.chip else plugins.names("targets")
    checks = [_runtime(name, executor) for name in names]
    if checks and not any(check.state == "ok" for check in checks):
        checks = [replace(check, state="wrong") for check in checks]
    return checks


def _runtime(target: str, executor: SshBoard) -> BoardCheck:
    """Return a check of one runtime, by the job `version`, which imports it."""
    own = plugins.target(target)
    task = "version" if own.board_version is None else "board_version"
    name = f"runtime {target}"
    try:
        with TemporaryDirectory(prefix="edgekd-ask-") as folder:
            value = executor.run_job(Job(task, target), {}, Path(folder), Path(folder) / "log.txt")
    except EdgekdError as exc:
        return BoardCheck(name, "note", str(exc).partition("; whole log:")[0])
    found = value.get("runtime_version") or value.get("board_version")
    return BoardCheck(name, "ok" if found else "note", found or "this board cannot run its engines")


def state_checks(board: Board, identity: Identity, state: Facts) -> Iterator[BoardCheck]:
    """Yield the checks of measuring conditions: settings, sensors, other load, temperature."""
    yield from _expectations(board, identity, state)
    readings = state.get("readings") or {}
    for quantity, title in (("temp_c", "temperature"), ("power_w", "power"), ("clock_mhz", "clocks")):
        names = [name.partition("/")[2] for name in readings if name.startswith(f"{quantity}/")]
        if names:
            yield BoardCheck(f"sensors: {title}", "ok", ", ".join(names[:6]) + (", ..." if len(names) > 6 else ""))
        else:
            why = [f": {text}" for name, text in state.get("unreadable", {}).items() if name.startswith(quantity)]
            yield BoardCheck(f"sensors: {title}", "note", f"none readable{''.join(why[:1])}")
    disturbing = disturbances(board.quiet, state)
    hottest = hottest_zone(state)
    warm = f"; hottest: {hottest[0]} {hottest[1]:.1f} °C" if hottest else ""
    yield BoardCheck("quiet", "note" if disturbing else "ok", ("; ".join(disturbing) or "nothing else computes") + warm)


def _expectations(board: Board, identity: Identity, state: Facts) -> Iterator[BoardCheck]:
    wrong = unmet(board.expects, identity, state)
    settings = chips.load(board.chip).settings if board.chip in chips.names() else ""
    for text in wrong:
        yield BoardCheck("expects", "wrong", text, f"on the board: {settings}" if settings else "")
    if not wrong:
        met = ", ".join(f"{name} {value}" for name, value in board.expects.model_dump(exclude_none=True).items())
        yield BoardCheck("expects", "ok", met or "the inventory expects no power mode and no clocks")
