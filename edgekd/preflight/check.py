"""A check of a model: findings of the target's toolchain, of the tables, and on request of a build that is run and compared."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.compile.stage import checked_options
from edgekd.core import chips, plugins
from edgekd.core.artifact import open_artifact
from edgekd.core.plugin_options import PluginOptions
from edgekd.core.recipe import LOCAL, Engine, Recipe
from edgekd.errors import ArtifactError, TargetError, ToolchainCrashError, UserError
from edgekd.executors import venvs
from edgekd.executors.boards import executor_of
from edgekd.executors.builder import probe
from edgekd.preflight import trial
from edgekd.preflight.findings import Finding, Report, Verdict
from edgekd.preflight.noise import check_quantizers
from edgekd.preflight.rewrites import findings_with_rewrites
from edgekd.preflight.tables import merged, tables_for, without_table
from edgekd.rewrites.graph import Graph, module_of, name_of, read_graph
from edgekd.targets.base import Target

log = logging.getLogger(__name__)

NO_PARSER = Verdict("not tried", "this target's toolchain is not asked; the tables speak")
_NOT_ASKED = Verdict("not tried", "only with --build")


@dataclass(frozen=True)
class Subject:
    """The subject of a check: an ONNX file, its name in messages, and its contract (None: as the graph says)."""

    model: Path
    name: str
    spec: ModelSpec | None = None


@dataclass(frozen=True)
class Toward:
    """For what it is checked: a target, a chip ("" for the one of the options, if any) and the target's options as a recipe
    writes them."""

    target: str
    chip: str = ""
    options: PluginOptions = field(default_factory=PluginOptions)


def check(subject: Subject, toward: Toward, is_built: bool = False) -> Report:
    """Return the findings about a model on a target.

    Args:
        subject: the model.
        toward: the target.
        is_built: also build an engine, run it and compare it with ONNX Runtime, as far as that can be done here.

    Raises:
        ArtifactError: the model is not a readable ONNX file.
        UserError: no such target or chip, or a graph without inputs.
    """
    target = plugins.target(toward.target)
    options = toward.options.typed("targets", toward.target, f"options of {toward.target}")
    chip = toward.chip or chips.named_in(options) or ""
    chosen = tables_for(toward.target, chip)
    graph = read_graph(subject.model)
    if not graph.inputs:
        raise UserError(f"{subject.model}: expected a network with an input, got a graph without one")
    found = findings_with_rewrites(graph, chosen, target.info.rewrites)
    parsed, refused = _probe(toward.target, graph, options)
    verdicts = (_NOT_ASKED,) * 3
    overflows = _overflows(target, graph, options)
    findings = merged([*refused, *without_table(toward.target, chip), *found, *overflows])
    if is_built:
        verdicts = trial.attempt(toward.target, graph, subject.spec or _spec_of(graph), options)
    precision = "int8" if graph.is_quantized else "fp32"
    return Report(subject.name, toward.target, chip, precision, findings, parsed, *verdicts)


def subject_of(path: Path) -> Subject:
    """Return the subject at a path: an ONNX file, or the model of an artifact folder with its contract.

    Raises:
        ArtifactError: a folder that is not an artifact, or one without an ONNX model.
    """
    if not path.is_dir():
        return Subject(path.absolute(), str(path))
    artifact = open_artifact(path)
    if artifact.kind not in ("onnx", "quantized"):
        raise ArtifactError(
            f"{path}: expected an artifact with an ONNX model, kind onnx or quantized, got {artifact.kind}"
        )
    return Subject(artifact.file(artifact.details.get("model", "model.onnx")), str(path), artifact.spec)


def toward_of(engine: Engine) -> Toward:
    """Return the target, chip and options of a recipe's engine."""
    return Toward(engine.target, "", engine.options)


@contextmanager
def untrained_student(recipe: Recipe, classes: tuple[str, ...]) -> Iterator[Subject]:
    """Yield the recipe's student, exported with random weights; training changes numbers, not the graph.

    Raises:
        UserError: torch cannot export it.
    """
    from edgekd.export.onnx_graph import deployed_spec, export_onnx
    from edgekd.models.artifact import untrained_network
    from edgekd.models.build import check_input_size
    from edgekd.models.session import torch_spec

    with TemporaryDirectory() as folder:
        model = untrained_network(recipe.student, recipe.task, len(classes), "student").eval()
        check_input_size(model, recipe.data.size)
        spec = deployed_spec(
            torch_spec(model, recipe.task, classes, recipe.data.size, recipe.data.resize), model, recipe.export
        )
        path = Path(folder) / "student.onnx"
        spec, _ = export_onnx(model, spec, recipe.export, path)
        yield Subject(path, f"student of {recipe.name}, untrained", spec)


def check_recipe(
    recipe: Recipe, classes: tuple[str, ...], chosen: Toward | None = None, is_built: bool = False
) -> list[Report]:
    """Check the recipe's untrained student for `chosen`, or for its engines, whose options are then also checked.

    Raises:
        UserError: as `check` and `untrained_student`.
        TargetError: as `check_engines`.
    """
    with untrained_student(recipe, classes) as student:
        if chosen is None:
            assert student.spec is not None
            check_engines(recipe, student.spec, student.model)
        return [check(student, toward, is_built) for toward in ([chosen] if chosen else towards_of(recipe))]


def towards_of(recipe: Recipe) -> list[Toward]:
    """Return the targets, chips and options of the recipe's engines, each once."""
    return list({repr(toward): toward for toward in map(toward_of, recipe.engines)}.values())


def check_engines(recipe: Recipe, spec: ModelSpec, model: Path) -> None:
    """Check every engine of a recipe with `check_engine`, and quantize the model for the int8 engines.

    Args:
        recipe: names the engines.
        spec: contract of the student.
        model: the student as ONNX.

    Raises:
        TargetError: as `check_engine`, or a quantizer refuses the model. With `check: warn` this is a warning.
    """
    refused = []
    for engine in recipe.engines:
        try:
            check_engine(engine, spec)
        except TargetError as exc:
            refused.append(str(exc))
    for name, reason in check_quantizers(recipe, model, spec).items():
        refused.append(f"engines: {name}: quantizing the untrained student on noise: {reason}")
    for message in refused:
        if recipe.check == "stop":
            raise TargetError(f"{message} (to go on anyway: --set check=warn)")
        log.warning("check: %s", message)


def check_engine(engine: Engine, spec: ModelSpec) -> None:
    """Refuse what the target would refuse of any network under this contract.

    Raises:
        TargetError: the precision, the options and the contract do not go together, or not on this machine.
    """
    target = plugins.target(engine.target)
    if target.check_engine is not None:
        try:
            target.check_engine(engine.precision, checked_options(engine), spec)
        except TargetError as exc:
            raise TargetError(f"engines: {engine.id}: {exc}") from exc


def _overflows(target: Target, graph: Graph, options: Any) -> Iterator[Finding]:
    """Yield that sums of a quantized graph would overflow on this machine's CPU."""
    if target.why_saturates is None or not graph.is_quantized:
        return
    machine = executor_of(LOCAL).facts()["environment"]
    if reason := target.why_saturates(graph.path, options, machine):
        what, _, fix = reason.rpartition("; ")
        cpu = f"CPU of this machine, {machine['cpu_model']}"
        yield Finding("overflow", (), "", "", "silent_error", what, fix, "live", cpu)


def _probe(name: str, graph: Graph, options: Any) -> tuple[Verdict, list[Finding]]:
    """Ask the target's toolchain, when it can be asked and is here."""
    target = plugins.target(name)
    try:
        if target.info.compile_at == "toolchain":
            venvs.find(venvs.lock_of(name), venvs.root_of())
        if target.probe is None:
            return NO_PARSER, []
        said = probe(name, graph.path, options)
    except ToolchainCrashError as exc:
        return Verdict("no", str(exc)), [_crash(str(exc))]
    except TargetError as exc:
        return Verdict("not tried", str(exc)), []
    findings = list(_refusals(graph, said))
    if findings:
        return Verdict("no", f"{said.tool}: {len(findings)} refused"), findings
    return Verdict("yes", said.tool), []


def _crash(said: str) -> Finding:
    fix = "replace the operator that its log names last, or choose another target"
    return Finding("parser", (), "", "", "refused", said, fix, "live", "its parser, asked in a process of its own")


def _refusals(graph: Graph, said: Any) -> Iterator[Finding]:
    by_name = {name_of(node): node for node in graph.nodes}
    for one in said.refusals:
        node = by_name.get(one.node)
        module = module_of(node) if node is not None else ""
        operator = one.operator or (node.op_type if node is not None else "")
        nodes = (one.node,) if one.node else ()
        fix = "replace the operator, or leave the module out"
        yield Finding("parser", nodes, operator, module, "refused", one.reason, fix, "live", said.tool)


def _spec_of(graph: Graph) -> ModelSpec:
    """Return the contract of an ONNX file as far as the file tells it: tensors, but neither roles nor preprocessing."""
    from onnx import helper

    def tensor(value: Any, role: str) -> TensorSpec:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        return TensorSpec(value.name, dtype, graph.shape(value.name) or (), role)

    inputs = tuple(tensor(value, "image") for value in graph.inputs)
    outputs = tuple(tensor(value, "logits") for value in graph.outputs)
    return ModelSpec("semantic", (), 255, inputs, outputs, Preprocess((1, 1)))
