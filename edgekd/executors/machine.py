"""The machine of a place, asked by the task `facts`: what an executor that is not this process answers with."""

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
    """Answer of the task `facts`: what latencies and some engines belong to, and hardware and state of the machine."""

    identity: Identity
    facts: Facts


def facts_job() -> Job:
    """Return the job that asks a machine for its facts; it reads and writes no files."""
    modules = [plugins.load("targets", name).__name__ for name, _ in plugins.targets()]
    arguments: FactsArguments = {"modules": modules}
    return Job("facts", "", arguments)


def machine_of(value: Json) -> Machine:
    """Return what the value of a `facts_job` says; BoardAnswerError when it says something else."""
    try:
        machine = Machine(Identity(**value["identity"]), value["facts"])
        parts = *asdict(machine.identity).values(), machine.facts["state"], machine.facts["environment"]
        if not all(isinstance(part, dict) for part in parts):
            raise TypeError
        return machine
    except (KeyError, TypeError) as exc:
        raise BoardAnswerError(
            f"the board said of its machine: {str(value)[:200]!r}; expected identity and facts"
        ) from exc
