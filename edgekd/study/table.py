"""The table of a study, for the terminal and as Markdown for a page."""

from __future__ import annotations

from typing import Any

HEADERS = (
    "arm", "seeds", "mIoU %", "Δ mIoU [95 %]", "Δ boundary IoU [95 %]", "spurious %", "missing %", "ms/step", "peak MiB",
    "mIoU",
)  # fmt: skip
MISSING = "–"


def rows(study: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return one row of texts per arm, in the order of `HEADERS`; `–` where nothing was measured."""
    return [_row(arm, arm["name"] == study["baseline"]) for arm in study["arms"]]


def markdown(study: dict[str, Any]) -> str:
    """Return the table as Markdown, with what it compares in the line above."""
    teacher = 100 * study["teacher"]["metrics"]["miou"]
    lines = [
        f"`{study['recipe_name']}`: {study['steps']} steps each, seeds {', '.join(map(str, study['seeds']))}; "
        f"teacher {teacher:.2f} mIoU. Mean ± standard deviation over the seeds; Δ is the difference to "
        f"`{study['baseline']}`, paired by seed, with the 95 % interval of its mean.",
        "",
        "| " + " | ".join(HEADERS) + " |",
        "|" + "|".join(["---"] + ["---:"] * (len(HEADERS) - 2) + ["---"]) + "|",
        *("| " + " | ".join(row) + " |" for row in rows(study)),
    ]
    return "\n".join(lines) + "\n"


def _row(arm: dict[str, Any], is_baseline: bool) -> tuple[str, ...]:
    metrics = arm["metrics"]
    verdict = "baseline" if is_baseline else (_difference(metrics, "miou") or {}).get("verdict", "not measured")
    pace, memory = arm["seconds_per_step"], arm["peak_memory_bytes"]
    return (
        arm["name"],
        str(sum(run["status"] == "measured" for run in arm["runs"])),
        _mean(metrics, "miou"),
        _interval(metrics, "miou"),
        _interval(metrics, "boundary_iou"),
        _mean(metrics, "spurious_components"),
        _mean(metrics, "missing_components"),
        MISSING if pace is None else f"{1000 * pace:.0f}",
        MISSING if memory is None else f"{memory / 2**20:.0f}",
        verdict,
    )


def _mean(metrics: dict[str, Any], name: str) -> str:
    if name not in metrics:
        return MISSING
    spread = metrics[name]["sd"]
    return f"{100 * metrics[name]['mean']:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _difference(metrics: dict[str, Any], name: str) -> dict[str, Any] | None:
    return metrics.get(name, {}).get("difference")


def _interval(metrics: dict[str, Any], name: str) -> str:
    found = _difference(metrics, name)
    if not found:
        return MISSING
    mean = f"{100 * found['mean']:+.2f}"
    return mean if found["low"] is None else f"{mean} [{100 * found['low']:+.2f}, {100 * found['high']:+.2f}]"
