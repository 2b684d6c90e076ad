"""Collects the artifacts of a run into `report.json`, and writes the page. Every number comes from an artifact."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from edgekd.board.files import write_atomic
from edgekd.core.artifact import SCHEMA as _ARTIFACT_SCHEMA
from edgekd.core.artifact import Artifact
from edgekd.core.machine_facts import package_versions
from edgekd.core.recipe import DEPLOYED, LOCAL, QAT, Engine, Recipe
from edgekd.core.stage import bench_of
from edgekd.core.task_metrics import TASKS
from edgekd.errors import BoardError, TargetError
from edgekd.evaluate.definitions import definitions
from edgekd.executors.boards import executor_of, why_not_here
from edgekd.executors.local import REFERENCE_TARGET
from edgekd.report.budgets import budget_gates, budget_of, int8_budget_gates
from edgekd.report.engine_layers import engine_layers
from edgekd.report.model import (
    SCHEMA,
    BoardMachine,
    Calibration,
    DataFinding,
    Definition,
    Gate,
    Report,
    Row,
    StageTiming,
    Status,
    Training,
)
from edgekd.report.page_data import DATA, latency_samples, row_id
from edgekd.report.part import Json
from edgekd.report.qat import with_gains
from edgekd.report.speed import with_speeds
from edgekd.report.stored import REPORT
from edgekd.report.units import percent

_TRAINED = ("teacher", "student", "distilled", "control", "qat")
_SCORES = (
    "metrics",
    "iou_per_class",
    "ap_per_class",
    "best_f1",
    "num_images",
    "images_sha256",
    "absent_classes",
    "ceilings",
)


def collect(
    recipe: Recipe,
    artifacts: Mapping[str, Artifact],
    timings: Sequence[StageTiming],
    planned: Collection[str],
    failures: Mapping[str, str],
    failure: str,
) -> Report:
    """Return the report of a run.

    Args:
        recipe: the recipe of the run.
        artifacts: finished artifacts by stage name.
        timings: the stages of this run.
        planned: names of all stages of the recipe, also of those that did not run.
        failures: reasons by stage name of the stages that failed while the run went on; `bench/<id>` for an engine that
            the bench left out.
        failure: the line with which the run ended early, or "".
    """
    engines = [f"engine/{engine.id}" for engine in recipe.engines]
    stages = [name for name in (*_TRAINED, "export", *engines) if name in planned]
    rows = [_row(recipe, stage, artifacts, failures, failure) for stage in stages]
    report = Report(
        schema=SCHEMA,
        artifact_schema=_ARTIFACT_SCHEMA,
        title=f"{recipe.name}: {recipe.student.family} {recipe.student.variant} for {len(recipe.engines)} engines",
        recipe_name=recipe.name,
        task=recipe.task,
        seed=recipe.seed,
        recipe_sha256=recipe.sha256(),
        recipe=recipe.model_dump(mode="json"),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        classes=artifacts["data"].details["classes"] if "data" in artifacts else [],
        boards=_boards(recipe, artifacts),
        environment={**executor_of(LOCAL).facts()["environment"], "packages": package_versions()},
        rows=rows,
        definitions=_definitions(rows, recipe.evaluate.max_detections),
        stages=list(timings),
        training={name: _training(name, artifacts) for name in _TRAINED if name in artifacts},
        gates=[*_gates(recipe, artifacts, failures), *int8_budget_gates(artifacts), *budget_gates(rows)],
        calibration=_calibration(artifacts),
        repairs=_repairs(artifacts),
        layers=engine_layers(artifacts),
        findings=_findings(artifacts),
        failure=failure,
    )
    return with_gains(with_speeds(report, latency_samples(artifacts)), recipe, artifacts)


def write_report(report: Report, root: Path) -> Path:
    """Write `report.json` atomically and return its path."""
    path = root / REPORT
    write_atomic(path, report.to_json())
    return path


def write_page(report: Report, root: Path) -> Path:
    """Write `report.html` from a report and its `report_data/`, atomically, and return its path."""
    from edgekd.report.html import render

    path = root / "report.html"
    write_atomic(path, render(report, root / DATA))
    return path


def _row(
    recipe: Recipe, stage: str, artifacts: Mapping[str, Artifact], failures: Mapping[str, str], failure: str
) -> Row:
    name = stage.split("/")[-1]
    engine = next((e for e in recipe.engines if stage.startswith("engine/") and e.id == name), None)
    bench = artifacts.get(bench_of(engine.board)) if engine else None
    timed: Json = bench.details["rows"].get(name, {}) if bench else {}
    score = artifacts.get(f"evaluate/{name}")
    if reason := _own_failure(stage, engine, failures):
        status: Status = "failed"
    else:
        status, reason = _status(stage, engine, artifacts, bool(timed), failure)
    return Row(
        task=recipe.task,
        id=row_id(stage),
        stage="engine" if engine else "onnx" if stage == "export" else stage,
        method="+".join(_methods(recipe, stage, engine)) or "none",
        target=engine.target if engine else REFERENCE_TARGET if stage == "export" else "torch",
        precision=str(engine.precision) if engine else "fp32",
        board=engine.board if engine else LOCAL,
        student=engine.student if engine else DEPLOYED,
        status=status,
        reason=reason,
        **(_facts(artifacts[stage], artifacts) if stage in artifacts else {}),
        **(budget_of(engine.id, artifacts) if engine else {}),
        **timed,
        **(_scores(score) if score else {}),
    )


def _methods(recipe: Recipe, stage: str, engine: Engine | None) -> Collection[str]:
    """Return the distillation methods of a row's network."""
    if stage in ("teacher", "student"):
        return ()
    further = recipe.qat is not None and (stage if engine is None else engine.student) in recipe.qat.students
    return recipe.qat.methods if recipe.qat is not None and further else recipe.distill.methods


def _own_failure(stage: str, engine: Engine | None, failures: Mapping[str, str]) -> str:
    """Return the reason of the first failed stage among those of a row; "" when none failed."""
    name = stage.split("/")[-1]
    stages = (
        stage,
        f"evaluate/{name}",
        *((f"{bench_of(engine.board)}/{name}", bench_of(engine.board)) if engine else ()),
    )
    return next((failures[one] for one in stages if one in failures), "")


def _status(
    stage: str, engine: Engine | None, artifacts: Mapping[str, Artifact], is_timed: bool, failure: str
) -> tuple[Status, str]:
    """Return status and reason of a row none of whose stages failed by itself."""
    if f"evaluate/{stage.split('/')[-1]}" in artifacts:
        return "measured", ""
    absent = _why_not(engine) if engine and stage in artifacts else ""
    if is_timed:
        return "measured", absent or failure or "not scored"
    if absent or not failure:
        return "not measured", absent or "the run ended before this step"
    return "failed", failure


def _why_not(engine: Engine) -> str:
    """Return why an engine's board cannot run it, or cannot be asked; "" when it can."""
    try:
        return why_not_here(engine)
    except (BoardError, TargetError) as exc:
        return str(exc)


def _boards(recipe: Recipe, artifacts: Mapping[str, Artifact]) -> dict[str, BoardMachine]:
    """Return the machine of each board by name, as the artifacts that were made there keep it."""
    found = {}
    for engine in recipe.engines:
        for stage in (bench_of(engine.board), f"evaluate/{engine.id}"):
            if engine.board not in found and stage in artifacts and (kept := artifacts[stage].details.get("machine")):
                state = artifacts[stage].details.get("state") or {}
                found[engine.board] = BoardMachine(**kept["identity"], environment=kept["environment"], state=state)
    return found


def _scores(artifact: Artifact) -> Json:
    scores = {name: artifact.details[name] for name in _SCORES if name in artifact.details}
    if "precision" in artifact.details:
        scores["precision_at_recall"] = artifact.details["precision"]
    return scores


def _definitions(rows: Sequence[Row], max_detections: int) -> dict[str, Definition]:
    """Return the definitions of the metrics that some row has."""
    shown = {name for row in rows for name in row.metrics}
    return {
        name: Definition(title=title, text=text, higher_is_better=better)
        for name, (title, text, better) in definitions(max_detections).items()
        if name in shown
    }


def _facts(artifact: Artifact, artifacts: Mapping[str, Artifact]) -> Json:
    """Return size and hash of the deployed file of an artifact, parameters and MACs of its network, its calibration, its parity."""
    main = artifact.details.get("engine") or artifact.details.get("model") or {"onnx": "model.onnx"}.get(artifact.kind)
    stem = Path(main).stem if main else "weights"
    files = [f for f in artifact.manifest["files"] if Path(f["name"]).stem == stem]
    calibration = _calibration({name: artifacts[name] for name in artifact.manifest["inputs"] if name in artifacts})
    return {
        **({"calibration": calibration} if calibration else {}),
        "size_bytes": sum(f["bytes"] for f in files),
        "sha256": files[0]["sha256"] if len(files) == 1 else artifact.sha256(),
        "params": artifact.details["params"],
        "macs": artifact.details["macs"],
        **(
            {"parity": artifact.details["parity"]} if artifact.kind == "engine" and "parity" in artifact.details else {}
        ),
    }


def _training(name: str, artifacts: Mapping[str, Artifact]) -> Training:
    found = artifacts[name].details
    budget = {"budget": artifacts["budget"].details["text"]} if name == QAT and "budget" in artifacts else {}
    return Training.model_validate({**found["training"], "methods": found["methods"], **budget})


def _calibration(artifacts: Mapping[str, Artifact]) -> Calibration | None:
    found = next((artifact for name, artifact in artifacts.items() if artifact.kind == "quantized"), None)
    if found is None:
        return None
    calibration = found.details["calibration"]
    return Calibration(split=calibration["split"], count=len(calibration["images"]), seed=calibration["seed"])


def _repairs(artifacts: Mapping[str, Artifact]) -> dict[str, dict[str, int]]:
    """Return the repairs of labels by the data stage, for each split that has some."""
    splits = artifacts["data"].details["splits"] if "data" in artifacts else {}
    return {name: split["repairs"] for name, split in splits.items() if split.get("repairs")}


def _findings(artifacts: Mapping[str, Artifact]) -> list[DataFinding]:
    """Return the warnings of the data stage; an artifact of an earlier edgekd has none."""
    found = artifacts["data"].details.get("findings", []) if "data" in artifacts else []
    return [DataFinding(**{key: one[key] for key in ("code", "text", "count", "first")}) for one in found]


def _gates(recipe: Recipe, artifacts: Mapping[str, Artifact], failures: Mapping[str, str]) -> list[Gate]:
    gates = []
    if "evaluate/teacher" in artifacts:
        task = TASKS[recipe.task]
        score = artifacts["evaluate/teacher"].details["metrics"][task.metric]
        text = f"teacher {task.title} {percent(score)} %, floor {percent(recipe.teacher.floor)} %"
        gates.append(Gate(name="teacher floor", passed=score >= recipe.teacher.floor, text=text))
    if "export" in artifacts:
        parity = artifacts["export"].details["parity"]
        what = "pixels" if recipe.task == "semantic" else "detections"
        text = f"{percent(parity['different'], 3)} % of {parity['compared']} {what} differ from torch on {parity['images']} images"
        gates.append(Gate(name="export parity", passed=True, text=text))
    for engine in recipe.engines:
        name = f"agreement/{engine.id}"
        if name in artifacts:
            gates.append(Gate(name=f"{engine.id} as here", passed=True, text=artifacts[name].details["text"]))
        elif name in failures and f"evaluate/{engine.id}" in artifacts:
            gates.append(Gate(name=f"{engine.id} as here", passed=False, text=failures[name]))
    return gates
