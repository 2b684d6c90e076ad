"""Boards whose worker is a shell script, so that a job can hang, crash or lie; all else of them is real."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd.board.job import Job, Json
from edgekd.core.inventory import Board
from edgekd.executors.ssh.board import Limits, SshBoard
from edgekd.executors.ssh.client import Link
from tests.boards import slow_link
from tests.boards.fixtures import SshdBoard

FOLDER = ".cache/edgekd"  # of edgekd, in a board's home
LIMITS = Limits(
    link=Link(connect_s=2, alive_s=1, alive_count=2, retry_s=0.05, give_up_s=120),
    wait_s=30,
    slice_s=2,
    log_bytes=1 << 20,
)
RESULT = '{"schema": "edgekd.result/1", "value": {"done": true}, "failure": null, "seconds": 0.0}'
DONE = f"echo '{RESULT}' >result.json"
_FACTS = """! grep -q '"task": *"facts"' job.json || exec python3 "$@"  # the worker says whose board it is"""
RAN = "echo ran >>~/runs"  # a job says that it was started
JOB = Job("probe", "onnxruntime")


@contextmanager
def executor(board: SshdBoard, script: str = "", limits: Limits = LIMITS, **entry: object) -> Iterator[SshBoard]:
    """Give the executor of a board.

    Args:
        board: a test board whose host is known to ssh.
        script: of the shell, in place of the worker; "": the worker.
        limits: of the executor.
        entry: further keys of the board's entry in the inventory.
    """
    if script:
        text = f'#!/bin/sh\ncase "$*" in *edgekd.worker*) ;; *) exec python3 "$@" ;; esac\n{_FACTS}\n{script}\n'
        name = f"worker-{zlib.crc32(text.encode()):08x}"
        board.run(f"cat >{name} && chmod +x {name}", text.encode())
        entry["python"] = f"~/{name}"
    found = SshBoard(Board.model_validate({"name": board.host, "ssh": board.host, **entry}), limits)
    try:
        yield found
    finally:
        found.close()


def run(board: SshBoard, folder: Path, job: Job = JOB, **files: Path) -> Json:
    """Do a job whose results go to `out` in a folder, and its log to `log.txt`."""
    (folder / "out").mkdir(parents=True, exist_ok=True)
    return board.run_job(job, files, folder / "out", folder / "log.txt")


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition holds; a failure after some seconds."""
    started = time.monotonic()
    while not is_so():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)


def slow_down(board: SshdBoard, bytes_per_second: int) -> None:
    """Put a slow cable between ssh and a board."""
    with open(board.ssh_config, "a") as file:
        file.write(f"    ProxyCommand {sys.executable} {slow_link.__file__} %h %p {bytes_per_second}\n")


def random_file(path: Path, size: int) -> Path:
    """Return a new file of random bytes."""
    path.write_bytes(os.urandom(size))
    return path


HOST = """
import subprocess
import sys
from pathlib import Path
from edgekd.core.inventory import Board
from edgekd.executors.ssh.board import SshBoard
from tests.boards.scripted import run
run(SshBoard(Board(name="board", ssh="board", python=sys.argv[1])), Path(sys.argv[2]), x=Path(sys.argv[3]))
"""


def kill_host_in_job(board: SshdBoard, folder: Path, x: Path) -> None:
    """Do a job with one file and the board's only script in another process; kill that when the job has written `~/runs`."""
    interpreter = f"~/{board.run('ls worker-*').strip()}"
    host = subprocess.Popen([sys.executable, "-c", HOST, interpreter, str(folder), str(x)])
    wait_until(lambda: (board.home / "runs").exists())
    host.kill()
    host.wait()
