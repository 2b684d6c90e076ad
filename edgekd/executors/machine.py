"""Facts of another process's machine, from the task `facts`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from edgekd.board.arguments import FactsArguments
from edgekd.board.job import Job, Json
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.errors import BoardAnswerError
from edgekd.executors.base import Identity


@dataclass(frozen=True)
class Machine:
    """Result of the task `facts`: the machine's identity, its hardware and its state."""

    identity: Identity
    facts: Facts


def facts_job() -> Job:
    """Return the job that asks a machine for its facts; it reads and writes no files."""
    modules = [plugins.load("targets", name).__name__ for name, _ in plugins.targets()]
    arguments: FactsArguments = {"modules": modules}
    return Job("facts", "", arguments)


def machine_of(value: Json) -> Machine:
    """Return the machine in the value of a `facts_job`; BoardAnswerError if the value does not describe one."""
    try:
        machine = Machine(Identity(**value["identity"]), value["facts"])
        parts = *asdict(machine.identity).values(), machine.facts["state"], machine.facts["environment"]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError
        return machine
    except (KeyError, TypeError) as exc:
        raise BoardAnswerError(
            f"unexpected answer about the board's machine: {str(value)[:200]!r}; expected identity and facts"
        ) from exc
