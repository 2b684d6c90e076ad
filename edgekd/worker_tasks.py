"""The tasks of a job: compile, probe, run and measure engines, predict images, report versions and machine facts.

A task takes a `Job` and returns JSON. It finds the files that the job reads under the names in `job.files`, and writes into
`job.out_dir`. It runs in this process, in a child of it, in a vendor virtualenv or on a board.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import importlib
import itertools
import logging
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union, cast

import numpy as np

from edgekd.board import machine
from edgekd.board.arguments import (
    AskedEngine,
    CompileArguments,
    DuelArguments,
    FactsArguments,
    FootprintArguments,
    InferArguments,
    MeasureArguments,
    MeasuredEngine,
    PredictArguments,
    ProbeArguments,
    TapArguments,
    WhyNotHereArguments,
)
from edgekd.board.bench import BenchResult, BenchRow, BenchSettings, bench, engine_time
from edgekd.board.bench_files import save
from edgekd.board.detection import Selection
from edgekd.board.duel import duel
from edgekd.board.files import replacing
from edgekd.board.footprint import footprint as measured_footprint
from edgekd.board.footprint import footprint_in_child
from edgekd.board.job import Job, Json, Progress
from edgekd.board.long_runs import LongRunSettings, long_run_rows
from edgekd.board.postprocess import Predictor
from edgekd.board.prediction_files import load_images, save_results
from edgekd.board.preprocess import prepare
from edgekd.board.session import Session
from edgekd.board.specs import ModelSpec
from edgekd.board.state import snapshot
from edgekd.errors import EdgekdError, TargetError, one_line
from edgekd.release import tasks as releases
from edgekd.targets.base import CompileRequest, SessionBase, Target, options_of, target_of

log = logging.getLogger(__name__)


def compile_engine(job: Job, progress: Progress) -> Json:
    """Build an engine into the job's folder, with `CompileArguments`.

    Value: `engine` (path in the folder), `spec`, `details`, `runtime_version`.
    """
    target, given, out_dir = target_of(job.module), cast(CompileArguments, job.arguments), Path(job.out_dir)
    request = CompileRequest(
        model=Path(job.files[given["model"]]),
        spec=ModelSpec.from_dict(given["spec"]),
        precision=given["precision"],
        out_dir=out_dir,
        options=options_of(target, given["options"]),
        calibration=Path(job.files[given["calibration"]]) if given["calibration"] else None,
    )
    result = target.build_engine(request)
    return {
        "engine": Path(result.engine).relative_to(out_dir).as_posix(),
        "spec": result.spec.to_dict(),
        "details": result.details,
        "runtime_version": target.runtime_version(),
    }


def infer(job: Job, progress: Progress) -> Json:
    """Run an engine over files of inputs, .npz with arrays by tensor name, with `InferArguments`.

    Value: `runtime` (the session's facts) and `outputs`, for each input the path of an .npz in the job's folder.
    """
    target, given = target_of(job.module), cast(InferArguments, job.arguments)
    opener = target.simulator if given["is_simulated"] else target.session
    if opener is None:
        raise TargetError(f"{job.target}: has no simulator; run the engine on its chip")
    written: List[str] = []
    with opener(Path(job.files[given["engine"]]), *_contract(target, given)) as session:
        for name in given["inputs"]:
            with np.load(job.files[name], allow_pickle=False) as archive:
                arrays = {key: np.ascontiguousarray(archive[key]) for key in archive.files}
            written.append(f"{len(written):05}.npz")
            _write_arrays(Path(job.out_dir) / written[-1], session.infer(arrays))
            progress("running", len(written) / len(given["inputs"]))
        return {"runtime": session.runtime, "outputs": written}


def tap(job: Job, progress: Progress) -> Json:
    """Run an engine over files of inputs and write its outputs and inner tensors, with `TapArguments`.

    Value: `runtime`, `tensors` (the names that the engine has), and `outputs`, for each input the path of an .npz in the job's
    folder: arrays `output0`, `output1`, ... in the contract's order, `tensor0`, ... in the order of `tensors`.
    """
    target, given = target_of(job.module), cast(TapArguments, job.arguments)
    if target.tap is None:
        raise TargetError(f"{job.target}: shows no inner tensors of its engines")
    written: List[str] = []
    with target.tap(Path(job.files[given["engine"]]), *_contract(target, given), given["tensors"]) as session:
        names = {f"output{place}": tensor.name for place, tensor in enumerate(session.spec.outputs)}
        names.update((f"tensor{place}", name) for place, name in enumerate(session.tensors))
        for name in given["inputs"]:
            with np.load(job.files[name], allow_pickle=False) as archive:
                arrays = {key: np.ascontiguousarray(archive[key]) for key in archive.files}
            found = session.infer(arrays)
            written.append(f"{len(written):05}.npz")
            _write_arrays(Path(job.out_dir) / written[-1], {key: found[tensor] for key, tensor in names.items()})
            progress("running", len(written) / len(given["inputs"]))
        return {"runtime": session.runtime, "tensors": list(session.tensors), "outputs": written}


def predict(job: Job, progress: Progress) -> Json:
    """Run an engine with its pre- and post-processing over files of images, with `PredictArguments`.

    Value: `runtime` (the session's facts) and `results`, for each file the path of one in the job's folder.
    """
    target, given = target_of(job.module), cast(PredictArguments, job.arguments)
    selection = None if given["selection"] is None else Selection(**given["selection"])
    written: List[str] = []
    with target.session(Path(job.files[given["engine"]]), *_contract(target, given)) as session:
        predictor = Predictor(session, selection)
        for name in given["images"]:
            results = [predictor(image) for image in load_images(Path(job.files[name]))]
            written.append(f"{len(written):05}.npz")
            save_results(Path(job.out_dir) / written[-1], results)
            progress("predicting", len(written) / len(given["images"]))
        return {"runtime": session.runtime, "results": written}


def measure(job: Job, progress: Progress) -> Json:
    """Measure engines in one interleaved run and write the bench's files into the job's folder, with `MeasureArguments`.

    Value: `rows`, keys of report.json by row id; `failures`, by id why an engine was not measured, on one line; `state`,
    the machine's (`Snapshot`) `before` and `after` the bench.
    """
    given = cast(MeasureArguments, job.arguments)
    images = [np.load(job.files[name], allow_pickle=False) for name in given["images"]]
    with ExitStack() as stack:
        sessions, failures = _open_all(stack, job, given["engines"], images[0])
        results = bench(sessions, images, BenchSettings(**given["settings"]), progress, _decoder(job))
        alone = {name: engine_time(session, images) for name, session in sessions.items()}
        longer = long_run_rows(alone, LongRunSettings(**given["long_runs"]), Path(job.out_dir), progress)
    results = {name: _with_footprint(result, job, given["engines"][name]) for name, result in results.items()}
    save(results, Path(job.out_dir))
    rows = {name: _with_long_run(result.row(), longer.get(name, {})) for name, result in results.items()}
    state = next({"before": result.before, "after": result.after} for result in results.values())
    return {"rows": rows, "failures": failures, "state": state}


def compare_engines(job: Job, progress: Progress) -> Json:
    """Compare engines with the first one, with `DuelArguments`.

    Value: `sides`, a `Side` by name; `failures`, by name why an engine did not run; `state`, the machine's (`Snapshot`) `before`
    and `after`. The first engine fails the job.
    """
    given = cast(DuelArguments, job.arguments)
    images = [np.load(job.files[name], allow_pickle=False) for name in given["images"]]
    with ExitStack() as stack:
        sessions, failures = _open_all(stack, job, given["engines"], images[0])
        first = next(iter(given["engines"]))
        if first in failures:
            raise TargetError(f"{first}: {failures[first]}")
        before = snapshot()
        sides = duel(sessions, images, given["rounds"], given["seed"], progress)
    rows = {name: asdict(side) for name, side in sides.items()}
    return {"sides": rows, "failures": failures, "state": {"before": before, "after": snapshot()}}


def choices(job: Job, progress: Progress) -> Json:
    """Return as `choices` the settings to tune for the target's engines on this machine (`Choice`); () without any."""
    target = target_of(job.module)
    return {"choices": [asdict(choice) for choice in (target.tunes() if target.tunes else ())]}


def footprint(job: Job, progress: Progress) -> Json:
    """Load an engine and run it in this process, with `FootprintArguments`; the value is a `Footprint`."""
    given = cast(FootprintArguments, job.arguments)
    target_of(given["engine"]["module"]).runtime_version()  # imports the runtime
    image = np.load(job.files[given["image"]], allow_pickle=False)
    return asdict(measured_footprint(_opened(job.files, given["engine"]), image))


def _open_all(
    stack: ExitStack, job: Job, engines: Mapping[str, MeasuredEngine], image: np.ndarray
) -> Tuple[Dict[str, Session], Dict[str, str]]:
    """Open engines and run each once; return the sessions, and by name why an engine has none. TargetError when none has."""
    sessions: Dict[str, Session] = {}
    failures: Dict[str, str] = {}
    for name, engine in engines.items():
        try:
            sessions[name] = stack.enter_context(_opened(job.files, engine))
            _try_out(sessions[name], image)
        except Exception as exc:
            sessions.pop(name, None)
            is_refusal = isinstance(exc, EdgekdError)
            failures[name] = one_line(exc, None) if is_refusal else f"{type(exc).__name__}: {one_line(exc)}"
            log.log(logging.DEBUG if is_refusal else logging.ERROR, "%s is not measured", name, exc_info=True)
    if not sessions:
        raise TargetError("; ".join(f"{name}: {why}" for name, why in failures.items()))
    return sessions, failures


def probe(job: Job, progress: Progress) -> Json:
    """Ask the toolchain which nodes of a model it takes, with `ProbeArguments`; the value is a `Probe`."""
    target, given = target_of(job.module), cast(ProbeArguments, job.arguments)
    if target.probe is None:
        raise TargetError(f"{job.target}: cannot be asked about a model")
    return asdict(target.probe(Path(job.files[given["model"]]), options_of(target, given["options"])))


def version(job: Job, progress: Progress) -> Json:
    """Return the version of the target's runtime as `runtime_version`."""
    return {"runtime_version": target_of(job.module).runtime_version()}


def board_version(job: Job, progress: Progress) -> Json:
    """Return as `board_version` the version of the runtime that runs the target's engines here, None if none is needed.

    None also where this machine cannot run them.
    """
    target = target_of(job.module)
    if target.board_version is None or target.why_not_here(None):
        return {"board_version": None}
    return {"board_version": target.board_version()}


def why_not_here(job: Job, progress: Progress) -> Json:
    """Return as `reasons` why this machine cannot run each of the engines, "" where it can, with `WhyNotHereArguments`."""
    given = cast(WhyNotHereArguments, job.arguments)
    return {"reasons": [_why_not(engine, given["needs_runtime"]) for engine in given["engines"]]}


def _why_not(engine: AskedEngine, needs_runtime: bool) -> str:
    target, options = target_of(engine["module"]), engine["options"]
    reason = target.why_not_here(None if options is None else options_of(target, options))
    is_known = any(machine.package_version(name) for name in target.info.distributions)
    if reason or is_known or not needs_runtime:  # runtimes take seconds to import, so their metadata are enough
        return reason
    try:
        (target.board_version or target.runtime_version)()
    except TargetError as exc:
        return one_line(exc, None)
    return ""


def facts(job: Job, progress: Progress) -> Json:
    """Return the machine, with `FactsArguments`: `identity` (`MachineIdentity`) and `facts` (`MachineFacts`)."""
    targets = []
    for module in cast(FactsArguments, job.arguments)["modules"]:
        try:
            targets.append(target_of(module))
        except ImportError as exc:  # a target of another package, or one that needs a package at import
            log.info("%s: its facts are left out: %s", module, exc)
    return {"identity": machine.identity(targets), "facts": machine.machine_facts(targets)}


TASKS: Dict[str, Callable[[Job, Progress], Json]] = {
    "board_version": board_version,
    "choices": choices,
    "compile": compile_engine,
    "duel": compare_engines,
    "facts": facts,
    "footprint": footprint,
    "infer": infer,
    "install": releases.install,
    "measure": measure,
    "predict": predict,
    "probe": probe,
    "releases": releases.list_releases,
    "remove_releases": releases.remove,
    "roll_back": releases.roll_back,
    "tap": tap,
    "version": version,
    "why_not_here": why_not_here,
}


def _opened(files: Mapping[str, str], engine: MeasuredEngine) -> SessionBase:
    target = target_of(engine["module"])
    return target.session(Path(files[engine["engine"]]), *_contract(target, engine))


def _contract(
    target: Target, given: Union[InferArguments, TapArguments, PredictArguments, MeasuredEngine]
) -> Tuple[ModelSpec, Any]:
    return ModelSpec.from_dict(given["spec"]), options_of(target, given["options"])


def _decoder(job: Job) -> Optional[Callable[[], object]]:
    """Return the function that reads the next of the image files; None where the job has none."""
    given = cast(MeasureArguments, job.arguments).get("decode")
    if given is None:
        return None
    module, _, name = given["function"].partition(":")
    read, paths = (
        getattr(importlib.import_module(module), name),
        itertools.cycle([job.files[n] for n in given["images"]]),
    )
    return lambda: read(next(paths))


def _with_footprint(result: BenchResult, job: Job, engine: MeasuredEngine) -> BenchResult:
    """Add the footprint, or a warning that says why there is none."""
    arguments: FootprintArguments = {"engine": engine, "image": cast(MeasureArguments, job.arguments)["images"][0]}
    try:
        return replace(result, footprint=footprint_in_child(Job("footprint", "", arguments, files=job.files)))
    except TargetError as exc:
        return replace(
            result, warnings=(*result.warnings, f"load time and memory are not measured: {one_line(exc, None)}")
        )


def _with_long_run(row: BenchRow, longer: Json) -> Json:
    """Add the results of the long runs; their warnings follow those of the bench."""
    return {**row, **longer, "warnings": [*row["warnings"], *longer.get("warnings", [])]}


def _try_out(session: Session, image: np.ndarray) -> None:
    """Run once, so that an engine that opens but does not run fails without the others."""
    session.infer({session.spec.inputs[0].name: prepare(image, session.spec.preprocess)})


def _write_arrays(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Write an .npz atomically."""
    with replacing(path) as temporary, open(str(temporary), "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # keys never shadow its flags
