"""Whether the release that was switched to serves: its unit stays up and, where it serves HTTP, answers.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import http.client
import time
from typing import Optional, Tuple

from edgekd.release.service import Unit

LIMIT_S = 30.0
_STEADY_S = 5.0  # without HTTP, a unit that runs as long is healthy
_PAUSE_S = 0.25
_MOST_RESTARTS = 2  # systemd counts them from the last start by hand
_ANSWER_S = 5.0


def why_unhealthy(unit: Unit, limit_s: float = LIMIT_S) -> str:
    """Wait until a unit that was just started is healthy; return "" then, and after `limit_s` why it is not."""
    address, started = unit.address(), time.monotonic()
    running: Optional[Tuple[int, float]] = None  # pid, and since when we have seen it
    while True:
        state, now = unit.state(), time.monotonic()
        is_over = state.active == "failed" or (state.active == "inactive" and now - started > 1)
        if is_over or state.restarts >= _MOST_RESTARTS:
            return f"{unit.name} ended with code {state.code}; see: journalctl --user -u {unit.name}"
        if state.active != "active" or not state.pid:
            running, why = None, f"{unit.name} is {state.active}"
        else:
            if running is None or running[0] != state.pid:
                running = (state.pid, now)
            why = why_no_answer(*address) if address else f"{unit.name} has not run for {_STEADY_S:g} s"
            if not why or (address is None and now - running[1] >= _STEADY_S):
                return ""
        if now - started > limit_s:
            return f"{why}, for {limit_s:g} s"
        time.sleep(_PAUSE_S)


def why_no_answer(host: str, port: int) -> str:
    """Return why a server does not say on `/health` that it is well, "" when it does."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
        return "" if status == 200 else f"http://{host}:{port}/health answers {status}"
    except (OSError, http.client.HTTPException) as exc:
        return f"http://{host}:{port}/health does not answer ({exc})"
    finally:
        connection.close()
