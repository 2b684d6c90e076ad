"""State of a machine that latency depends on (`snapshot`): clocks, temperatures, power, load, memory, at this moment.

Every reader takes the file system's `root`, so that recordings can be read too. A value that cannot be read is None, and
`unreadable` says why. Nothing is written and nothing needs privileges.

Portable: standard library only, Python 3.8. Source of paths and units: Linux Documentation/ABI/*/sysfs-*, and
`sensors/table.json`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Dict, List, Optional, Tuple, TypedDict

from edgekd.board.sensors.discovery import Sensors
from edgekd.board.sensors.table import table
from edgekd.board.sysinfo import turbo
from edgekd.board.system_files import glob_paths, read_number, read_text

# Seconds over which other processes are watched, and the share of a core that makes one busy.
_WATCHED_SECONDS, _BUSY = 0.2, 0.1


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


class OtherClock(TypedDict):
    """Clock of a GPU, an NPU or a memory. `cur_hz` is 0 while it is off."""

    name: str
    cur_hz: Optional[int]
    min_hz: Optional[int]
    max_hz: Optional[int]
    governor: Optional[str]


class TripPoint(TypedDict):
    """Temperature at which the kernel acts: `passive` lowers clocks, `active` turns a fan on, `critical` shuts down."""

    zone: Optional[str]
    kind: str
    temp_c: float


class BusyProcess(TypedDict):
    """Another process that computes; `cores` is the processor time that it takes."""

    name: str
    cores: float


class Snapshot(TypedDict):
    """State that latency depends on (JSON).

    cpufreq: one entry per policy. `cur_khz` is often the requested clock, not the real one.
    devfreq: other clocks.
    clocks_locked: whether lowest and highest clock agree for every CPU, GPU, NPU and memory clock that can be read.
    unlocked: clocks that may change, in words.
    throttle_counts: by counter file, summed over CPUs.
    cooling_active: names of the cooling devices that are on.
    trip_points: temperatures at which the kernel acts.
    load_average: of 1, 5 and 15 minutes.
    busy_processes: other processes that take at least a tenth of a core.
    available_bytes, swap_used_bytes: memory that processes can still get; swapped out, also to compressed memory (zram).
    free_disk_bytes: on the disk of `root`.
    boot_id, uptime_s: another id means that the machine was started again.
    readings: quantity/name -> value of every sensor, see `sensors/sources.py`.
    unreadable: key or sensor -> reason.
    """

    cpufreq: Optional[List[CpuPolicy]]
    devfreq: Optional[List[OtherClock]]
    clocks_locked: Optional[bool]
    unlocked: List[str]
    turbo: Optional[bool]
    throttle_counts: Optional[Dict[str, int]]
    cooling_active: Optional[List[str]]
    trip_points: Optional[List[TripPoint]]
    load_average: Optional[List[float]]
    busy_processes: Optional[List[BusyProcess]]
    available_bytes: Optional[int]
    swap_used_bytes: Optional[int]
    free_disk_bytes: Optional[int]
    boot_id: Optional[str]
    uptime_s: Optional[float]
    readings: Dict[str, Optional[float]]
    unreadable: Dict[str, str]


_PLACES = {
    "cpufreq": "sys/devices/system/cpu/cpufreq/policy*",
    "devfreq": "sys/class/devfreq/*",
    "turbo": "sys/devices/system/cpu/{intel_pstate/no_turbo,cpufreq/boost}",
    "throttle_counts": "sys/devices/system/cpu/cpu*/thermal_throttle",
    "cooling_active": "sys/class/thermal/cooling_device*",
    "trip_points": "sys/class/thermal/thermal_zone*/trip_point_*",
    "load_average": "proc/loadavg",
    "busy_processes": "proc/*/stat",
    "available_bytes": "proc/meminfo",
    "swap_used_bytes": "proc/meminfo",
    "boot_id": "proc/sys/kernel/random/boot_id",
    "uptime_s": "proc/uptime",
}


def snapshot(root: str = "/") -> Snapshot:
    """Return the state that latency depends on, at this moment; takes 0.2 s, in which other processes are watched."""
    base = Path(root)
    policies, others = _cpufreq(base), _devfreq(base)
    unlocked, is_locked = _unlocked(base, policies, others)
    uptime = re.match(r"[\d.]+", read_text(base / "proc/uptime") or "")
    with Sensors(root) as sensors:
        readings, unreadable = sensors.read(), dict(sensors.unreadable)
    state: Snapshot = {
        "cpufreq": policies,
        "devfreq": others,
        "clocks_locked": is_locked,
        "unlocked": unlocked,
        "turbo": turbo(root),
        "throttle_counts": _throttle_counts(base),
        "cooling_active": _cooling_active(base),
        "trip_points": _trip_points(base),
        "load_average": _load_average(base),
        "busy_processes": _busy_processes(base),
        "available_bytes": _memory(base, "MemAvailable"),
        "swap_used_bytes": _swap_used(base),
        "free_disk_bytes": shutil.disk_usage(root).free,
        "boot_id": read_text(base / _PLACES["boot_id"]),
        "uptime_s": float(uptime.group()) if uptime else None,
        "readings": readings,
        "unreadable": unreadable,
    }
    for key, path in _PLACES.items():
        if state.get(key) is None:
            unreadable[key] = f"nothing readable at {root.rstrip('/')}/{path}"
    return state


def _cpufreq(base: Path) -> Optional[List[CpuPolicy]]:
    policies: List[CpuPolicy] = []
    for folder in glob_paths(base, _PLACES["cpufreq"]):
        policies.append(
            {
                "policy": folder.name,
                "cpus": read_text(folder / "affected_cpus"),
                "cur_khz": read_number(folder / "scaling_cur_freq"),
                "min_khz": read_number(folder / "scaling_min_freq"),
                "max_khz": read_number(folder / "scaling_max_freq"),
                "hardware_max_khz": read_number(folder / "cpuinfo_max_freq"),
                "governor": read_text(folder / "scaling_governor"),
                "driver": read_text(folder / "scaling_driver"),
            }
        )
    return policies or None


def _devfreq(base: Path) -> Optional[List[OtherClock]]:
    clocks: List[OtherClock] = []
    for folder in glob_paths(base, _PLACES["devfreq"]):
        clocks.append(
            {
                "name": read_text(folder / "device/of_node/name") or folder.name,
                "cur_hz": read_number(folder / "cur_freq"),
                "min_hz": read_number(folder / "min_freq"),
                "max_hz": read_number(folder / "max_freq"),
                "governor": read_text(folder / "governor"),
            }
        )
    return clocks or None


def _unlocked(
    base: Path, policies: Optional[List[CpuPolicy]], others: Optional[List[OtherClock]]
) -> Tuple[List[str], Optional[bool]]:
    """Return the clocks that may change, and whether there are none; None where no clock can be read."""
    ranges = [(one["policy"], one["min_khz"], one["max_khz"], 1e3) for one in policies or ()]
    ranges += [
        (one["name"], one["min_hz"], one["max_hz"], 1e6)
        for one in others or ()
        if re.search(table().locked, one["name"])
    ]
    memory = base / "sys/kernel/debug/bpmp/debug/clk/emc"  # root only; jetson_clocks holds it at its highest clock
    ranges.append(("emc", read_number(memory / "rate"), read_number(memory / "max_rate"), 1e6))
    known = [(name, low, high, unit) for name, low, high, unit in ranges if low is not None and high is not None]
    unlocked = [f"{name} {low / unit:.0f} to {high / unit:.0f} MHz" for name, low, high, unit in known if low != high]
    return unlocked, not unlocked if known else None


def _throttle_counts(base: Path) -> Optional[Dict[str, int]]:
    counts: Dict[str, int] = {}
    for name in ("core_throttle_count", "package_throttle_count"):
        values = [read_number(path) for path in glob_paths(base, f"{_PLACES['throttle_counts']}/{name}")]
        known = [value for value in values if value is not None]
        if known:
            counts[name] = sum(known)
    return counts or None


def _cooling_active(base: Path) -> Optional[List[str]]:
    folders = glob_paths(base, _PLACES["cooling_active"])
    if not folders:
        return None
    return [read_text(f / "type") or f.name for f in folders if (read_number(f / "cur_state") or 0) > 0]


def _trip_points(base: Path) -> Optional[List[TripPoint]]:
    points: List[TripPoint] = []
    for path in glob_paths(base, f"{_PLACES['trip_points']}_type"):
        milli = read_number(path.with_name(path.name.replace("_type", "_temp")))
        if milli:
            zone, kind = read_text(path.parent / "type"), read_text(path) or "unknown"
            points.append({"zone": zone, "kind": kind, "temp_c": milli / 1000})
    return points or None


def _load_average(base: Path) -> Optional[List[float]]:
    text = read_text(base / "proc/loadavg")
    return [float(x) for x in text.split()[:3]] if text else None


def _memory(base: Path, name: str) -> Optional[int]:
    match = re.search(rf"^{name}:\s*(\d+) kB", read_text(base / "proc/meminfo") or "", re.M)
    return int(match.group(1)) * 1024 if match else None


def _swap_used(base: Path) -> Optional[int]:
    total, free = _memory(base, "SwapTotal"), _memory(base, "SwapFree")
    return None if total is None or free is None else total - free


def _busy_processes(base: Path) -> Optional[List[BusyProcess]]:
    """Return the other processes that compute, the busiest first; those around this one are its own."""
    before = _ticks(base)
    if before is None:
        return None
    time.sleep(_WATCHED_SECONDS)
    after = _ticks(base) or {}
    per_core = _WATCHED_SECONDS * os.sysconf("SC_CLK_TCK")
    own = {os.getpid(), os.getppid()}
    busy: List[BusyProcess] = [
        {"name": name, "cores": round((ticks - before[pid][1]) / per_core, 2)}
        for pid, (name, ticks) in after.items()
        if pid in before and pid not in own and ticks - before[pid][1] >= _BUSY * per_core
    ]
    return sorted(busy, key=lambda one: -one["cores"])


def _ticks(base: Path) -> Optional[Dict[int, Tuple[str, int]]]:
    """Return process -> name, and processor time in clock ticks (proc(5): utime and stime)."""
    ticks: Dict[int, Tuple[str, int]] = {}
    for path in glob_paths(base, "proc/[0-9]*/stat"):
        match = re.match(r"(\d+) \((.*)\) \S((?: -?\d+){12})", read_text(path) or "", re.S)
        if match:
            fields = match.group(3).split()
            ticks[int(match.group(1))] = (match.group(2), int(fields[-2]) + int(fields[-1]))
    return ticks or None
