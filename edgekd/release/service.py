"""The systemd user unit of a name, `edgekd@NAME.service`: whether there is one, restarting it, and its state.

A board without systemd has no unit; then a person starts the runner. Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from edgekd.errors import DeployError
from edgekd.runner.server import parse_address

TEMPLATE = Path(__file__).with_name("edgekd@.service")
ARGUMENTS = "EDGEKD_RUN"
ENVIRONMENT = "service.env"  # in the folder of a name
_DEFAULT_ARGUMENTS = "--http 8080"  # as in the template
_DEFAULT_FOLDER = "%h/.local/share/edgekd"  # as in the template
_RUN = "/current/run"  # as in the template
_ANY = ("0.0.0.0", "::")
_CALL_S = 60.0
Put = Callable[[Path, str], None]


@dataclass(frozen=True)
class UnitState:
    """State of a unit according to systemd.

    active: active, activating, inactive, failed ... restarts: how often systemd has restarted it by itself.
    pid: process id of its main process; 0 for none.
    """

    active: str
    restarts: int
    pid: int


class Unit:
    """The unit of a name.

    Args:
        folder: folder of the name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"edgekd@{folder.name}.service"

    def is_there(self) -> bool:
        """Whether a person has enabled or started the unit on this board, for the releases in this folder."""
        if not self._is_ours():
            return False
        enabled = self._call("is-enabled", self.name)
        if enabled is not None and enabled[1] in ("enabled", "enabled-runtime", "linked"):
            return True
        return enabled is not None and self.state().active not in ("inactive", "unknown")

    def restart(self) -> None:
        """Start the current release, also after many failed starts; DeployError when systemd refuses."""
        self._call("reset-failed", self.name)
        self._do("restart", self.name)

    def stop(self) -> None:
        """Stop and disable the unit; a unit of another folder keeps running."""
        if self._is_ours():
            self._call("disable", "--now", self.name)

    def state(self) -> UnitState:
        """Return the state of the unit; `unknown` where systemd does not answer."""
        said = self._call("show", "--property=ActiveState,NRestarts,MainPID", self.name)
        facts: Dict[str, str] = dict(line.partition("=")[::2] for line in (said[1] if said else "").splitlines())
        restarts, pid = (int(facts.get(key) or 0) for key in ("NRestarts", "MainPID"))
        return UnitState(facts.get("ActiveState", "unknown"), restarts, pid)

    def address(self) -> Optional[Tuple[str, int]]:
        """Return host and port where the unit's HTTP server is reached from this board, None when it has none."""
        try:
            words = shlex.split(self.arguments())
            if "--http" not in words[:-1]:
                return None
            host, port = parse_address(words[words.index("--http") + 1])
        except ValueError:  # edited by hand; the runner will say so
            return None
        return "127.0.0.1" if host in _ANY else host, port

    def arguments(self) -> str:
        """Return the arguments of the runner, as one text."""
        try:
            lines = (self._folder / ENVIRONMENT).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return _DEFAULT_ARGUMENTS
        given = [line.partition("=")[2] for line in lines if line.startswith(f"{ARGUMENTS}=")]
        return " ".join(shlex.split(given[-1])) if given else _DEFAULT_ARGUMENTS

    def install(self, arguments: Sequence[str], put: Put) -> List[str]:
        """Write the unit, enable and start it; return lines to print.

        Args:
            arguments: arguments of the runner; none keeps the present ones.
            put: writes a file whole.

        Raises:
            DeployError: there is no systemd, or it refuses.
        """
        if arguments:
            text = " ".join(map(shlex.quote, arguments))
            put(self._folder / ENVIRONMENT, f"{ARGUMENTS}={shlex.quote(text)}\n")
        if self._call("--version") is None:
            raise DeployError(
                f"no systemctl on this board; start it yourself: {self._folder}/current/run {self.arguments()}"
            )
        place = _units() / TEMPLATE.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(unit_text(self._folder.parent), encoding="utf-8")
        self._do("daemon-reload")
        self._do("enable", self.name)
        self.restart()
        lines = [f"{self.name}: {self.arguments()}"]
        return lines if _lingers() else [*lines, "next: loginctl enable-linger   # else it ends with your last login"]

    def _is_ours(self) -> bool:
        """Whether the unit runs this folder's releases, and not those of the same name in another folder of the board."""
        said = self._call("show", "--property=ExecStart", self.name)
        command, places = said[1] if said else "", [str(self._folder)]
        by_home = os.path.join(os.path.expanduser("~/.local/share/edgekd"), self._folder.name)  # the home may be a link
        if os.path.realpath(by_home) == os.path.realpath(str(self._folder)):
            places.append(by_home)
        return _RUN not in command or any(place + _RUN in command for place in places)

    def _do(self, *words: str) -> None:
        done = self._call(*words)
        if done is None or done[0]:
            said = done[1] if done else "no systemctl on this board"
            raise DeployError(f"systemctl --user {' '.join(words)} failed: {said or 'no output'}")

    def _call(self, *words: str) -> Optional[Tuple[int, str]]:
        """Return exit code and output of `systemctl --user`, None where there is none."""
        environment = dict(os.environ)
        environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")  # an ssh login may lack it
        try:
            done = subprocess.run(
                ["systemctl", "--user", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, env=environment, timeout=_CALL_S,
            )  # fmt: skip
        except FileNotFoundError:
            return None
        except subprocess.TimeoutExpired:
            return 1, f"no answer within {_CALL_S:g} s"
        return done.returncode, done.stdout.decode(errors="replace").strip()


def unit_text(root: Path) -> str:
    """Return the unit template for releases in a folder."""
    text = TEMPLATE.read_text(encoding="utf-8")
    default = _home() / ".local/share/edgekd"
    return text if root == default else text.replace(_DEFAULT_FOLDER, str(root).replace("%", "%%"))


def _units() -> Path:
    config = os.environ.get("XDG_CONFIG_HOME")
    return (Path(config) if config else _home() / ".config") / "systemd/user"


def _home() -> Path:
    home = os.path.expanduser("~")
    if home.startswith("~"):  # no entry in the user database, as in a container
        raise DeployError("this user has no home folder, where the units of systemd are; set HOME")
    return Path(home)


def _lingers() -> bool:
    try:
        import pwd

        return Path("/var/lib/systemd/linger", pwd.getpwuid(os.getuid()).pw_name).exists()
    except KeyError:  # a user that has no name
        return False
