"""Checks of a board's probe, each with the command that fixes the fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgekd.core.inventory import Board
from edgekd.executors.ssh.probe import OLDEST_PYTHON, Probed

MIN_FREE_BYTES = 500 << 20
MAX_SKEW_S = 60


@dataclass(frozen=True)
class BoardCheck:
    """One check of a board.

    state: `ok`; `note`: usable; `wrong`: not usable.
    remedy: command to type, and where; "" if there is nothing to do.
    """

    name: str
    state: Literal["ok", "note", "wrong"]
    text: str
    remedy: str = ""


def checks_of(board: Board, probed: Probed) -> Iterator[BoardCheck]:
    """Yield the checks of a probe, in the order in which a user should fix them."""
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
    if len(probed.pythons) > 1 and board.python != command:
        first = f"{board.python} is {probed.pythons[0][0]}"
        remedy = f"in the inventory: {board.name}: python: {command}"
        return BoardCheck("python", "wrong", f"{first}; {command} is {version} and would do", remedy)
    return BoardCheck("python", "ok", f"{version}, {command}")


def _numpy(probed: Probed) -> BoardCheck:
    if probed.numpy is not None:
        return BoardCheck("numpy", "ok", probed.numpy)
    remedy = f"on the board: sudo apt install python3-numpy, or {probed.python} -m pip install numpy"
    return BoardCheck("numpy", "wrong", f"{probed.python} has none", remedy)


def _chip(board: Board, probed: Probed) -> BoardCheck:
    found = probed.chip
    text = f"{found or 'none that edgekd knows'} ({probed.title})"
    if board.chip is not None and board.chip != found:
        remedy = f"check that {board.ssh} is the right board; in the inventory: {board.name}: chip: {found}"
        return BoardCheck("chip", "wrong", f"expected {board.chip}, got {text}", remedy)
    return BoardCheck("chip", "ok" if found else "note", text)


def _folder(board: Board, probed: Probed) -> BoardCheck:
    elsewhere = f"in the inventory: {board.name}: folder: a folder of this user on another disk, e.g. /mnt/ssd/edgekd"
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
