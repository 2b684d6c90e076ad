"""Decides for each kind of figure whether two runs can be compared, and gives the reason if not."""

from __future__ import annotations

from typing import Any

from edgekd.comparison.runs import Run
from edgekd.errors import shortened
from edgekd.report.model import BoardMachine, Report, Row
from edgekd.report.part import Json

# Facts that an update changes: they are listed among the changes, and the machine counts as the same.
SOFTWARE = frozenset({"os", "kernel", "driver_versions", "gpu_driver"})
_RUN_AGAIN = "an earlier edgekd wrote it; run its recipe again"


def why_not_scores(old: Run, new: Run, old_row: Row, new_row: Row) -> str:
    """Return why the scores of a row cannot be compared: other classes, or other images and labels."""
    if reason := _other_classes(old.report, new.report):
        return reason
    most = [_evaluate(run.report).get("max_detections") for run in (old, new)]
    if old.report.task != "semantic" and most[0] != most[1]:
        return f"evaluate.max_detections is {most[0]} in one run and {most[1]} in the other"
    if old_row.images_sha256 and new_row.images_sha256:
        if old_row.images_sha256 == new_row.images_sha256:
            return ""
        return f"the scored images or labels differ ({_split(old.report, old_row)}; {_split(new.report, new_row)})"
    if old_row.num_images != new_row.num_images:
        return f"the scored images differ ({_split(old.report, old_row)}; {_split(new.report, new_row)})"
    before, after = (_scored_data(run.report) for run in (old, new))
    if before is None or before != after:
        key = next((key for key in before or {} if (before or {})[key] != (after or {}).get(key)), "data")
        return f"the recipes differ in {key}, and a report does not say which images were scored: {_RUN_AGAIN}"
    return ""


def why_not_times(old: Run, new: Run, old_row: Row, new_row: Row) -> str:
    """Return why the latency and the energy of a row cannot be compared: another runtime, machine or power mode."""
    if old_row.target != new_row.target:
        return f"other runtime: {old_row.target} and {new_row.target}"
    machines = [run.report.boards.get(row.board) for run, row in ((old, old_row), (new, new_row))]
    before, after = machines
    if before is None or after is None or not before.hardware or not after.hardware:
        return f"a report does not say on which machine it was measured: {_RUN_AGAIN}"
    return _other_machine(before, after)


def why_not_energy(old_row: Row, new_row: Row) -> str:
    """Return why the energy of a row cannot be compared though the machine is the same: other meters."""
    meters = [(row.energy.first.meter, row.energy.first.scope) if row.energy else None for row in (old_row, new_row)]
    if None in meters or meters[0] == meters[1]:
        return ""
    named = [f"{meter or 'unnamed'}{f' ({scope})' if scope else ''}" for meter, scope in filter(None, meters)]
    return f"other power meter: {' and '.join(named)}"


def _other_classes(old: Report, new: Report) -> str:
    if old.classes == new.classes:
        return ""
    if len(old.classes) != len(new.classes):
        return f"other classes: {len(old.classes)} and {len(new.classes)}"
    index = next(i for i, pair in enumerate(zip(old.classes, new.classes, strict=True)) if pair[0] != pair[1])
    return f"other classes: class {index} is {old.classes[index]!r} and {new.classes[index]!r}"


def _other_machine(old: BoardMachine, new: BoardMachine) -> str:
    """Return a fact in which two machines differ, the hash of the machine's id first."""
    if (key := _differing(old.use, new.use, ("machine_id",))) == "machine_id":
        return f"another machine: {_described(old)} and {_described(new)}"
    if key := _differing(old.use, new.use) or _differing(old.hardware, new.hardware):
        both = [f"{(one.use if key in one.use else one.hardware).get(key)}" for one in (old, new)]
        what = "other power mode" if key == "power_mode" else "another machine"
        return f"{what}: {key} is {shortened(both[0])} and {shortened(both[1])}"
    return ""


def _differing(old: Json, new: Json, keys: tuple[str, ...] = ()) -> str:
    names = keys or tuple(key for key in {**old, **new} if key not in SOFTWARE)
    return next((key for key in names if old.get(key) != new.get(key)), "")


def _described(machine: BoardMachine) -> str:
    facts = (machine.hardware.get("board_model"), machine.hardware.get("cpu_model"))
    return shortened(str(next((fact for fact in facts if fact), "unnamed")))


def _split(report: Report, row: Row) -> str:
    data: Any = report.recipe.get("data")
    name = data.get("val") if isinstance(data, dict) else None
    return f"{row.num_images if row.num_images is not None else 'unknown number of'} images of split {name!r}"


def _evaluate(report: Report) -> Json:
    found = report.recipe.get("evaluate")
    return found if isinstance(found, dict) else {}


def _scored_data(report: Report) -> Json | None:
    """Return the recipe keys that decide which images are scored; None where the report has no recipe."""
    data: Any = report.recipe.get("data")
    if not isinstance(data, dict):
        return None
    keys = ("format", "options", "val", "split_seed")
    return {f"data.{key}": data.get(key) for key in keys} | {"evaluate.images": _evaluate(report).get("images")}
