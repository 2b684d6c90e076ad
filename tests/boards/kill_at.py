"""Installs a bundle and kills itself with SIGKILL before the N-th change of the file system or start of a program.

kill_at.py N ROOT NAME BUNDLE    N = 0: do not kill; print the number of changes

Python tells of every change before it makes it (audit events, PEP 578), so nothing in the installer is for this test.
"""

import os
import signal
import sys
from pathlib import Path

from edgekd.release.install import Wanted, install
from edgekd.release.releases import Releases

CHANGES = {"os.mkdir", "os.rename", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.utime", "subprocess.Popen"}


class Killer:
    """Counts changes, and ends this process before one of them."""

    def __init__(self, number: int) -> None:
        self.number, self.changes = number, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        """Get an audit event."""
        is_written = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in CHANGES or is_written:
            self.changes += 1
            if self.changes == self.number:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    killer = Killer(int(sys.argv[1]))
    sys.addaudithook(killer)
    list(install(Releases(Path(sys.argv[2]), sys.argv[3]), Wanted(Path(sys.argv[4]))))
    print(killer.changes)
