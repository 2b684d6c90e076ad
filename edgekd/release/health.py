"""Whether the release that was switched to serves: its unit stays up and, where it serves HTTP, answers.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import http.client
import json
import time
from pathlib import Path
from typing import Optional, Tuple

from edgekd.errors import one_line
from edgekd.release.service import Unit

LIMIT_S = 30.0
_STEADY_S = 5.0  # without HTTP, a unit that runs as long is healthy
_PAUSE_S = 0.25
_MOST_RESTARTS = 2  # systemd counts them from the last start by hand
_ANSWER_S = 5.0
_MOST_ANSWER = 1 << 16  # bytes


def why_unhealthy(unit: Unit, version: int, limit_s: float = LIMIT_S) -> str:
    """Wait until a unit that was just started is healthy; return "" then, and after `limit_s` why it is not.

    Args:
        unit: unit of the service.
        version: version of the release that it has to serve.
        limit_s: longest wait.
    """
    address, started = unit.address(), time.monotonic()
    running: Optional[Tuple[int, float]] = None  # pid, and since when we have seen it
    while True:
        state, now = unit.state(), time.monotonic()
        is_over = state.active == "failed" or (state.active == "inactive" and now - started > 1)
        if is_over or state.restarts >= _MOST_RESTARTS:
            return f"{unit.name} does not stay up; see: journalctl --user -u {unit.name}"
        if state.active != "active" or not state.pid:
            running, why = None, f"{unit.name} is {state.active}"
        else:
            if running is None or running[0] != state.pid:
                running = (state.pid, now)
            why = (
                why_no_answer(*address, version, state.pid)
                if address
                else f"{unit.name} has not run for {_STEADY_S:g} s"
            )
            if not why or (address is None and now - running[1] >= _STEADY_S):
                return ""
        if now - started > limit_s:
            return f"{why}, for {limit_s:g} s"
        time.sleep(_PAUSE_S)


def why_no_answer(host: str, port: int, version: int, pid: int) -> str:
    """Return why `/health` does not report a healthy server of this version and unit; "" if it does.

    The process id is needed because two names can have the same engine and, by mistake, the same port.
    """
    where = f"http://{host}:{port}/health"
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        said, text = answer.status, answer.read(_MOST_ANSWER).decode("utf-8", "replace")
        if said != 200:
            return f"{where} answers {said} {text[:200].strip()}"
        served = json.loads(text)
        if served.get("version") != version:
            got = f"for version {served.get('version')!r}, not {version}"
        elif not _is_beside(served.get("pid"), pid):
            got = f"by process {served['pid']}, the unit's is {pid}"
        else:
            return ""
        return f"{where} answers {got}: another process has its port"
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as exc:
        return f"{where} does not answer as the runner does ({one_line(exc)})"
    finally:
        connection.close()


def _is_beside(pid: object, other: int) -> bool:
    """Whether a process is another one or runs in its control group, which a unit has for itself; True without a pid."""
    if pid is None or pid == other:
        return True
    try:
        return Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{other}/cgroup").read_text()
    except (OSError, ValueError):
        return False
