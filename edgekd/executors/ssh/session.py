"""An engine on a board behind `infer`: every run is a job there."""

from __future__ import annotations

from edgekd.board.sysinfo import Facts
from edgekd.core.artifact import Artifact
from edgekd.executors.base import Executor
from edgekd.executors.inference import Arrays, engine_files, run_engine


class BoardSession:
    """A session whose every run sends its inputs to the board; `run_engine` takes many at once."""

    def __init__(self, executor: Executor, engine: Artifact) -> None:
        self.spec, self.runtime = engine.spec, Facts()
        self._executor, self._engine = executor, engine_files(engine)

    def __enter__(self) -> BoardSession:
        return self

    def __exit__(self, *exc: object) -> None:
        """Do nothing: every run cleans up after itself."""

    def infer(self, inputs: Arrays) -> Arrays:
        """Run once on the board; errors as `Executor.run_job`."""
        (outputs,), self.runtime = run_engine(self._engine, [inputs], self._executor)
        return outputs
