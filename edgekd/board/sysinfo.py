"""Constant facts of a machine (`environment`), and its performance settings (`power_mode`).

Every reader takes the file system's `root`, so that tests and remote copies can be read too. A value that cannot be read is
None. Nothing is written and nothing needs privileges. `state.py` reads what changes.

Portable: standard library only, Python 3.8. Source of paths and units: Linux Documentation/ABI/*/sysfs-*.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

from edgekd.board.sensors.table import table
from edgekd.board.system_files import glob_paths, read_number, read_text

# The instruction sets that decide how fast int8, bf16 and fp16 networks run; x86 names, then ARM names.
_FLAGS = "avx2 avx512f avx512_vnni avx_vnni avx_vnni_int8 avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 f16c fma"
_FLAGS += " asimd asimdhp asimddp i8mm bf16 sve sve2"
KNOWN_FLAGS = tuple(_FLAGS.split())
X86 = ("x86_64", "AMD64")  # as Linux and Windows name it
_INT8_SUMS = ("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8")  # their sums have 32 bits
Facts = Dict[str, Any]  # JSON: facts of a machine, a runtime or a build, stored for the reader and never computed with


def environment(root: str = "/") -> Facts:
    """Return the facts that do not change while the machine runs.

    Keys: cpu_model, core_names (ARM: name of a core -> number of such cores), cpu_flags (those of KNOWN_FLAGS that it has),
    logical_cores, usable_cores, affinity (CPU numbers), cpu_quota (cores, from the control group), memory_bytes, os, kernel,
    machine, python, board_model (device tree), driver_versions (of `sensors/table.json`, those that are installed),
    virtualized (True, also in an emulator; False; None if unknown).
    """
    base = Path(root)
    cpuinfo = read_text(base / "proc/cpuinfo") or ""
    return {
        "cpu_model": _cpu_model(base, cpuinfo),
        "core_names": _core_names(base, cpuinfo),
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
        "driver_versions": _driver_versions(base),
        "virtualized": _is_virtualized(base, cpuinfo),
    }


def power_mode(root: str = "/") -> Facts:
    """Return the performance settings that a user makes before measuring.

    Keys: governors (of the CPU's policies and of other clocks, an NPU's or GPU's), raised (per policy, whether its lowest
    clock is above the processor's own), turbo (bool).
    Clocks themselves are left out: heat lowers the highest, and the lowest with it.
    """
    base = Path(root)
    policies = glob_paths(base, "sys/devices/system/cpu/cpufreq/policy*")
    limits = [[read_number(folder / f"{name}_min_freq") for name in ("scaling", "cpuinfo")] for folder in policies]
    others = glob_paths(base, "sys/class/devfreq/*")
    return {
        "governors": [
            *(read_text(folder / "scaling_governor") for folder in policies),
            *(read_text(folder / "governor") for folder in others),
        ],
        "raised": [lowest is not None and own is not None and lowest > own for lowest, own in limits],
        "turbo": turbo(root),
    }


def turbo(root: str = "/") -> Optional[bool]:
    """Return whether the processor may run above its nominal clock."""
    off = read_number(Path(root) / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if off is not None:
        return off == 0
    on = read_number(Path(root) / "sys/devices/system/cpu/cpufreq/boost")
    return None if on is None else on == 1


def usable_cores(root: str = "/") -> int:
    """Return the physical cores that this process may use: affinity, siblings counted once, control-group quota."""
    base = Path(root)
    cores: Set[str] = set()
    for cpu in _affinity() or list(range(os.cpu_count() or 1)):
        topology = base / f"sys/devices/system/cpu/cpu{cpu}/topology"
        # Not core_id: since Linux 6.0 it restarts at 0 in each cluster of an ARM chip (drivers/base/arch_topology.c).
        siblings = read_text(topology / "core_cpus_list") or read_text(topology / "thread_siblings_list")
        cores.add(siblings or str(cpu))  # without topology every CPU counts as a core
    quota = _cpu_quota(base)
    return max(1, min(len(cores), int(quota)) if quota is not None else len(cores))


def adds_products_in_16_bits(facts: Facts) -> bool:
    """Return whether a CPU multiplies 8-bit integers with `vpmaddubsw`, which adds two products in 16 bits and saturates.

    Args:
        facts: of `environment`. A CPU whose flags cannot be read is none of them.
    """
    flags = facts.get("cpu_flags") or ()
    return facts.get("machine") in X86 and bool(flags) and not any(flag in flags for flag in _INT8_SUMS)


def is_hybrid(root: str = "/") -> bool:
    """Return whether an Intel processor has performance and efficiency cores; Linux then has two counter devices.

    Source: Linux, tools/perf/Documentation/intel-hybrid.txt.
    """
    devices = Path(root) / "sys/bus/event_source/devices"
    return (devices / "cpu_core").exists() and (devices / "cpu_atom").exists()


def _affinity() -> Optional[List[int]]:
    if not hasattr(os, "sched_getaffinity"):  # macOS, Windows
        return None
    return sorted(os.sched_getaffinity(0))


def _cpu_quota(base: Path) -> Optional[float]:
    """Return the CPU time that control groups (v1 and v2) allow, in cores; None when unlimited or unknown.

    The tightest limit of the process's group and its parents applies; in a container its group is the root.
    """
    own = read_text(base / "proc/self/cgroup") or ""
    texts = [read_text(group / "cpu.max") for group in _groups(base / "sys/fs/cgroup", r"^0::(/.*)$", own)]
    for group in _groups(base / "sys/fs/cgroup/cpu", r"^\d+:(?:[^:\n]*,)?cpu(?:,[^:\n]*)?:(/.*)$", own):
        texts.append(" ".join(read_text(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")))
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


def _core_names(base: Path, cpuinfo: str) -> Optional[Dict[str, int]]:
    """Return the names of ARM cores from MIDR_EL1, else from `/proc/cpuinfo`; `0x41:0xd0f` for one that has no name here."""
    registers = glob_paths(base, "sys/devices/system/cpu/cpu*/regs/identification/midr_el1")
    ids = [int(text, 16) for text in map(read_text, registers) if text and re.fullmatch("0x[0-9a-f]+", text)]
    cores = [(f"{midr >> 24 & 0xFF:#04x}", f"{midr >> 4 & 0xFFF:#05x}") for midr in ids]  # Arm ARM, MIDR_EL1
    cores = cores or re.findall(r"^CPU implementer\s*:\s*(\S+)$.*?^CPU part\s*:\s*(\S+)$", cpuinfo, re.M | re.S)
    names = [table().cores.get(maker, {}).get(part, f"{maker}:{part}") for maker, part in cores]
    return {name: names.count(name) for name in sorted(set(names))} or None


def _cpu_flags(cpuinfo: str) -> Optional[List[str]]:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.M)
    if match is None:
        return None
    present = set(match.group(1).split())
    return [flag for flag in KNOWN_FLAGS if flag in present]


def _memory_bytes(base: Path) -> Optional[int]:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read_text(base / "proc/meminfo") or "", re.M)
    return int(match.group(1)) * 1024 if match else None


def _os_name(base: Path) -> Optional[str]:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', read_text(base / "etc/os-release") or "", re.M)
    return match.group(1) if match else sys.platform


def _board_model(base: Path) -> Optional[str]:
    for path in ("proc/device-tree/model", "sys/firmware/devicetree/base/model"):
        text = read_text(base / path)
        if text:
            return text
    return None


def _driver_versions(base: Path) -> Optional[Dict[str, str]]:
    """Return the versions of drivers and vendors' libraries; None where none is installed."""
    versions: Dict[str, str] = {}
    for entry in table().versions:
        for name in entry.files:
            match = re.search(entry.pattern, read_text(base / name) or "")
            if match:
                versions[entry.name] = ".".join(match.groups())
                break
    return versions or None


def _is_virtualized(base: Path, cpuinfo: str) -> Optional[bool]:
    """x86 CPUs show the `hypervisor` flag; elsewhere only the DMI vendor, /sys/hypervisor or the board's name can tell."""
    if re.search(r"QEMU|dummy-virt", _board_model(base) or ""):  # QEMU's `virt` calls itself linux,dummy-virt
        return True
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.M) or read_text(base / "sys/hypervisor/type"):
        return True
    vendor = read_text(base / "sys/class/dmi/id/sys_vendor")
    if vendor is not None and re.search(r"QEMU|KVM|VMware|Xen|innotek|Amazon EC2|Google", vendor):
        return True
    return False if re.search(r"^flags\s*:", cpuinfo, re.M) else None
