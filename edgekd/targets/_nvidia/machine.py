"""Facts that NVIDIA's drivers give about a machine, read from files: GPUs, driver, and the power mode of a Jetson.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional

from edgekd.board.sysinfo import Facts


def machine_facts(root: str) -> Facts:
    """Return gpus (names, None without one) and gpu_driver (its version line; on a Jetson that of Jetson Linux)."""
    base = Path(root)
    texts = [_text(path) or "" for path in (base / "proc/driver/nvidia/gpus").glob("*/information")]
    names = [found.group(1).strip() for found in (re.search(r"^Model:\s*(.+)$", text, re.M) for text in texts) if found]
    driver = _first_line(base / "proc/driver/nvidia/version") or _first_line(base / "etc/nv_tegra_release")
    return {"gpus": sorted(names) or None, "gpu_driver": driver}


def power_mode(root: str) -> Facts:
    """Return nvpmodel, the number of a Jetson's power mode as its status file has it, and nvpmodel_name, which depends on the SKU."""
    status = _first_line(Path(root) / "var/lib/nvpmodel/status")
    number = re.search(r"\d+", status or "")
    names = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(Path(root) / "etc/nvpmodel.conf") or "")
    name = {int(mode): text for mode, text in names}.get(int(number.group())) if number else None
    return {"nvpmodel": status, "nvpmodel_name": name}


def _first_line(path: Path) -> Optional[str]:
    return (_text(path) or "").partition("\n")[0] or None


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:  # absent, or not to be read
        return None
