"""Sessions of ONNX Runtime on its execution providers; a silent fall-back to another provider is an error.

ONNX Runtime (1.32) falls back in three ways, and says so at most on its console: a provider that cannot start, for a
misspelt option, say, is left out; nodes that a provider does not take go to the CPU; and a run that fails is repeated on
the CPU. Here the first is an error, the second is one unless CPUExecutionProvider is asked for as well, and the third is
switched off.

Source: onnxruntime 1.32, `InferenceSession`, `session.record_ep_graph_assignment_info`; its documentation, "CUDA",
"TensorRT", "OpenVINO", "QNN" and "XNNPACK Execution Provider". CPU and OpenVINO were run, the others were not.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

from edgekd.errors import TargetError, did_you_mean, one_line

CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"
# Options that make a provider compute float operators in float32; most do not by default, or not on every device. The precision of
# providers other than these, the CPU's and XNNPACK's is unknown.
FLOAT32 = {
    "CUDAExecutionProvider": {"use_tf32": "0"},
    "TensorrtExecutionProvider": {"trt_fp16_enable": "False"},
    OPENVINO: {"precision": "FP32"},
    "QNNExecutionProvider": {"enable_htp_fp16_precision": "0"},
}
# TensorRT's TF32 has no option of the provider (microsoft/onnxruntime, issue 26029).
TENSORRT, NO_TF32 = "TensorrtExecutionProvider", "NVIDIA_TF32_OVERRIDE"
_RECORD = "session.record_ep_graph_assignment_info"
Options = Mapping[str, Mapping[str, str]]
Nodes = List[Tuple[str, str, str]]


def with_defaults(providers: Tuple[str, ...], given: Options, threads: int) -> List[Tuple[str, Dict[str, str]]]:
    """Return the providers with their options: float32 and the session's threads, where nothing else is asked for.

    Raises:
        TargetError: options of a provider that is not asked for.
    """
    strangers = sorted(set(given) - set(providers))
    if strangers:
        raise TargetError(
            f"onnxruntime: provider_options for {', '.join(strangers)}, expected options of {', '.join(providers)}"
        )
    found = []
    for name in providers:
        own = dict(given.get(name, {}))
        defaults = dict(FLOAT32.get(name, {}))
        if name == OPENVINO and own.get("device_type", "CPU") == "CPU":
            defaults["num_of_threads"] = str(threads)
        if name == "XnnpackExecutionProvider":
            defaults["intra_op_num_threads"] = str(threads)
        found.append((name, {**defaults, **own}))
    return found


def check_float32(given: Options) -> None:
    """Raise TargetError when the options of an fp32 engine let a provider compute in something else."""
    for name, pins in FLOAT32.items():
        for key, value in pins.items():
            asked = given.get(name, {}).get(key, value)
            if asked.casefold() != value.casefold():
                raise TargetError(f"onnxruntime: precision fp32 contradicts {name} {key}={asked}; leave the option out")


def open_session(runtime: Any, model: Path, settings: Any, providers: List[Tuple[str, Dict[str, str]]]) -> Any:
    """Return an `InferenceSession` that runs on the providers.

    Args:
        runtime: the module onnxruntime.
        model: ONNX file.
        settings: its `SessionOptions`.
        providers: names with their options.

    Raises:
        TargetError: a provider that is absent or does not start, or a model that is refused.
    """
    said, names = f"onnxruntime {runtime.__version__}", tuple(name for name, _ in providers)
    check_available(runtime, names)
    half = dict(providers).get(TENSORRT, {}).get("trt_fp16_enable", "")
    if TENSORRT in names and half.casefold() not in ("true", "1") and os.environ.get(NO_TF32) != "0":
        raise TargetError(f"{model}: {TENSORRT} computes in TF32, not float32; set {NO_TF32}=0 in the environment")
    if {"CUDAExecutionProvider", "TensorrtExecutionProvider"} & set(names) and hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # CUDA's and cuDNN's libraries that pip installed; since 1.21
    if names != (CPU,):
        settings.add_session_config_entry(_RECORD, "1")
    try:
        session = runtime.InferenceSession(str(model), settings, providers=providers, enable_fallback=0)
    except Exception as exc:  # the binding's exceptions have no common base but Exception
        # 1.24 puts a source location and the signature of a C++ function before the reason.
        reason = re.sub(r"/\S+\.cc:\d+ .*?\) ", "", str(exc))
        raise TargetError(f"{model}: {said} refuses it: {one_line(RuntimeError(reason))}") from exc
    session.disable_fallback()
    dropped = [name for name in names if name not in session.get_providers()]
    if dropped:
        raise TargetError(
            f"{model}: {said} could not start {', '.join(dropped)} and fell back to "
            f"{', '.join(session.get_providers())}; see its log, or ask for another provider"
        )
    return session


def check_known(runtime: Any, names: Tuple[str, ...]) -> None:
    """Raise TargetError when a provider is in no build of ONNX Runtime."""
    known = [*runtime.get_all_providers(), *runtime.get_available_providers()]  # the former lacks TensorRT-RTX in 1.32
    for name in names:
        if name not in known:
            raise TargetError(f"onnxruntime: no provider is called {name!r}{did_you_mean(name, known)}")


def check_available(runtime: Any, names: Tuple[str, ...]) -> None:
    """Raise TargetError when a provider is not in this build, or this version does not tell what falls back."""
    said, here = f"onnxruntime {runtime.__version__}", runtime.get_available_providers()
    absent = [name for name in names if name not in here]
    if absent:
        raise TargetError(f"{said} has no provider {', '.join(absent)}; available: {', '.join(here)}")
    if names != (CPU,) and not hasattr(runtime.InferenceSession, "get_provider_graph_assignment_info"):
        raise TargetError(f"{said} does not report which nodes fall back to the CPU; expected 1.24 or later")


def placed(session: Any, providers: Tuple[str, ...]) -> Nodes:
    """Return (provider, node, operator) for each node of the graph; empty when only the CPU was asked for."""
    if providers == (CPU,):
        return []
    parts = session.get_provider_graph_assignment_info()
    return [(part.ep_name, node.name, node.op_type) for part in parts for node in part.get_nodes()]


def strays(nodes: Nodes, providers: Tuple[str, ...]) -> Nodes:
    """Return the nodes that fell back to the CPU: those there unasked, or all when the other providers got none."""
    on_cpu = [node for node in nodes if node[0] == CPU]
    return on_cpu if CPU not in providers or len(on_cpu) == len(nodes) else []


def check_placed(model: Path, nodes: Nodes, providers: Tuple[str, ...]) -> Dict[str, int]:
    """Return how many nodes each provider runs.

    Raises:
        TargetError: nodes fell back to the CPU.
    """
    fallen = strays(nodes, providers)
    if fallen:
        named = ", ".join(f"{kind} {name}" for _, name, kind in fallen[:3])
        todo = "ask for another provider" if CPU in providers else f"add {CPU} to providers to have that, and recorded"
        raise TargetError(
            f"{model}: expected {', '.join(name for name in providers if name != CPU)}, but {len(fallen)} of {len(nodes)} "
            f"nodes would run on the CPU ({named}{', ...' if len(fallen) > 3 else ''}); {todo}"
        )
    return dict(Counter(provider for provider, _, _ in nodes))
