"""Runs an engine with inner tensors as further outputs, where it belongs: a job, as inference is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgekd.board.arguments import TapArguments
from edgekd.board.job import Job
from edgekd.board.sysinfo import Facts
from edgekd.errors import ArtifactError
from edgekd.executors.answers import mapping_of, texts_of
from edgekd.executors.base import Executor
from edgekd.executors.inference import OUT, Arrays, EngineFiles, array_bytes, inputs_of_job, read_arrays
from edgekd.executors.logs import LOG

_WIDEST = 8  # bytes of a value that a runtime may give


@dataclass(frozen=True)
class TappedRun:
    """A tapped engine's results on some inputs, which lie in files: one set of arrays is in memory at a time.

    tensors: the inner tensors that the engine has, in the order asked for.
    runtime: the runtime's facts about itself.
    """

    tensors: tuple[str, ...]
    runtime: Facts
    _outputs: tuple[str, ...]
    _files: tuple[Path, ...]
    _most_bytes: int

    def __iter__(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield outputs and inner tensors by name for each set of inputs; ArtifactError for a file that holds neither."""
        for path in self._files:
            arrays = read_arrays(path, self._most_bytes, "tensors")
            try:
                outputs = {name: arrays[f"output{place}"] for place, name in enumerate(self._outputs)}
                tensors = {name: arrays[f"tensor{place}"] for place, name in enumerate(self.tensors)}
            except KeyError as exc:
                raise ArtifactError(
                    f"{path.name}: not the tensors of an engine ({exc}); run the command again"
                ) from exc
            yield outputs, tensors


@contextmanager
def tap_engine(
    engine: EngineFiles, inputs: Iterable[Arrays], tensors: Mapping[str, tuple[int, ...]], executor: Executor
) -> Iterator[TappedRun]:
    """Run an engine with inner tensors as further outputs; the results are there inside the `with` block.

    Args:
        engine: the engine.
        inputs: arrays by name as the engine's own contract has them.
        tensors: name in the ONNX graph -> shape.
        executor: the place that runs it.

    Raises:
        TargetError: the target shows no inner tensors, or the runtime refuses the tapped engine; errors as `Executor.run_job`.
        BoardAnswerError: what comes back is not what was asked for.
    """
    with TemporaryDirectory(prefix="edgekd-tap-") as text:
        files, asked = inputs_of_job(engine, inputs, Path(text))
        arguments: TapArguments = {**asked, "tensors": list(tensors)}
        out = Path(text) / OUT
        value = executor.run_job(Job("tap", engine.target, arguments), files, out, Path(text) / LOG)
        found = set(texts_of(value, "tensors", len(value.get("tensors") or ())))
        written = texts_of(value, "outputs", len(asked["inputs"]))
        shapes = [*tensors.values(), *(tensor.shape for tensor in engine.spec.outputs)]
        yield TappedRun(
            tensors=tuple(name for name in tensors if name in found),
            runtime=mapping_of(value, "runtime"),
            _outputs=tuple(tensor.name for tensor in engine.spec.outputs),
            _files=tuple(out / Path(name).name for name in written),
            _most_bytes=sum(array_bytes(shape, _WIDEST) for shape in shapes),
        )
