"""faster-coco-eval, imported where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekd.board.installation import install
from edgekd.errors import UserError


@dataclass(frozen=True)
class FasterCoco:
    """The parts of the package that edgekd uses."""

    COCO: Any
    COCOeval_faster: Any
    mask: Any


def faster_coco() -> FasterCoco:
    """Return the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faster_coco_eval
        import faster_coco_eval.core.mask
    except ImportError as exc:
        raise UserError(
            f"average precision needs faster-coco-eval, which is not installed; {install('evaluate')}"
        ) from exc
    return FasterCoco(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster, faster_coco_eval.core.mask)
