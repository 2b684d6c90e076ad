"""Rows of a report with nothing in them but what a test is about."""

from __future__ import annotations

from typing import Any

from edgekd.report.model import Latency, Row


def network(stage: str, miou: float | None, edge: float | None = None, images: int = 10, **more: Any) -> Row:
    """Return a row of the trunk; without a mIoU it is not measured."""
    row = {"id": stage, "stage": stage, "target": "torch", "precision": "fp32", "num_images": images}
    return Row(**row | _score(miou, edge) | more)


def engine(
    target: str, precision: str, miou: float | None, p50: float | None = None, board: str = "local", **more: Any
) -> Row:
    """Return an engine's row; without a mIoU it is not measured."""
    latency = Latency(p50=p50, n=20) if p50 else None
    row = {"id": f"{target}-{precision}", "stage": "engine", "target": target, "precision": precision, "board": board}
    return Row(**row | {"latency_ms": latency, "num_images": 10} | _score(miou, None) | more)


def _score(miou: float | None, edge: float | None) -> dict[str, Any]:
    if miou is None:
        return {"status": "not measured", "reason": "stopped before"}
    return {"status": "measured", "metrics": {"miou": miou} | ({"boundary_iou": edge} if edge is not None else {})}
