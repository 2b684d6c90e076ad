"""An engine in its toolchain's simulator: outputs only. Its time means nothing, and it is not the chip."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.artifact import Artifact
from edgekd.errors import TargetError
from edgekd.executors.base import Executor
from edgekd.executors.inference import Arrays, engine_files, run_engine


class SimulatedSession:
    """A session whose every run is a job of the simulator, which takes seconds to start; `simulate` takes many at once."""

    def __init__(self, executor: Executor, engine: Artifact) -> None:
        self.spec, self.runtime = engine.spec, Facts()
        self._executor, self._engine = executor, engine

    def __enter__(self) -> SimulatedSession:
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing: every run cleans up after itself."""

    def infer(self, inputs: Arrays) -> Arrays:
        """Run once in the simulator; errors as `simulate`."""
        (outputs,), self.runtime = simulate(self._engine, [inputs], self._executor)
        return outputs


def simulate(engine: Artifact, inputs: Iterable[Arrays], executor: Executor) -> tuple[list[Arrays], Facts]:
    """Return the outputs for each set of inputs, by tensor name, and the simulator's facts about itself.

    Args:
        engine: artifact of kind `engine` of a target that has a simulator.
        inputs: arrays by name as the engine's own contract has them.
        executor: the toolchain's.

    Raises:
        TargetError: the target has no simulator, or the simulator refuses the engine.
        ToolchainError: its toolchain is not installed, crashed, hung or logged errors.
    """
    name = engine.details["target"]
    if plugins.target(name).simulator is None:
        raise TargetError(f"{engine.path}: target {name} has no simulator; run the engine on its chip")
    return run_engine(engine_files(engine), inputs, executor, is_simulated=True)
