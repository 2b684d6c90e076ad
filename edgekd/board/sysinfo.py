"""Facts of a machine (`environment`) and its state (`snapshot`): read-only, absent values are None.

Every reader takes the file system's `root`, so that tests and remote copies can be read too. A value that cannot be
read (absent file, EIO, EAGAIN, no permission, negative reading) is None; `unreadable` says why. Nothing is written and
nothing needs privileges.

Portable: standard library only, Python 3.8. Source of paths and units: Linux Documentation/ABI/*/sysfs-*.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, TypedDict

# The instruction sets that decide how fast int8, bf16 and fp16 networks run; x86 names, then ARM names.
_FLAGS = "avx2 avx512f avx512_vnni avx_vnni avx_vnni_int8 avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 f16c fma"
_FLAGS += " asimd asimdhp asimddp i8mm bf16 sve sve2"
KNOWN_FLAGS = tuple(_FLAGS.split())
Facts = Dict[str, Any]  # JSON: facts of a machine, a runtime or a build, which files keep and nothing computes with


class CpuPolicy(TypedDict):
    """Clocks of the CPUs that change them together."""

    policy: str
    cpus: Optional[str]
    cur_khz: Optional[int]
    min_khz: Optional[int]
    max_khz: Optional[int]
    hardware_max_khz: Optional[int]
    governor: Optional[str]
    driver: Optional[str]


class ThermalZone(TypedDict):
    """Temperature of one sensor."""

    name: Optional[str]
    temp_c: Optional[float]


class Snapshot(TypedDict):
    """State that latency depends on (JSON).

    cpufreq: one entry per policy. `cur_khz` is often the requested clock, not the real one.
    throttle_counts: by counter file, summed over CPUs.
    cooling_active: names of the cooling devices that are on.
    load_average: of 1, 5 and 15 minutes.
    unreadable: key -> reason.
    """

    cpufreq: Optional[List[CpuPolicy]]
    turbo: Optional[bool]
    thermal_zones: Optional[List[ThermalZone]]
    throttle_counts: Optional[Dict[str, int]]
    cooling_active: Optional[List[str]]
    load_average: Optional[List[float]]
    unreadable: Dict[str, str]


def environment(root: str = "/") -> Facts:
    """Return the facts that do not change while the machine runs.

    Keys: cpu_model, cpu_flags (those of KNOWN_FLAGS that it has), logical_cores, usable_cores, affinity (CPU numbers),
    cpu_quota (cores, from the control group), memory_bytes, os, kernel, machine, python, board_model (device tree),
    virtualized (True, False, or None where it cannot be told).
    """
    base = Path(root)
    cpuinfo = _text(base / "proc/cpuinfo") or ""
    return {
        "cpu_model": _cpu_model(base, cpuinfo),
        "cpu_flags": _cpu_flags(cpuinfo),
        "logical_cores": os.cpu_count() if root == "/" else len(re.findall(r"^processor\s*:", cpuinfo, re.M)) or None,
        "usable_cores": usable_cores(root),
        "affinity": _affinity(),
        "cpu_quota": _cpu_quota(base),
        "memory_bytes": _memory_bytes(base),
        "os": _os_name(base),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "board_model": _board_model(base),
        "virtualized": _is_virtualized(base, cpuinfo),
    }


def snapshot(root: str = "/") -> Snapshot:
    """Return the state that latency depends on, at this moment."""
    base = Path(root)
    state: Snapshot = {
        "cpufreq": _cpufreq(base),
        "turbo": _turbo(base),
        "thermal_zones": _thermal_zones(base),
        "throttle_counts": _throttle_counts(base),
        "cooling_active": _cooling_active(base),
        "load_average": _load_average(base),
        "unreadable": {},
    }
    where = {
        "cpufreq": "sys/devices/system/cpu/cpufreq/policy*",
        "turbo": "sys/devices/system/cpu/{intel_pstate/no_turbo,cpufreq/boost}",
        "thermal_zones": "sys/class/thermal/thermal_zone*",
        "throttle_counts": "sys/devices/system/cpu/cpu*/thermal_throttle",
        "cooling_active": "sys/class/thermal/cooling_device*",
        "load_average": "proc/loadavg",
    }
    state["unreadable"] = {
        key: f"nothing readable at {root.rstrip('/')}/{path}" for key, path in where.items() if state.get(key) is None
    }
    return state


def power_mode(root: str = "/") -> Facts:
    """Return the settings that a person makes before measuring.

    Keys: governors (of the CPU's policies and of other clocks, an NPU's or GPU's), raised (per policy, whether its lowest
    clock is above the processor's own), turbo (bool).
    Clocks themselves are left out: heat lowers the highest, and the lowest with it.
    """
    base = Path(root)
    policies = _folders(base, "sys/devices/system/cpu/cpufreq/policy*")
    limits = [[_number(folder / f"{name}_min_freq") for name in ("scaling", "cpuinfo")] for folder in policies]
    others = _folders(base, "sys/class/devfreq/*")
    return {
        "governors": [
            *(_text(folder / "scaling_governor") for folder in policies),
            *(_text(folder / "governor") for folder in others),
        ],
        "raised": [lowest is not None and own is not None and lowest > own for lowest, own in limits],
        "turbo": _turbo(base),
    }


def usable_cores(root: str = "/") -> int:
    """Return the physical cores that this process may use: affinity, siblings counted once, control-group quota."""
    base = Path(root)
    cores: Set[str] = set()
    for cpu in _affinity() or list(range(os.cpu_count() or 1)):
        topology = base / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # Not core_id: since Linux 6.0 it begins anew in each cluster of an ARM chip (drivers/base/arch_topology.c).
        siblings = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list")
        cores.add(siblings or str(cpu))  # without topology every CPU counts as a core
    quota = _cpu_quota(base)
    return max(1, min(len(cores), int(quota)) if quota is not None else len(cores))


def is_hybrid(root: str = "/") -> bool:
    """Return whether an Intel processor has both performance and efficiency cores, of which Linux makes two counters' devices.

    Source: Linux, tools/perf/Documentation/intel-hybrid.txt.
    """
    devices = Path(root) / "sys/bus/event_source/devices"
    return (devices / "cpu_core").exists() and (devices / "cpu_atom").exists()


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:  # absent, EIO, EAGAIN, EACCES: sensors give all of them
        return None


def _number(path: Path) -> Optional[int]:
    """Return a whole number from a file; None when unreadable or negative (a sensor's way to say invalid)."""
    text = _text(path)
    if text is None or not text.isdigit():
        return None
    return int(text)


def _folders(base: Path, pattern: str) -> List[Path]:
    found = glob.glob(str(base / pattern))
    return [Path(p) for p in sorted(found, key=lambda p: [int(n) for n in re.findall(r"\d+", Path(p).name)])]


def _affinity() -> Optional[List[int]]:
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    return sorted(os.sched_getaffinity(0))


def _cpu_quota(base: Path) -> Optional[float]:
    """Return the cores' worth of time that the control groups of v1 and v2 allow; None when unlimited or unknown.

    The tightest of the process's own group and those around it counts; in a container its own is the root.
    """
    own = _text(base / "proc/self/cgroup") or ""
    texts = [_text(group / "cpu.max") for group in _groups(base / "sys/fs/cgroup", r"^0::(/.*)$", own)]
    for group in _groups(base / "sys/fs/cgroup/cpu", r"^\d+:(?:[^:\n]*,)?cpu(?:,[^:\n]*)?:(/.*)$", own):
        texts.append(" ".join(_text(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")))
    limits = [match.groups() for match in (re.fullmatch(r"(\d+) (\d+)", text or "") for text in texts) if match]
    return min((int(quota) / int(period) for quota, period in limits if int(period)), default=None)


def _groups(root: Path, line: str, own: str) -> List[Path]:
    """Return a hierarchy's root and the groups down to the process's own, whose path a line of `/proc/self/cgroup` has."""
    found = re.search(line, own, re.M)
    groups = [root]
    for name in found.group(1).split("/") if found else ():
        groups.append(groups[-1] / name)
    return groups


def _cpu_model(base: Path, cpuinfo: str) -> Optional[str]:
    for key in ("model name", "Model", "Hardware"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", cpuinfo, re.M)
        if match:
            return match.group(1).strip()
    return _board_model(base)


def _cpu_flags(cpuinfo: str) -> Optional[List[str]]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M)
    if match is None:
        return None
    present = set(match.group(1).split())
    return [flag for flag in KNOWN_FLAGS if flag in present]


def _memory_bytes(base: Path) -> Optional[int]:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _text(base / "proc/meminfo") or "", re.M)
    return int(match.group(1)) * 1024 if match else None


def _os_name(base: Path) -> Optional[str]:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', _text(base / "etc/os-release") or "", re.M)
    return match.group(1) if match else sys.platform


def _board_model(base: Path) -> Optional[str]:
    for path in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        text = _text(base / path)
        if text:
            return text
    return None


def _is_virtualized(base: Path, cpuinfo: str) -> Optional[bool]:
    """x86 CPUs show the `hypervisor` flag; elsewhere only the DMI vendor or /sys/hypervisor can tell."""
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.M) or _text(base / "sys/hypervisor/type"):
        return True
    vendor = _text(base / "sys/class/dmi/id/sys_vendor")
    if vendor is not None and re.search(r"QEMU|KVM|VMware|Xen|innotek|Amazon EC2|Google", vendor):
        return True
    return False if re.search(r"^flags\s*:", cpuinfo, re.M) else None


def _cpufreq(base: Path) -> Optional[List[CpuPolicy]]:
    policies: List[CpuPolicy] = []
    for folder in _folders(base, "sys/devices/system/cpu/cpufreq/policy*"):
        policies.append(
            {
                "policy": folder.name,
                "cpus": _text(folder / "affected_cpus"),
                "cur_khz": _number(folder / "scaling_cur_freq"),
                "min_khz": _number(folder / "scaling_min_freq"),
                "max_khz": _number(folder / "scaling_max_freq"),
                "hardware_max_khz": _number(folder / "cpuinfo_max_freq"),
                "governor": _text(folder / "scaling_governor"),
                "driver": _text(folder / "scaling_driver"),
            }
        )
    return policies or None


def _turbo(base: Path) -> Optional[bool]:
    off = _number(base / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if off is not None:
        return off == 0
    on = _number(base / "sys/devices/system/cpu/cpufreq/boost")
    return None if on is None else on == 1


def _thermal_zones(base: Path) -> Optional[List[ThermalZone]]:
    zones: List[ThermalZone] = []
    for folder in _folders(base, "sys/class/thermal/thermal_zone*"):
        milli = _number(folder / "temp")
        zones.append({"name": _text(folder / "type"), "temp_c": None if milli is None else milli / 1000})
    return zones or None


def _throttle_counts(base: Path) -> Optional[Dict[str, int]]:
    counts: Dict[str, int] = {}
    for name in ("core_throttle_count", "package_throttle_count"):
        values = [
            _number(Path(path))
            for path in glob.glob(str(base / f"sys/devices/system/cpu/cpu*/thermal_throttle/{name}"))
        ]
        read = [value for value in values if value is not None]
        if read:
            counts[name] = sum(read)
    return counts or None


def _cooling_active(base: Path) -> Optional[List[str]]:
    folders = _folders(base, "sys/class/thermal/cooling_device*")
    if not folders:
        return None
    return [_text(f / "type") or f.name for f in folders if (_number(f / "cur_state") or 0) > 0]


def _load_average(base: Path) -> Optional[List[float]]:
    text = _text(base / "proc/loadavg")
    return [float(x) for x in text.split()[:3]] if text else None
