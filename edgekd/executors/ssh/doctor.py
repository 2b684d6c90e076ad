"""Examines a board: each check says what was found and what to type to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from edgekd.board.job import Job
from edgekd.board.sysinfo import Facts
from edgekd.core import chips, plugins
from edgekd.core.inventory import Board
from edgekd.errors import BoardError, EdgekdError
from edgekd.executors.base import Identity
from edgekd.executors.board_state import disturbances, hottest_zone, unmet
from edgekd.executors.ssh.board import SshBoard
from edgekd.executors.ssh.greeting import OLDEST_PYTHON
from edgekd.executors.ssh.probe import Probed

MIN_FREE_BYTES = 500 << 20
MAX_SKEW_S = 60


@dataclass(frozen=True)
class BoardCheck:
    """One check of a board.

    state: `ok`; `note`, work goes on; `wrong`, the board cannot be used.
    remedy: what to type, and where; "" when there is nothing to do.
    """

    name: str
    state: Literal["ok", "note", "wrong"]
    text: str
    remedy: str = ""


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
    """Yield the checks of what a measurement depends on: settings, sensors, quiet, temperature."""
    yield from _expectations(board, identity, state)
    readings = state.get("readings") or {}
    for quantity, title in (("temp_c", "temperature"), ("power_w", "power"), ("clock_mhz", "clocks")):
        names = [name.partition("/")[2] for name in readings if name.startswith(f"{quantity}/")]
        if names:
            yield BoardCheck(f"sensors: {title}", "ok", ", ".join(names[:6]) + (", ..." if len(names) > 6 else ""))
        else:
            why = [f": {text}" for name, text in state.get("unreadable", {}).items() if name.startswith(quantity)]
            yield BoardCheck(f"sensors: {title}", "note", f"none readable{''.join(why[:1])}")
    loud = disturbances(board.quiet, state)
    hottest = hottest_zone(state)
    warm = f"; hottest: {hottest[0]} {hottest[1]:.1f} °C" if hottest else ""
    yield BoardCheck("quiet", "note" if loud else "ok", ("; ".join(loud) or "nothing else computes") + warm)


def _expectations(board: Board, identity: Identity, state: Facts) -> Iterator[BoardCheck]:
    wrong = unmet(board.expects, identity, state)
    settings = chips.load(board.chip).settings if board.chip in chips.names() else ""
    for text in wrong:
        yield BoardCheck("expects", "wrong", text, f"on the board: {settings}" if settings else "")
    if not wrong:
        met = ", ".join(f"{name} {value}" for name, value in board.expects.model_dump(exclude_none=True).items())
        yield BoardCheck("expects", "ok", met or "the inventory expects no power mode and no clocks")


def checks_of(board: Board, probed: Probed) -> Iterator[BoardCheck]:
    """Yield the checks of what the probe read, in the order in which a person mends them."""
    if probed.system == "Linux":
        yield BoardCheck("system", "ok", probed.title)
    else:
        yield BoardCheck("system", "wrong", f"expected Linux, got {probed.system or 'nothing'}")
    if probed.lacks:
        needed = f"on the board: sudo apt install {_packages_of(probed.lacks)}"
        yield BoardCheck("commands", "wrong", f"not there: {', '.join(probed.lacks)}", needed)
    else:
        yield BoardCheck("commands", "ok", "all that edgekd needs")
    yield _python(board, probed)
    if probed.python:
        yield _numpy(probed)
    yield _chip(board, probed)
    yield _folder(board, probed)
    yield _disk(probed)
    yield _clock(probed)
    yield _lock(board, probed)


def _python(board: Board, probed: Probed) -> BoardCheck:
    oldest = ".".join(map(str, OLDEST_PYTHON))
    if not probed.pythons:
        text = f"{board.python}: not there; expected {oldest} or newer"
        return BoardCheck("python", "wrong", text, "on the board: sudo apt install python3 python3-numpy")
    version, command = probed.pythons[-1]
    if not probed.python:
        text = f"{command} is {version}; expected {oldest} or newer"
        remedy = "on the board: sudo apt install python3.8 (JetPack 4), or a newer system image"
        return BoardCheck("python", "wrong", text, remedy)
    if command != board.python:
        first = f"{board.python} is {probed.pythons[0][0]}"
        remedy = f"in the inventory: {board.name}: python: {command}"
        return BoardCheck("python", "wrong", f"{first}; {command} is {version} and would do", remedy)
    return BoardCheck("python", "ok", f"{version}, {command}")


def _numpy(probed: Probed) -> BoardCheck:
    if probed.numpy is not None:
        return BoardCheck("numpy", "ok", probed.numpy)
    remedy = f"on the board: sudo apt install python3-numpy, or {probed.python} -m pip install numpy"
    return BoardCheck("numpy", "wrong", probed.numpy_error or "not there", remedy)


def _chip(board: Board, probed: Probed) -> BoardCheck:
    found = probed.chip
    text = f"{found or 'none that edgekd knows'} ({probed.title})"
    if board.chip is not None and board.chip != found:
        remedy = f"check that {board.ssh} is the right board; in the inventory: {board.name}: chip: {found}"
        return BoardCheck("chip", "wrong", f"expected {board.chip}, got {text}", remedy)
    return BoardCheck("chip", "ok" if found else "note", text)


def _folder(board: Board, probed: Probed) -> BoardCheck:
    elsewhere = f"in the inventory: {board.name}: folder: a folder of this user on another disk"
    if probed.unwritable:
        return BoardCheck("folder", "wrong", f"{probed.folder}: {probed.unwritable} is not writable", elsewhere)
    if hostile := {"ro", "noexec"} & set(probed.mount_options):
        return BoardCheck("folder", "wrong", f"{probed.folder}: its disk is mounted {', '.join(hostile)}", elsewhere)
    return BoardCheck("folder", "ok", probed.folder)


def _disk(probed: Probed) -> BoardCheck:
    if probed.free_bytes is None:
        return BoardCheck("disk", "note", "free room cannot be read")
    text = f"{probed.free_bytes / 1e9:.1f} GB free"
    if probed.free_bytes < MIN_FREE_BYTES:
        text += f", expected {MIN_FREE_BYTES / 1e9:.1f} GB"
        return BoardCheck("disk", "wrong", text, f"on the board: make room; see du -sh {probed.folder}")
    return BoardCheck("disk", "ok", text)


def _clock(probed: Probed) -> BoardCheck:
    if abs(probed.skew_s) <= MAX_SKEW_S:
        return BoardCheck("clock", "ok", "as this machine's")
    side = "ahead of" if probed.skew_s > 0 else "behind"
    text = f"{abs(probed.skew_s):.0f} s {side} this machine's; edgekd compares no times of two machines"
    return BoardCheck("clock", "note", text, "on the board: sudo timedatectl set-ntp true")


def _lock(board: Board, probed: Probed) -> BoardCheck:
    if not probed.holder:
        return BoardCheck("lock", "ok", "free")
    return BoardCheck("lock", "note", f"held by {probed.holder}", f"edgekd board cancel {board.name}   # ends that job")


def _packages_of(commands: tuple[str, ...]) -> str:
    """Return Debian's packages that hold the commands."""
    held = {"awk": "mawk", "find": "findutils", "xargs": "findutils", "grep": "grep", "sed": "sed", "tar": "tar",
            "flock": "util-linux", "setsid": "util-linux"}  # fmt: skip
    return " ".join(sorted({held.get(command, "coreutils") for command in commands}))
