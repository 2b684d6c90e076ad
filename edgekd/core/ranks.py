"""Rank of this process among those that train one network together.

Lightning's launcher, torchrun and SLURM start the whole command once per device. The first process does everything;
the others only train with it (`pipeline.assist`).
"""

from __future__ import annotations

import os

_NUMBERS = ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK")
LAUNCHER_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_first_process() -> bool:
    """Return whether this process is the only one, or the first of those that train together."""
    return not any(os.environ.get(name, "0").strip("0") for name in _NUMBERS)
