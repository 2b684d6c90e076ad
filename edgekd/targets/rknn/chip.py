"""The Rockchip chip of this machine, from its device tree.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from pathlib import Path
from typing import List

from edgekd.board.system_files import read_text


def names_of_chip(root: str = "/") -> List[str]:
    """Return the names of this board's chip as its device tree has them, e.g. `["rk3588s"]`; [] without one.

    From the `compatible` strings: Rockchip's, `rockchip,<chip>`, and the board's own name, each without the maker.
    """
    places = ("proc/device-tree/compatible", "sys/firmware/devicetree/base/compatible")  # a container may have only one
    text = next(filter(None, (read_text(Path(root) / place) for place in places)), "")
    return [name.partition(",")[2] for name in text.split("\0") if name.startswith("rockchip,")]


def why_not_on(chip: str, root: str = "/") -> str:
    """Return why this machine cannot run an engine for a chip, "" when it can.

    Args:
        chip: e.g. rk3588, whose engines run on an rk3588s as well; "" for any of Rockchip's.
        root: root of the file system.
    """
    names = names_of_chip(root)
    if not names:
        return "no Rockchip chip in this machine"
    fits = any(name.startswith(chip) for name in names)
    return "" if fits else f"no {chip} in this machine, which is {', '.join(names)}"
