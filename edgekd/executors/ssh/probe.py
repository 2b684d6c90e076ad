"""Probes a board (hardware, system, missing commands) with one read-only script in POSIX sh.

The script runs on a board that edgekd cannot use yet, without Python and with a folder that cannot be written.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from edgekd.core import chips, plugins
from edgekd.core.inventory import Board
from edgekd.errors import BoardError
from edgekd.executors.logs import printable
from edgekd.executors.ssh.client import Client

OLDEST_PYTHON = (3, 8)
SCRIPT = Path(__file__).with_name("probe.sh")
_LONGEST = 500  # characters of a value; a board may print anything


@dataclass(frozen=True)
class Probed:
    """Facts of a board from its probe.

    system: name of the kernel, e.g. Linux. machine: e.g. aarch64. os: e.g. Debian GNU/Linux 12 (bookworm).
    model, compatible: of the device tree; "" and () without one.
    lacks: commands that edgekd needs and that are missing on the board.
    pythons: (version, command) of the interpreters that were tried; the last one is used when it is new enough.
    numpy: its version, None if it is not installed.
    distributions: version of the installed packages that runtimes of targets come from, by name on PyPI.
    folder: absolute path of the inventory's folder. unwritable: "" or the folder that the user may not write.
    free_bytes: on the folder's disk. mount_options: of that disk, e.g. noexec.
    skew_s: the board's clock minus this machine's.
    boot: changes with every boot. load: load averages, as /proc/loadavg.
    holder: the job that holds the board, in words; "" when it is free.
    """

    system: str
    machine: str
    os: str
    model: str
    compatible: tuple[str, ...]
    lacks: tuple[str, ...]
    pythons: tuple[tuple[str, str], ...]
    numpy: str | None
    distributions: dict[str, str]
    folder: str
    unwritable: str
    free_bytes: int | None
    mount_options: tuple[str, ...]
    skew_s: float
    boot: str
    load: str
    holder: str

    @property
    def python(self) -> str:
        """The command of the interpreter that edgekd can use; "" when there is none."""
        if not self.pythons:
            return ""
        version, command = self.pythons[-1]
        return command if tuple(map(int, version.split(".")[:2])) >= OLDEST_PYTHON else ""

    @property
    def chip(self) -> str | None:
        """The name of the board's chip in `edgekd/chips`; None when no chip there has its device tree or processor."""
        return chips.recognize(self.machine, self.compatible)

    @property
    def title(self) -> str:
        """The board in words: its model, else its system."""
        return self.model or f"{self.os or self.system}, {self.machine}"


def probe(client: Client, board: Board) -> Probed:
    """Return the facts of a board; BoardError if it cannot be reached, or for an unexpected answer."""
    packages = sorted({name for _, target in plugins.targets() for name in target.info.distributions})

    def ask() -> tuple[str, float]:
        started = time.time()
        output = client.run(SCRIPT.read_text(), board.folder, board.python, *variables(board), *packages)
        return output, (started + time.time()) / 2

    return parse(board.name, *client.insist(ask))


def variables(board: Board) -> list[str]:
    """Return the environment of a board's jobs as `NAME=VALUE`."""
    return [f"{name}={value}" for name, value in board.environment.items()]


def parse(name: str, output: str, now: float) -> Probed:
    """Parse the script's output.

    Args:
        name: name of the board, in messages.
        output: output of the script; a login shell may print before it.
        now: this machine's time (seconds since 1970) while the script ran.

    Raises:
        BoardError: the text is not the script's output.
    """
    values = defaultdict[str, list[str]](list)
    _, start, body = output.partition("edgekd-probe 1\n")
    for line in body.splitlines():
        key, _, value = line.partition(" ")
        values[key].append(printable(value[:_LONGEST]))
    if not start or "end" not in values:
        raise BoardError(
            f"board {name}: expected the answer of edgekd's probe, got {output[-200:].strip()!r}; is it Linux?"
        )

    def one(key: str) -> str:
        return values[key][-1] if values[key] else ""

    clock = one("now")
    pythons = (value.partition(" ") for value in values["python"])
    return Probed(
        system=one("kernel"),
        machine=one("machine"),
        os=one("os"),
        model=one("model"),
        compatible=tuple(one("compatible").split()),
        lacks=tuple(values["lacks"]),
        pythons=tuple((version, command) for version, _, command in pythons if _is_version(version)),
        numpy=one("numpy") or None,
        distributions={
            package: version for package, _, version in (one.partition(" ") for one in values["distribution"])
        },
        folder=one("folder"),
        unwritable=one("unwritable"),
        free_bytes=int(one("free_kb")) * 1024 if one("free_kb").isdigit() else None,
        mount_options=tuple(one("mount_options").split(",")),
        skew_s=int(clock) - now if clock.isdigit() else 0.0,
        boot=one("boot"),
        load=one("load"),
        holder=one("held"),
    )


def _is_version(text: str) -> bool:
    return all(part.isdigit() for part in text.split(".")) and "." in text
