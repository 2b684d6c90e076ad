"""Schema of a comparison: `edgekd compare --json` prints it, the table and the page read it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from edgekd.report.part import Number, Part, TaskName

SCHEMA: Final = "edgekd.comparison/1"
Unit = Literal["fraction", "ms", "bytes", "count", "mJ"]
Kind = Literal["score", "latency", "energy", "file"]
Verdict = Literal["better", "worse", "same", "not decided", "not comparable", "not measured"]
Weights = Literal["same", "retrained", "unknown"]


class ComparedRun(Part):
    """One of the compared runs."""

    letter: str = Field(description="its name in the tables: `A` is the baseline")
    path: str = Field(description="folder or report as it was given")
    title: str = Field("", description="title of the report")
    recipe_sha256: str = Field("", description="hash of the recipe")
    created: str = Field("", description="time of the report, ISO 8601")


class Change(Part):
    """A difference of two runs other than results: a recipe key, a version, a fact of the machine."""

    kind: Literal["recipe", "version", "machine"] = Field(description="`recipe`, `version` of a package, or `machine`")
    key: str = Field(description="dotted key, e.g. `student.train.steps`")
    old: str = Field(description="value in the baseline; `–` where the key is absent")
    new: str = Field(description="value in the other run")


class Refusal(Part):
    """Figures that are not compared, with the reason."""

    kind: Kind = Field(description="`score`, `latency` or `energy`")
    rows: list[str] = Field(description="ids of the rows")
    reason: str = Field(description="one line")


class Difference(Part):
    """One figure of one row in two runs."""

    figure: str = Field(description="name of a [metric](metrics.md), or e.g. `latency_p50_ms`, `size_bytes`")
    title: str = Field(description="title for a reader")
    kind: Kind = Field(description="`score`, `latency`, `energy` or `file`")
    unit: Unit = Field(description="`fraction`, `ms`, `bytes`, `count` or `mJ`")
    old: Number = Field(None, description="baseline")
    new: Number = Field(None, description="other run")
    change: Number = Field(None, description="`new - old` for fractions, else `new / old`; null when not comparable")
    low: Number = Field(None, description="lower end of the 95 % interval of `change`; null without an interval")
    high: Number = Field(None, description="upper end")
    verdict: Verdict = Field(
        description="`better`, `worse`, `same`, `not decided` (the interval holds no change, or there is no interval), "
        "`not comparable`, or `not measured` (in one of the runs)"
    )
    reservation: str = Field(
        "", description="`one seed` or `machine not quiet`: another possible cause of a decided verdict"
    )
    note: str = Field("", description="what the verdict does not cover, or why there is none")


class ComparedRow(Part):
    """One network or engine that both runs have."""

    id: str = Field(description="id of the row")
    label: str = Field("", description="name for a reader")
    weights: Weights = Field(
        "unknown",
        description="`same`: the network was not trained again; `retrained`: the scores hold training noise of one seed; `unknown`",
    )
    figures: list[Difference] = Field([], description="one per figure that one of the runs has")


class Pair(Part):
    """The baseline and one other run."""

    old: str = Field(description="letter of the baseline")
    new: str = Field(description="letter of the other run")
    changes: list[Change] = Field([], description="recipe, versions and machine")
    refused: list[Refusal] = Field([], description="figures that are not compared")
    rows: list[ComparedRow] = Field([], description="rows of both runs, by id")
    only_old: list[str] = Field([], description="rows of the baseline alone")
    only_new: list[str] = Field([], description="rows of the other run alone")


class Comparison(Part):
    """Comparison of runs with the first of them."""

    schema_: Literal["edgekd.comparison/1"] = Field(alias="schema", description=f"`{SCHEMA}`")
    task: TaskName = Field(description="`semantic`, `detection` or `instance`")
    runs: list[ComparedRun] = Field(description="in the order of the command line")
    pairs: list[Pair] = Field(description="one per run after the first")
