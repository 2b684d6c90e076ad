"""`edgekd tune`: tries the choices of each engine's target beside the present settings, and writes those that win.

First every choice by itself, then the winners together, measured again beside the present settings: a choice that won by chance
does not win twice, and two that win alone may not add up.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.board.choices import Choice
from edgekd.board.duel import Side
from edgekd.board.files import write_atomic
from edgekd.board.job import Job, Progress
from edgekd.core.artifact import Artifact, open_artifact
from edgekd.core.plugin_options import plugin_options
from edgekd.core.recipe import Engine, Recipe
from edgekd.core.recipe_loading import stored_recipe
from edgekd.core.workspace import Workspace
from edgekd.data.splits import shared_splits
from edgekd.errors import ArtifactError, RecipeError, UserError, did_you_mean
from edgekd.executors.boards import ask, connected, why_not_here
from edgekd.report.stored import REPORT, read_report
from edgekd.tuning.graphs import FOLDER, Variants
from edgekd.tuning.measuring import Candidate, Measuring, image_files
from edgekd.tuning.result import Tuned, Tuning, fragment, options_of
from edgekd.tuning.verdicts import Trial, best_export, best_options, trial

log = logging.getLogger(__name__)
FRAGMENT, RESULT = "tune.yaml", "tune.json"
PRESENT, CONTROL = "present settings", "present settings again"
ROUNDS = 12
_BOTH = "winners together"


@dataclass(frozen=True)
class _Run:
    """State that all engines of a tuning share."""

    folder: Path
    recipe: Recipe
    variants: Variants
    measure: Measuring
    progress: Progress


def tune(
    folder: Path,
    only: Sequence[str] = (),
    rounds: int = ROUNDS,
    on_progress: Progress = lambda what, share: None,
) -> Tuning:
    """Tune the engines of a finished run, write `tune.yaml` and `tune/tune.json` into its folder, and return the result.

    Args:
        folder: folder of the run.
        only: ids of engines; () for all.
        rounds: bursts of each engine in each measurement, at least 6.
        on_progress: called with the current step and the fraction done.

    Raises:
        UserError: no report, an engine that the recipe does not have, or too few rounds.
        TargetError: the present engine does not run.
    """
    report = read_report(folder)
    recipe = stored_recipe(report.recipe, str(folder / REPORT))
    ids = [engine.id for engine in recipe.engines]
    for name in only:
        if name not in ids:
            raise UserError(f"{folder}: the run has no engine {name!r}{did_you_mean(name, ids)}")
    if rounds < 6:
        raise UserError(f"rounds: expected 6 or more, which a 95 % interval needs, got {rounds}")
    with connected(Path.cwd()), Workspace(folder).locked(), shared_splits(), image_files(recipe) as images:
        engines, left_out = _tunable(folder, [engine for engine in recipe.engines if not only or engine.id in only])
        measure = Measuring(images, rounds, recipe.seed, on_progress)
        run = _Run(folder, recipe, Variants(recipe, folder), measure, on_progress)
        found = _tuned(run, engines)
    tuning = Tuning(report.recipe_name, found[0], found[1], left_out)
    (folder / FOLDER).mkdir(exist_ok=True)
    write_atomic(folder / FOLDER / RESULT, json.dumps(tuning.to_dict(), indent=1))
    write_atomic(folder / FRAGMENT, fragment(tuning, str(folder)))
    return tuning


def _tunable(folder: Path, engines: Sequence[Engine]) -> tuple[dict[str, Engine], dict[str, str]]:
    """Return the engines that were built and run here, by id, and why the others are left out."""
    found, left_out = {}, {}
    for engine in engines:
        try:
            open_artifact(folder / "engine" / engine.id, "engine")
        except ArtifactError as exc:
            left_out[engine.id] = str(exc)
            continue
        reason = why_not_here(engine)
        if reason:
            left_out[engine.id] = reason
        else:
            found[engine.id] = engine
    return found, left_out


def _tuned(run: _Run, engines: Mapping[str, Engine]) -> tuple[tuple[Tuned, ...], dict[str, Any]]:
    """Return the engines with their trials and winners, and the export settings that win for all of them."""
    choices = {name: _choices(run, engine) for name, engine in engines.items()}
    built = _graphs(run, engines, choices)
    alone = {name: _alone(run, engine, choices[name], built) for name, engine in engines.items()}
    graph = best_export({name: one.trials for name, one in alone.items()})
    graphs = run.variants.build(list(engines.values()), graph.export) if graph else {}
    joined = {name: _joined(run, engine, alone[name], graph, graphs.get(name)) for name, engine in engines.items()}
    found = [one for engine in joined.values() for one in engine.joined if one.choice and one.choice.export]
    # The options alone may be what makes both together faster.
    is_faster = any(one.word == "faster" for one in found if one.choice and not one.choice.options)
    is_harmless = not {"slower", "refused"} & {one.word for one in found}
    export = dict(graph.export) if graph and is_faster and is_harmless else {}
    return tuple(_decided(joined[name], engines[name], bool(export)) for name in engines), export


def _choices(run: _Run, engine: Engine) -> list[Choice]:
    """Return the choices of the engine's target that change something."""
    asked = ask(engine.board, Job("choices", engine.target))["choices"]
    typed, export = asdict(engine.target_options), run.recipe.export
    found = []
    for choice in (Choice(**one) for one in asked):
        is_new = any(typed.get(key) != value for key, value in options_of(choice, typed).items())
        is_new |= any(getattr(export, key) != value for key, value in choice.export.items())
        if is_new and not ("argmax" in choice.export and run.recipe.task != "semantic"):
            found.append(choice)
    return found


def _graphs(
    run: _Run, engines: Mapping[str, Engine], choices: Mapping[str, Sequence[Choice]]
) -> dict[tuple[str, str], Artifact | str]:
    """Return the engines of other graphs by engine and choice, or why there is none."""
    found: dict[tuple[str, str], Artifact | str] = {}
    graphs = {choice.name: choice for given in choices.values() for choice in given if choice.export}
    for place, choice in enumerate(graphs.values()):
        run.progress(f"building engines: {choice.name}", place / len(graphs))
        having = [engine for name, engine in engines.items() if choice in choices[name]]
        for name, one in run.variants.build(having, choice.export).items():
            found[name, choice.name] = one
    return found


def _alone(
    run: _Run, engine: Engine, choices: Sequence[Choice], built: Mapping[tuple[str, str], Artifact | str]
) -> Tuned:
    """Return an engine with a trial of each choice by itself, and of the same target's float engine."""
    artifact = open_artifact(run.folder / "engine" / engine.id, "engine")
    candidates: dict[str, Candidate] = {
        PRESENT: Candidate(artifact, engine.options),
        CONTROL: Candidate(artifact, engine.options),
    }
    absent: dict[str, str] = {}
    for choice in choices:
        one = _candidate(run, engine, artifact, choice, built)
        if isinstance(one, str):
            absent[choice.name] = one
        else:
            candidates[choice.name] = one
    other = _float_sibling(run, engine)
    if other is not None:
        candidates[other.id] = Candidate(open_artifact(run.folder / "engine" / other.id, "engine"), other.options)
    sides, failures = run.measure(engine, candidates)
    trials = _trials(run, choices, sides, {**absent, **failures})
    if other is not None and other.id in sides:
        trials.append(trial(other.id, None, sides, CONTROL, _limit(run)))
    return Tuned(engine.id, statistics.median(sides[PRESENT].wall_ms), tuple(trials))


def _candidate(
    run: _Run, engine: Engine, artifact: Artifact, choice: Choice, built: Mapping[tuple[str, str], Artifact | str]
) -> Candidate | str:
    """Return an engine with one choice, or why there is none."""
    options = {**engine.options, **options_of(choice, engine.options)}
    try:
        plugin_options("targets", engine.target, options, "options")  # another chip may not have the value
    except RecipeError as exc:
        return str(exc)
    made = built[engine.id, choice.name] if choice.export else _with_options(run, engine, artifact, choice)
    return made if isinstance(made, str) else Candidate(made, options)


def _trials(run: _Run, choices: Sequence[Choice], sides: Mapping[str, Side], refused: Mapping[str, str]) -> list[Trial]:
    return [
        trial(choice.name, choice, sides, CONTROL, _limit(run))
        if choice.name in sides
        else Trial(choice.name, choice, "refused", reason=refused[choice.name])
        for choice in choices
    ]


def _joined(
    run: _Run, engine: Engine, alone: Tuned, graph: Choice | None, graph_engine: Artifact | str | None
) -> Tuned:
    """Return an engine with the winners measured again: its options, the graph of all engines, and both."""
    present = open_artifact(run.folder / "engine" / engine.id, "engine")
    options = best_options(alone.trials)
    candidates = {PRESENT: Candidate(present, engine.options), CONTROL: Candidate(present, engine.options)}
    choices: list[Choice] = []
    changed = {**engine.options, **options_of(options, engine.options)} if options else dict(engine.options)
    if options:
        choices.append(replace(options, name="winning options"))
        made = _with_options(run, engine, present, options)
        if isinstance(made, Artifact):
            candidates["winning options"] = Candidate(made, changed)
    if graph and isinstance(graph_engine, Artifact):
        choices.append(replace(graph, name="winning graph"))
        candidates["winning graph"] = Candidate(graph_engine, engine.options)
        if options and not options.is_built:
            choices.append(Choice(_BOTH, options.options, graph.export))
            candidates[_BOTH] = Candidate(graph_engine, changed)
    if not choices:
        return alone
    sides, failures = run.measure(engine, candidates)
    refused = {choice.name: failures.get(choice.name, "not built") for choice in choices}
    return replace(alone, joined=tuple(_trials(run, choices, sides, refused)))


def _decided(tuned: Tuned, engine: Engine, has_graph: bool) -> Tuned:
    """Return an engine with the options that are written: those that are faster with the graph that is written."""
    joined = {one.name: one for one in tuned.joined}
    mine = joined.get(_BOTH if has_graph and _BOTH in joined else "winning options")
    graph = joined.get("winning graph") if has_graph else None
    if mine is None or mine.choice is None or mine.word != "faster" or mine.wall is None:
        return tuned
    if graph is not None and graph.wall is not None and mine.wall.median > graph.wall.median:
        return tuned
    return replace(tuned, options=options_of(mine.choice, engine.options))


def _with_options(run: _Run, engine: Engine, artifact: Artifact, choice: Choice) -> Artifact | str:
    """Return the engine for other options: the same file, unless the options change it."""
    if not choice.is_built:
        return artifact
    options = {engine.id: {**engine.options, **options_of(choice, engine.options)}}
    return run.variants.build([engine], {}, options)[engine.id]


def _float_sibling(run: _Run, engine: Engine) -> Engine | None:
    """Return the run's float engine of a quantized engine's target and board."""
    if not engine.precision.is_quantized:
        return None
    for one in run.recipe.engines:
        if (one.target, one.board) == (engine.target, engine.board) and not one.precision.is_quantized:
            try:
                open_artifact(run.folder / "engine" / one.id, "engine")
            except ArtifactError:
                continue
            return one
    return None


def _limit(run: _Run) -> float:
    return float(run.recipe.parity.fp32_different)
