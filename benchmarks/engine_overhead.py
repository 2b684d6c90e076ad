"""edgekd's engine p50 against the runtime's own measure: `benchmark_app` (OpenVINO), a bare `run` loop (ONNX Runtime).

    python benchmarks/engine_overhead.py                        # both targets on a net made here, float32
    python benchmarks/engine_overhead.py RUN/engine/openvino-int8   # an engine artifact of a run

Same file, same threads, same input. The two sides take turns in short rounds; a round gives one ratio of medians and
the result is the median of those ratios, so that a busy machine disturbs both sides alike. Rounds go on until its 95 %
interval lies inside or outside of 3 %, at most `--rounds`. Exits with 1 when it lies outside, or when the machine was too noisy
to decide.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.board import timing
from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from edgekd.executors.boards import open_session
from edgekd.targets.base import CompileRequest, SessionBase

LIMIT = 0.03
SIZE = (256, 320)
# benchmark_app as its entry point starts it, but without the telemetry that importing OpenVINO sends.
BENCHMARK_APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"
)


def main() -> int:
    """Compare every engine asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="*", type=Path, help="engine artifact folders; default: a net made here")
    parser.add_argument("--rounds", type=int, default=60, help="at most")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        opened = [open_session(open_artifact(path, "engine")) for path in arguments.engines] or made_here(Path(folder))
        passed = [compare(session, arguments.rounds, arguments.seconds) for session in opened]
    return 0 if all(passed) else 1


def compare(opened: Any, rounds: int, seconds: float) -> bool:
    """Print the ratios of one engine; return whether their median is within the limit."""
    with opened as session:
        tensor = session.spec.inputs[0]
        rng = np.random.default_rng(0)
        array = rng.integers(0, 256, tensor.shape).astype(np.uint8)
        inputs = {tensor.name: array if tensor.dtype == "uint8" else (array / 255).astype(tensor.dtype)}
        rival = {"openvino": _benchmark_app, "onnxruntime": _bare_loop}[session.runtime["runtime"]]
        pairs: list[tuple[float, float]] = []
        while len(pairs) < rounds and not _is_decided([ours / theirs for ours, theirs in pairs]):
            pairs.append(rival(session, inputs, seconds, is_first=len(pairs) % 2 == 0))
    ratios = [ours / theirs for ours, theirs in pairs]
    middle, (low, high) = statistics.median(ratios), _interval(ratios)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    decided = _is_decided(ratios)
    is_within = decided and abs(middle - 1) <= LIMIT
    verdict = (
        f"within {LIMIT:.0%}" if is_within else f"more than {LIMIT:.0%} off" if decided else "undecided: too noisy"
    )
    print(
        f"{session.runtime['runtime']} {session.runtime['version']}, {session.runtime['threads']} threads: "
        f"edgekd p50 {ours:.3f} ms, {rival.__doc__} p50 {theirs:.3f} ms; ratio {middle:.3f} (95 % {low:.3f} to "
        f"{high:.3f}, {len(ratios)} rounds): {verdict}",
        flush=True,
    )
    return is_within


def _interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median by order statistics."""
    ranked, half = sorted(ratios), 0.98 * math.sqrt(len(ratios))
    low = max(0, math.floor(len(ratios) / 2 - half))
    return ranked[low], ranked[-1 - low]


def _is_decided(ratios: list[float]) -> bool:
    if len(ratios) < 8:
        return False
    low, high = _interval(ratios)
    return (low >= 1 - LIMIT and high <= 1 + LIMIT) or high < 1 - LIMIT or low > 1 + LIMIT


def _benchmark_app(session: Any, inputs: dict[str, np.ndarray], seconds: float, is_first: bool) -> tuple[float, float]:
    """benchmark_app"""
    # Both in a fresh process: one that has run for long is scheduled differently on a busy machine.
    sides = {"ours": _run_edgekd, "theirs": _run_benchmark_app}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/input.npy", inputs[session.spec.inputs[0].name])
        order = sides if is_first else dict(reversed(sides.items()))
        p50 = {name: run(session, Path(folder), seconds) for name, run in order.items()}
    return p50["ours"], p50["theirs"]


def _bare_loop(session: Any, inputs: dict[str, np.ndarray], seconds: float, is_first: bool) -> tuple[float, float]:
    """bare run loop"""
    from edgekd.targets.onnxruntime.target import import_onnxruntime

    runtime = import_onnxruntime()
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = session.runtime["threads"]
    settings.inter_op_num_threads = 1
    bare = runtime.InferenceSession(str(session.engine), settings, providers=session.runtime["providers"])
    functions: dict[str, Callable[[], object]] = {"bare": lambda: bare.run(None, inputs)}
    functions["ours"] = lambda: session.infer(inputs)
    for function in functions.values():
        timing.warm_up(function, max_seconds=0.5)
    p50 = _p50(functions if is_first else dict(reversed(functions.items())), seconds)
    return p50["ours"], p50["bare"]


def _p50(functions: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    series = timing.measure_interleaved(functions, timing.Budget(min_samples=50, min_seconds=seconds))
    return {name: timing.summarize(one.samples_ns)["p50"] for name, one in series.items()}


def _run_edgekd(session: Any, folder: Path, seconds: float) -> float:
    """Return the p50 in ms of our session in a process of its own."""
    job = {
        "engine": str(session.engine),
        "spec": session.spec.to_dict(),
        "options": asdict(session.options),
        "input": f"{folder}/input.npy",
        "seconds": seconds,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return float(_output_of([sys.executable, __file__, "--child", f"{folder}/job.json"]).split()[-1])


def child(job_file: Path) -> None:
    """Print the p50 in ms of the OpenVINO engine that a job describes."""
    from edgekd.targets.openvino import target as openvino

    job = json.loads(job_file.read_text())
    spec = ModelSpec.from_dict(job["spec"])
    inputs = {spec.inputs[0].name: np.load(job["input"])}
    with openvino.Session(Path(job["engine"]), spec, openvino.Options(**job["options"])) as session:
        session.infer(inputs)  # benchmark_app's warm-up
        print(_p50({"ours": lambda: session.infer(inputs)}, job["seconds"])["ours"])


def _run_benchmark_app(session: Any, folder: Path, seconds: float) -> float:
    """Return benchmark_app's median in ms, with the properties that our session was compiled with."""
    element = {"float32": "f32", "uint8": "u8"}
    taken, given = session.spec.inputs[0], session.spec.outputs[0]
    properties = {
        "PERFORMANCE_HINT": session.runtime["performance_hint"],
        "EXECUTION_MODE_HINT": session.runtime["execution_mode_hint"],
        "INFERENCE_PRECISION_HINT": session.runtime["inference_precision"],
        "INFERENCE_NUM_THREADS": str(session.runtime["threads"]),
    }
    (folder / "properties.json").write_text(json.dumps({session.runtime["device"]: properties}))
    command = [sys.executable, "-c", BENCHMARK_APP, "-m", str(session.engine), "-d", session.runtime["device"]]
    command += ["-api", "sync", "-t", str(max(1, round(seconds))), "-i", f"{taken.name}:{folder}/input.npy"]
    command += ["-ip", element[taken.dtype], "-op", element[given.dtype], "-load_config", f"{folder}/properties.json"]
    command += ["-json_stats", "-report_type", "no_counters", "-report_folder", str(folder)]
    _output_of(command)
    report = json.loads((folder / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"])  # the median, by -latency_percentile's default


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def made_here(folder: Path) -> list[SessionBase]:
    """Return unopened fp32 sessions of all targets on a residual net with random weights."""
    import onnx

    model, spec = residual_net(), contract()
    onnx.save(model, folder / "model.onnx")
    sessions = []
    for name in plugins.names("targets"):
        target = plugins.target(name)
        out = folder / name
        out.mkdir()
        built = target.build_engine(CompileRequest(folder / "model.onnx", spec, "fp32", out, target.options()))
        sessions.append(target.session(built.engine, built.spec, target.options()))
    return sessions


def contract() -> ModelSpec:
    """Return the contract of `residual_net`."""
    return ModelSpec(
        task="semantic",
        classes=tuple("abcdef"),
        ignore_index=255,
        inputs=(TensorSpec("image", "float32", (1, 3, *SIZE), "image"),),
        outputs=(TensorSpec("logits", "float32", (1, 6, SIZE[0] // 4, SIZE[1] // 4), "logits"),),
        preprocess=Preprocess(SIZE),
    )


def residual_net(width: int = 32, blocks: int = 3) -> Any:
    """Return a segmenter of residual blocks with random weights (an `onnx.ModelProto`)."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def conv(source: str, name: str, into: int, out: int, stride: int = 1) -> str:
        value = (rng.standard_normal((out, into, 3, 3)) * np.sqrt(2 / (into * 9))).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"{name}.weight"))
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight"], [name], strides=[stride] * 2, pads=[1] * 4))
        return name

    def relu(source: str) -> str:
        nodes.append(helper.make_node("Relu", [source], [f"{source}.relu"]))
        return f"{source}.relu"

    x = relu(conv(relu(conv("image", "stem.a", 3, width, 2)), "stem.b", width, width, 2))
    for i in range(blocks):
        y = conv(relu(conv(x, f"block{i}.a", width, width)), f"block{i}.b", width, width)
        nodes.append(helper.make_node("Add", [x, y], [f"block{i}"]))
        x = relu(f"block{i}")
    conv(x, "logits", width, 6)
    spec = contract()
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, spec.inputs[0].shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, spec.outputs[0].shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


if __name__ == "__main__":
    sys.exit(main())
