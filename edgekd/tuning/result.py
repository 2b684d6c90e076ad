"""The result of a tuning: JSON, the overrides that carry it into a recipe, and the rows of its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgekd.board.choices import Choice
from edgekd.tuning.verdicts import Ratio, Trial

SCHEMA: Final = "edgekd.tune/1"
HEADERS = ("choice", "wall ms", "wall, ratio [95 %]", "engine, ratio [95 %]", "differs", "verdict")


@dataclass(frozen=True)
class Tuned:
    """One engine.

    id: id of the engine.
    wall_ms: median wall time of the present settings.
    trials: each choice by itself.
    joined: the winners together, measured again beside the present settings; empty without a winner.
    options: options that are written, complete values by name.
    """

    id: str
    wall_ms: float
    trials: tuple[Trial, ...]
    joined: tuple[Trial, ...] = ()
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Tuning:
    """The result of a tuning.

    recipe_name: recipe of the run.
    engines: the tuned engines.
    export: export settings written to the recipe.
    left_out: engines that were not tuned -> reason.
    """

    recipe_name: str
    engines: tuple[Tuned, ...]
    export: Mapping[str, Any]
    left_out: Mapping[str, str]

    def overrides(self) -> list[str]:
        """Return the settings that won as overrides of the recipe."""
        found = [f"export.{key}={_yaml(value)}" for key, value in self.export.items()]
        for engine in self.engines:
            found += [
                f"engines.{engine.id}.options.{key}={_yaml(value)}" for key, value in (engine.options or {}).items()
            ]
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return JSON."""
        return {
            "schema": SCHEMA,
            "recipe_name": self.recipe_name,
            "engines": [asdict(engine) for engine in self.engines],
            "export": dict(self.export),
            "left_out": dict(self.left_out),
            "overrides": self.overrides(),
        }


def fragment(tuning: Tuning, run: str) -> str:
    """Return the text of `tune.yaml`: a list of overrides for `edgekd run RECIPE --set @FILE`."""
    head = [f"# Settings that `edgekd tune {run}` measured as faster, with equal results. Use them with --set @FILE."]
    found = tuning.overrides()
    return "\n".join([*head, *(f"- {json.dumps(one)}" for one in found), *([] if found else ["[]"])]) + "\n"


def rows(engine: Tuned) -> list[tuple[str, ...]]:
    """Return the table of one engine, text below `HEADERS`; the first row is the present settings."""
    present = ("present settings", f"{engine.wall_ms:.3f}", "1", "1", "", "")
    return [present, *(_row(one) for one in (*engine.trials, *engine.joined))]


def options_of(choice: Choice, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a choice as complete values: a mapping is merged with the one that is given."""
    found = {}
    for key, value in choice.options.items():
        before = given.get(key)
        found[key] = (
            {**(before if isinstance(before, Mapping) else {}), **value} if isinstance(value, Mapping) else value
        )
    return found


def _row(one: Trial) -> tuple[str, ...]:
    wall_ms = "–" if one.wall_ms is None else f"{one.wall_ms:.3f}"
    different = "–" if one.different is None else f"{one.different:.2%}"
    word = one.word if one.choice is not None else f"another result: {one.word}"
    return (
        one.name,
        wall_ms,
        _ratio(one.wall),
        _ratio(one.engine),
        different,
        f"{word}: {one.reason}" if one.reason else word,
    )


def _ratio(found: Ratio | None) -> str:
    return "–" if found is None else f"{found.median:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _yaml(value: Any) -> str:
    """Return a value on one line, as YAML that is also JSON; a plain word as it is."""
    return (
        value
        if isinstance(value, str) and value.replace("_", "").isalnum() and not value.isdigit()
        else json.dumps(value)
    )


def parts_of(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Return trials by name."""
    return {one.name: one for one in trials}
