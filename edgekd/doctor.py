"""Examines the machine: installed packages, usable targets, hardware."""

from __future__ import annotations

import importlib
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass

from edgekd.board.installation import install
from edgekd.board.job import Job
from edgekd.board.state_text import described, not_readable
from edgekd.board.sysinfo import Facts
from edgekd.core import plugins
from edgekd.core.machine_facts import package_version
from edgekd.core.recipe import LOCAL
from edgekd.errors import UserError
from edgekd.executors import venvs
from edgekd.executors.boards import ask, ask_why_not, executor_of
from edgekd.executors.doctor import Check
from edgekd.targets.base import Target

# Capability -> (pip extra, import names it needs).
_NEEDS = {
    "train, distill": ("train", ("torch", "torchvision", "lightning", "timm", "segmentation_models_pytorch")),
    "export": ("export", ("onnx", "onnxsim", "onnxscript", "onnxruntime")),
    "evaluate": ("evaluate", ("cv2", "faster_coco_eval")),
    "report page": ("report", ("jinja2", "matplotlib")),
    "study": ("study", ("scipy", "matplotlib")),
    "bundle": ("deploy", ("cyclonedx",)),
}
_LIGHT = {"cv2", "faster_coco_eval", "jinja2", "cyclonedx"}


@dataclass(frozen=True)
class Examination:
    """Checks, state of the machine in words, notes on the hardware, and the machine's environment (JSON-ready).

    state: clocks, temperatures, power mode and other readable state, by name.
    unreadable: sensors that cannot be read, with the reason.
    """

    checks: list[Check]
    state: dict[str, str]
    unreadable: list[str]
    notes: list[str]
    environment: Facts
    version: str | None


def examine() -> Examination:
    """Return checks of this machine; loads no framework but the targets' runtimes."""
    facts = executor_of(LOCAL).facts()
    host = facts["environment"]
    checks = [
        Check("python", True, platform.python_version()),
        Check("processor", True, f"{host.get('cpu_model')}, {host.get('usable_cores')} cores usable"),
    ]
    for name, (extra, modules) in _NEEDS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        text = f"no {', '.join(absent)}: {install(extra)}" if absent else _broken(modules)
        checks.append(Check(name, not text, text or "installed"))
    for name in plugins.names("targets"):
        try:
            target = plugins.target(name)
            text, ok = f"{_version(name, target)}, {', '.join(target.info.precisions)}", True
            if reason := ask_why_not(LOCAL, [(name, None)])[0]:
                text += f"; engines can be built and not run: {reason}"
        except UserError as exc:
            text, ok = str(exc), False
        except Exception as exc:  # noqa: BLE001 - a plugin's own, which must not hide what the others say
            text, ok = f"does not load: {type(exc).__name__}: {exc}", False
        checks.append(Check(f"target {name}", ok, text))
    checks.extend(_on_this_board())
    state = {**described(facts["state"]), **_power_mode(executor_of(LOCAL).identity().use)}
    return Examination(checks, state, not_readable(facts["state"]), _notes(facts), host, package_version("edgekd"))


def _on_this_board() -> Iterator[Check]:
    """Yield a check of the runtime for each target that is compiled elsewhere and whose board this machine is."""
    for name in plugins.names("targets"):
        try:
            found = ask(LOCAL, Job("board_version", name))["board_version"]
        except UserError as exc:
            yield Check(f"runtime {name}", False, str(exc))
        except Exception:  # noqa: BLE001 - it does not load, which the checks of the targets say
            continue
        else:
            if found is not None:
                yield Check(f"runtime {name}", True, found)


def _version(name: str, target: Target) -> str:
    """Return the version of a target's runtime, or of its toolchain, which is in a separate virtualenv."""
    if target.info.compile_at == "toolchain":
        return venvs.find(venvs.lock_of(name), venvs.root_of()).version
    return str(ask(LOCAL, Job("version", name))["runtime_version"])


def _broken(modules: tuple[str, ...]) -> str:
    """Return why one of the light modules, which need libraries of the system, cannot be imported; "" when all can."""
    for name in sorted(_LIGHT & set(modules)):
        try:
            importlib.import_module(name)
        except Exception as exc:  # noqa: BLE001 - a missing library of the system is any of them
            return f"{name} is installed and does not load: {exc}"
    return ""


def _power_mode(use: Facts) -> dict[str, str]:
    """Return the settings of the power mode that can be read, in words."""
    mode = use.get("power_mode") or {}
    known = {name: value for name, value in mode.items() if value not in (None, [])}
    words = (
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in known.items()
    )
    return {"power mode": "; ".join(words)} if known else {}


def _notes(facts: Facts) -> list[str]:
    notes = []
    flags = facts["environment"].get("cpu_flags") or []
    if not any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")):
        notes.append("no int8 dot-product instructions found: int8 engines may be no faster than fp32 here")
    if "avx512_bf16" in flags or "amx_bf16" in flags:
        notes.append(
            "bf16 instructions: training with precision bf16-mixed pays; OpenVINO fp32 engines are pinned to f32"
        )
    if not facts["state"].get("cpufreq"):
        notes.append("clocks and governor cannot be read here: latency is reported without them")
    return notes
