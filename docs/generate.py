"""Writes the generated parts of the reference pages, between `<!-- generated: NAME -->` and `<!-- /generated -->`.

python docs/generate.py            rewrite them
python docs/generate.py --check    exit 1 and name the pages that are not up to date
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgekd import planning
from edgekd.board import bench, timing
from edgekd.board.options import descriptions, path_options
from edgekd.board.sensors.table import table
from edgekd.cli.main import command_line
from edgekd.comparison import model as comparison
from edgekd.comparison.figures import MEASURED
from edgekd.comparison.gate import Check, GateResult
from edgekd.comparison.limits import Limit, Limits
from edgekd.core import chips, plugins
from edgekd.core.plugin_options import PluginOptions
from edgekd.core.recipe import Recipe, Section
from edgekd.core.recipe_loading import load_recipe
from edgekd.evaluate.definitions import DEFINITIONS
from edgekd.report.latency import RatioInterval, SpeedRatio
from edgekd.report.long_runs import EnergyPerFrame, MeterEnergy, SamplingCost, SustainedLatency
from edgekd.report.mixed_budget import MixedBudget
from edgekd.report.model import BoardMachine, DataFinding, Report, Row
from edgekd.report.part import Part
from edgekd.report.score_change import ScoreChange
from edgekd.report.training import Training
from edgekd.study.model import Arm, ArmRun, Difference, Study, Summary

DOCS = Path(__file__).parent
_REGION = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.S)
_SHOWN = {"hardware": "hardware", "emulated": "emulated processor", "simulated": "simulated", "built": "built here"}


def main() -> int:
    """Rewrite the pages, or with `--check` only say which would change."""
    changed = []
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = rendered(old)
        if new != old:
            changed.append(page.relative_to(DOCS.parent).as_posix())
            if "--check" not in sys.argv:
                page.write_text(new, encoding="utf-8")
    if changed:
        sys.stderr.write(f"{'not up to date' if '--check' in sys.argv else 'written'}: {', '.join(changed)}\n")
    return int("--check" in sys.argv and bool(changed))


def rendered(text: str) -> str:
    """Return a page with its generated parts made anew; KeyError for a part that nothing generates."""
    return _REGION.sub(lambda match: f"{match[1]}\n{PARTS[match['name']]().strip()}\n\n{match[3]}", text)


def recipe_sections() -> str:
    """Return a table of keys for every section of a recipe, from its pydantic model."""
    shown: dict[type[BaseModel], str] = {}
    parts = []
    for path, section in _sections("", Recipe):
        if section in shown:
            parts.append(f"### {path}\n\nThe keys of `{shown[section]}`.")
        else:
            parts.append(_section(path, section))
            shown[section] = path
    return "\n\n".join(parts)


def plugin_options(kind: str) -> str:
    """Return a table of options for every plugin of a kind that comes with edgekd."""
    return "\n\n".join(_plugin(name, plugins.options_type(kind, name)) for name in plugins.names(kind))


def methods() -> str:
    """Return a table of the distillation methods, from the docstrings of their modules and `Method` classes."""
    rows = []
    for name in plugins.names("methods"):
        module = plugins.load("methods", name)
        about = module.__doc__ or ""
        head, number = about.splitlines()[0], re.search(r"arXiv\s+(\d{4}\.\d{4,5})", about)
        paper = f"[{number[1]}](https://arxiv.org/abs/{number[1]})" if number else "–"
        terms, _, adapter = module.Method.__doc__.splitlines()[0].rstrip(".").partition("; ")
        adapter, _, labels = adapter.partition("; ")
        rows.append((f"[`{name}`](#{name})", paper, head, terms, adapter, "yes" if labels else "no"))
    return _table(("name", "arXiv", "what it transfers", "terms", "adapter", "needs labels"), rows)


def commands() -> str:
    """Return every command with its arguments and options, from the command line's own definition."""
    return "\n\n".join(_command(name, command) for name, command in _commands("edgekd", command_line()))


def metrics() -> str:
    """Return the metrics of report.json with their definitions."""
    rows = [
        (f"`{name}`", title, text, "higher" if better else "lower")
        for name, (title, text, better) in DEFINITIONS.items()
    ]
    return _table(("name", "title", "definition", "better"), rows)


def report_keys() -> str:
    """Return the keys of report.json, from its pydantic models."""
    return _keys(
        ("report.json", Report),
        ("Rows", Row),
        ("Gains of further training", ScoreChange),
        ("Budget", MixedBudget),
        ("Speed", SpeedRatio),
        ("Intervals of a speed", RatioInterval),
        ("Trainings", Training),
        ("Findings", DataFinding),
        ("Boards", BoardMachine),
        ("Energy", EnergyPerFrame),
        ("Meters of an energy", MeterEnergy),
        ("Sustained latency", SustainedLatency),
        ("Cost of sampling", SamplingCost),
    )


def study_keys() -> str:
    """Return the keys of study.json, from its pydantic models."""
    parts = (("Arms", Arm), ("Runs of an arm", ArmRun), ("Metrics of an arm", Summary), ("Differences", Difference))
    return _keys(("study.json", Study), *parts)


def comparison_keys() -> str:
    """Return the keys of a comparison, from its pydantic models."""
    return _keys(
        ("Comparison", comparison.Comparison),
        ("Compared runs", comparison.ComparedRun),
        ("Pairs", comparison.Pair),
        ("Changes", comparison.Change),
        ("Refusals", comparison.Refusal),
        ("Compared rows", comparison.ComparedRow),
        ("Figures of a row", comparison.Difference),
    )


def gate_keys() -> str:
    """Return the keys of a gate's result, from its pydantic models."""
    return _keys(("Result of a gate", GateResult), ("Checks", Check))


def limit_keys() -> str:
    """Return the keys of a file of limits, and the figures that are no metrics."""
    figures = [
        (f"`{figure.name}`", figure.title, figure.kind, figure.unit, "higher" if figure.higher_is_better else "lower")
        for figure in MEASURED
    ]
    sections = "\n\n".join(_section(path, section) for path, section in (("limits file", Limits), ("limits[]", Limit)))
    return f"{sections}\n\n### figures\n\n" + _table(("figure", "title", "kind", "unit", "better"), figures)


def latency() -> str:
    """Return the constants of the latency measurement and the samples that each percentile needs."""
    budget, recipe_bench = timing.Budget(), Recipe.model_fields["bench"].default
    rows = [
        ("a burst, at least", f"{budget.burst_seconds:g} s and {budget.burst_runs} runs"),
        ("discarded before each burst, at least", f"{budget.discard_seconds:g} s and {budget.discard_runs} run"),
        ("measured runs per series, at least (`bench.min_samples`)", f"{recipe_bench.min_samples}"),
        ("measured time per series, at least (`bench.min_seconds`)", f"{recipe_bench.min_seconds:g} s"),
        (
            "warm-up window, in runs; where the longest warm-up has fewer",
            f"{timing.WARM_UP_WINDOW}; {timing.SMALLEST_WINDOW} or more",
        ),
        ("shortest warm-up", f"{timing.WARM_UP_SECONDS:g} s"),
        ("largest difference of the medians of two windows when steady", f"{timing.STEADY:.0%}"),
        ("longest warm-up (`bench.warmup_max_seconds`)", f"{recipe_bench.warmup_max_seconds:g} s"),
        ("distinct images in rotation (`bench.images`)", f"{recipe_bench.images}"),
        ("spread (standard deviation over mean) that is warned of, above", f"{bench.MAX_CV:.1%}"),
        ("drift that is warned of, above", f"{bench.MAX_DRIFT:.0%}"),
    ]
    needed = [(f"p{p}", "always shown" if p == 50 else f"{timing.minimum_samples(p)}") for p in timing.PERCENTILES]
    return _table(("what", "value"), rows) + "\n\n" + _table(("percentile", "samples it needs"), needed)


def sensors() -> str:
    """Return the sensors of `board/sensors/table.json`: quantity, place, source."""
    files = [
        (
            f"`{one.quantity}`",
            f"`{one.folders}/{one.file}`",
            "1 s" if one.slow else "",
            one.source,
        )
        for one in table().files
    ]
    tools = [(f"`{one.quantity}`", f"`{' '.join(one.command)}`", "1 s", one.source) for one in table().tools]
    meters = [(f"`{one.group}`", _alternatives(one.total), one.scope or "–", one.sum_scope) for one in table().meters]
    versions = [(f"`{one.name}`", ", ".join(f"`{file}`" for file in one.files), one.source) for one in table().versions]
    return "\n\n".join(
        (
            _table(("quantity", "file or tool", "read at most every", "source"), files + tools),
            "### Meters\n\n" + _table(("group", "total", "the total covers", "the sum covers"), meters),
            "### Versions\n\n" + _table(("name", "file", "source"), versions),
        )
    )


def _alternatives(pattern: str) -> str:
    names = pattern.strip("^$").strip("()").split("|")
    return ", ".join(f"`{name}`" for name in names if name) or "–"


def stages() -> str:
    """Return the stages of the quickstart recipe: kind, inputs, and the recipe sections in the cache key."""
    rows = [
        (f"`{s.name}`", s.kind, _names(s.inputs), _key_sections(s.sections))
        for s in planning.plan(load_recipe("quickstart"))
    ]
    return _table(("stage and folder", "kind", "reads the artifacts", "sections in its key"), rows)


def support() -> str:
    """Return what was shown of each target on each chip, from the targets' `INFO` and `edgekd/chips`."""
    rows: list[tuple[str, ...]] = []
    for target in plugins.names("targets"):
        info = plugins.target(target).info
        for name in (name for name in chips.names() if target in chips.load(name).targets):
            found = [one for one in chips.load(name).evidence if one.target == target]
            kinds = [(one.precisions, _SHOWN[one.shown], one.version, one.date) for one in found]
            shown = {precision for one in found for precision in one.precisions}
            if left := tuple(precision for precision in _precisions(info, name) if precision not in shown):
                kinds.append((left, "code only", "–", "–"))
            for precisions, what, version, date in kinds:
                rows.append((f"`{target}`", f"`{name}`", ", ".join(precisions), info.compile_at, what, version, date))
    return _table(("target", "chip", "precisions", "compiles at", "shown", "toolchain", "date"), rows)


def _precisions(info: Any, chip: str) -> tuple[str, ...]:
    """Return the target's precisions that the chip has."""
    lacking = chips.load(chip).lacks
    return tuple(precision for precision in info.precisions if precision not in lacking)


def chip_facts() -> str:
    """Return the facts known of each chip, with their sources."""
    facts: list[tuple[str, ...]] = []
    for name in chips.names():
        chip = chips.load(name)
        facts += [(f"`{name}`", chip.title, fact.text, fact.source) for fact in chip.facts]
    return _table(("chip", "title", "fact", "source"), facts)


def results() -> str:
    """Return a list of the result pages."""
    pages = [page for page in sorted((DOCS / "results").glob("*.md")) if page.stem != "index"]
    titles = [page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for page in pages]
    links = [f"- [{title}]({page.name})" for title, page in zip(titles, pages, strict=True)]
    return "\n".join(links) or "No run has been written down yet."


PARTS: dict[str, Callable[[], str]] = {
    "recipe-sections": recipe_sections,
    **{f"{kind}-options": partial(plugin_options, kind) for kind in plugins.WITH_OPTIONS},
    "methods": methods,
    "commands": commands,
    "metrics": metrics,
    "report-keys": report_keys,
    "study-keys": study_keys,
    "comparison-keys": comparison_keys,
    "gate-keys": gate_keys,
    "limit-keys": limit_keys,
    "latency": latency,
    "sensors": sensors,
    "stages": stages,
    "support": support,
    "chips": chip_facts,
    "results": results,
}


def _names(words: typing.Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words) or "–"


def _key_sections(sections: tuple[str, ...]) -> str:
    """Return the sections in a cache key; `engines:<id>` is one entry of a list, `trainer` is in no key."""
    return _names(sorted({f"{r.split(':')[0]}[]" if ":" in r else r for r in sections} - {"trainer"}))


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [titles, tuple("---" for _ in titles), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def _keys(*parts: tuple[str, type[Part]]) -> str:
    """Return a heading and a table of keys for each part of a file; the file itself comes first."""
    shown = []
    for level, (title, part) in zip(("##", *["###"] * len(parts)), parts, strict=False):
        fields = [(name, field) for name, field in part.model_fields.items() if not field.exclude]
        rows = [(f"`{field.alias or name}`", field.description or "") for name, field in fields]
        shown.append(f"{level} {title}\n\n{_text(part.__doc__)}\n\n" + _table(("key", "holds"), rows))
    return "\n\n".join(shown)


def _sections(path: str, section: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, section
    for name, field in section.model_fields.items():
        for inner in _models_in(field.annotation):
            where = f"{path}.{name}" if path else name
            origin = typing.get_origin(field.annotation)
            yield from _sections(where + {dict: ".NAME", tuple: "[]"}.get(origin, ""), inner)  # type: ignore[arg-type]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]


def _section(path: str, section: type[BaseModel]) -> str:
    rows = [
        (
            f"`{field.alias or name}`",
            _kind(field.annotation),
            _default(field),
            _meaning(field.description, field.metadata),
        )
        for name, field in section.model_fields.items()
    ]
    title = f"### {path}" if path else "### top level"
    return f"{title}\n\n{_text(section.__doc__)}\n\n" + _table(("key", "type", "default", "meaning"), rows)


def _kind(annotation: Any) -> str:
    """Return a type as a reader of YAML thinks of it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " or ".join(one.value for one in annotation)
    if annotation is PluginOptions:
        return "mapping"
    if origin is typing.Literal:
        return " or ".join(_plain(value) for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(argument) for argument in arguments)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (dict, Mapping):
        return "mapping" if Any in arguments else f"mapping of {_kind(arguments[0])} to {_kind(arguments[1])}"
    if origin is tuple and ... in arguments:
        return f"list of {_kind(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(_kind(argument) for argument in arguments)}]"
    return {type(None): "null", str: "text", Path: "path"}.get(annotation, annotation.__name__)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = dict(field.default) if isinstance(field.default, PluginOptions) else field.default
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
        return _names(value)
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """Return a value as YAML, on one line."""
    value = list(value) if isinstance(value, tuple) else value
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _meaning(description: str | None, limits: Sequence[Any]) -> str:
    shown = [
        f"{sign} {getattr(limit, name):g}"
        for limit in limits
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if hasattr(limit, name)
    ]
    return (description or "") + (f" ({', '.join(shown)})" if shown else "")


def _plugin(name: str, options: type[Any]) -> str:
    module = sys.modules[options.__module__]
    variants = vars(module).get("VARIANTS")
    head = f"### {name}\n\n{(module.__doc__ or '').strip().splitlines()[0]}"
    head += f"\n\nVariants: {_names(variants)}." if variants else ""
    kinds, meanings = typing.get_type_hints(options, include_extras=True), descriptions(options)
    paths = path_options(options)
    rows = [
        (
            f"`{field.name}`",
            _kind(kinds[field.name]).replace("text", "path" if field.name in paths else "text"),
            _option_default(field),
            _meaning(meanings[field.name], _limits(kinds[field.name])),
        )
        for field in dataclasses.fields(options)
    ]
    if not rows:
        return f"{head}\n\nNo options."
    return f"{head}\n\n{_table(('key', 'type', 'default', 'meaning'), rows)}"


def _limits(annotation: Any) -> list[Any]:
    """Return the limits of a number in a type, of `X | None` those of X."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return [limit for one in arguments[1:] for limit in getattr(one, "metadata", [])]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [limit for argument in arguments for limit in _limits(argument)]
    return []


def _option_default(field: Any) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{_plain(field.default_factory())}`"
    return "required" if field.default is dataclasses.MISSING else f"`{_plain(field.default)}`"


def _text(docstring: str | None) -> str:
    """Return a docstring without its indentation."""
    lines = (docstring or "").strip().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
    return "\n".join([lines[0], *(line[margin:].rstrip() for line in lines[1:])])


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from _commands(f"{path} {name}", inner)
    else:
        yield path, command


def _command(path: str, command: Any) -> str:
    rows: list[tuple[str, ...]] = []
    for parameter in command.params:
        is_argument = parameter.param_type_name == "argument"
        many = "..." if parameter.nargs == -1 else ""
        name = f"`{parameter.name.upper()}{many}`" if is_argument else f"`{', '.join(parameter.opts)}`"
        rows.append((name, parameter.help or ""))
    return f"### {path}\n\n{_text(command.help)}\n\n{_text(command.epilog)}\n\n" + _table(
        ("argument or option", "meaning"), rows
    )


if __name__ == "__main__":
    sys.exit(main())
