"""A run against limits: what holds, what is broken, what the measurement cannot resolve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_run import changed, report, write
from pydantic import ValidationError

from edgekd.comparison.ci_files import junit, markdown
from edgekd.comparison.gate import Check, GateResult, gate
from edgekd.comparison.limits import Limit, Limits, baseline_limits, read_limits
from edgekd.comparison.runs import Run
from edgekd.core.recipe_loading import RecipeError
from edgekd.errors import UserError


def limits(*entries: dict[str, Any], undecided: str = "fail") -> Limits:
    return Limits.model_validate({"schema": "edgekd.limits/1", "undecided": undecided, "limits": entries})


def check_of(run: Path, undecided: str = "fail", baseline: Path | None = None, **limit: Any) -> Check:
    """Return the only check of a limit, on the int8 engine unless another row is named."""
    entry = {"row": "openvino-int8", **limit}
    before = Run(baseline) if baseline else None
    (check,) = gate(Run(run), limits(entry, undecided=undecided), before).checks
    return check


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run whose int8 engine has 77.5 % mIoU of the float engine's 100 %, takes 12 ms of its 10, and is 2 kB large."""
    content = changed(report(), "openvino-int8", rounds_ms=[11.0, 13.0] * 6, size_bytes=2000, sha256="int8")
    content = changed(content, "openvino-fp32", rounds_ms=[10.0] * 12)
    return write(tmp_path / "run", content, openvino_int8=6)


@pytest.mark.parametrize(
    ("limit", "outcome", "text"),
    [
        ({"figure": "miou", "min": 0.77}, "passed", "77.5 %"),
        ({"figure": "miou", "min": 0.78}, "broken", "77.5 %"),
        ({"figure": "miou", "against": "float", "max_drop": 0.23}, "passed", "22.5 points worse"),
        ({"figure": "miou", "against": "float", "max_drop": 0.22}, "broken", "22.5 points worse"),
        ({"figure": "miou", "against": "student", "max_drop": 0.23}, "passed", "22.5 points worse"),
        ({"figure": "latency_p50_ms", "max": 14}, "passed", "11.0 ms [11.0, 13.0]"),
        ({"figure": "latency_p50_ms", "max": 10}, "broken", "11.0 ms [11.0, 13.0]"),
        ({"figure": "latency_p50_ms", "against": "float", "max_ratio": 1.4}, "passed", "1.10× [1.10×, 1.30×]"),
        ({"figure": "latency_p50_ms", "against": "openvino-fp32", "max_ratio": 1.0}, "broken", "1.10× [1.10×, 1.30×]"),
        ({"figure": "size_bytes", "max": 2000}, "passed", "2.00 kB"),
        ({"figure": "size_bytes", "max": 1999}, "broken", "2.00 kB"),
        ({"figure": "params", "min": 10, "max": None}, "passed", "10"),
    ],
)
def test_a_limit_is_held_to_the_measurement(run: Path, limit: dict[str, Any], outcome: str, text: str) -> None:
    check = check_of(run, **limit)
    assert (check.outcome, check.text, check.is_decided) == (outcome, text, True)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ({"figure": "miou", "min": 0.77}, "mIoU at least 77.0 %"),
        ({"figure": "miou", "against": "float", "max_drop": 0.02}, "mIoU at most 2.0 points worse than float"),
        ({"figure": "latency_p99_ms", "max": 12}, "engine p99 at most 12.0 ms"),
        ({"figure": "size_bytes", "max": 1e6}, "size at most 1.00 MB"),
    ],
)
def test_a_limit_is_said_in_words(run: Path, limit: dict[str, Any], words: str) -> None:
    assert check_of(run, **limit).limit == words


@pytest.mark.parametrize(("undecided", "outcome"), [("fail", "broken"), ("pass", "passed"), ("value", "passed")])
def test_a_limit_within_the_interval_goes_by_the_policy(run: Path, undecided: str, outcome: str) -> None:
    """Nearest-rank median 11 ms; rounds of 11 and 13 ms, so the limit 12 is within."""
    check = check_of(run, undecided=undecided, figure="latency_p50_ms", max=12)
    assert (check.outcome, check.is_decided) == (outcome, False)
    assert check.text == "11.0 ms [11.0, 13.0]; the limit is within the interval"
    own = check_of(run, figure="latency_p50_ms", max=12, **{"undecided": undecided})  # of the limit, not of the file
    assert own.outcome == outcome


def test_the_value_policy_can_break_a_limit_too(run: Path) -> None:
    (check,) = gate(
        Run(run),
        limits({"row": "openvino-int8", "figure": "latency_p50_ms", "min": 12.0}, undecided="value"),
        None,
    ).checks
    assert (check.outcome, check.is_decided) == ("broken", False)


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ({"row": "rknn-int8", "figure": "miou", "min": 0.1}, "no such row in the run"),
        ({"row": "rknn-*", "figure": "miou", "min": 0.1}, "no such row in the run"),
        ({"figure": "energy_net_mj", "max": 10}, "not measured"),
        ({"figure": "map", "min": 0.1}, "not measured"),
        ({"row": "student", "figure": "latency_p50_ms", "max": 10}, "not measured"),
        ({"figure": "miou", "against": "teacher", "max_drop": 0.1}, "no row 'teacher'"),
        ({"row": "student", "figure": "miou", "against": "float", "max_drop": 0.1}, "no float engine of its target and board"),
    ],
)  # fmt: skip
def test_what_is_missing_is_broken(run: Path, limit: dict[str, Any], text: str) -> None:
    check = check_of(run, undecided="pass", **limit)
    assert (check.outcome, check.text) == ("broken", text)


def test_a_row_that_failed_says_why(tmp_path: Path) -> None:
    content = report()
    content["rows"][-1] = {"id": "openvino-int8", "status": "failed", "reason": "the compiler crashed", "metrics": {}}
    (folder := tmp_path / "run").mkdir()
    (folder / "report.json").write_text(json.dumps(content))
    content_path = write(tmp_path / "other", report())
    check = check_of(folder, figure="size_bytes", max=10)
    assert (check.outcome, check.text) == ("broken", "not measured: the compiler crashed")
    against = check_of(folder, figure="size_bytes", against="baseline", max_ratio=1, baseline=content_path)
    assert (against.outcome, against.text) == ("broken", "not measured: the compiler crashed")


def test_a_pattern_holds_each_row_that_fits_also_one_that_the_run_lost(run: Path, tmp_path: Path) -> None:
    wanted = limits({"row": "openvino-*", "figure": "miou", "min": 0.9})
    assert [(one.row, one.outcome) for one in gate(Run(run), wanted, None).checks] == [
        ("openvino-fp32", "passed"),
        ("openvino-int8", "broken"),
    ]
    content = report()
    content["rows"].append({**content["rows"][-1], "id": "openvino-fp16"})
    more = Run(write(tmp_path / "baseline", content))
    assert [one.row for one in gate(Run(run), wanted, more).broken] == ["openvino-int8", "openvino-fp16"]


def test_a_row_whose_id_looks_like_a_pattern_is_found(tmp_path: Path) -> None:
    content = report()
    content["rows"][-1]["id"] = "int8[a]"
    path = write(tmp_path / "run", content)
    assert check_of(path, row="int8[a]", figure="miou", min=0.9).outcome == "passed"


# --- baseline ---------------------------------------------------------------------------------------------------------


def test_a_copy_holds_against_its_baseline(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, report()) for name in ("old", "new")]
    result = gate(Run(paths[1]), baseline_limits("semantic"), Run(paths[0]), needs_every_figure=False)
    assert result.broken == []
    assert [(one.row, one.limit.partition(" at")[0]) for one in result.checks] == [
        ("student", "mIoU"), ("openvino-fp32", "mIoU"), ("openvino-int8", "mIoU"),
        ("openvino-fp32", "engine p50"), ("openvino-int8", "engine p50"),
        ("student", "size"), ("openvino-fp32", "size"), ("openvino-int8", "size"),
    ]  # fmt: skip


def test_a_run_that_got_worse_by_one_option_breaks_its_row(run: Path, tmp_path: Path) -> None:
    baseline = Run(write(tmp_path / "old", report()))
    result = gate(Run(run), baseline_limits("semantic"), baseline, needs_every_figure=False)
    assert [(one.row, one.text) for one in result.broken] == [
        ("openvino-int8", "22.5 points worse"),
        ("openvino-int8", "1.10× [1.10×, 1.30×]"),
        ("openvino-int8", "2.00×"),
    ]


def test_what_cannot_be_compared_is_broken(tmp_path: Path) -> None:
    new = report()
    new["rows"] = [{**one, "images_sha256": "others"} for one in new["rows"]]
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new)]
    check = check_of(paths[1], "pass", paths[0], figure="miou", against="baseline", max_drop=0.5)
    assert check.outcome == "broken"
    assert check.text.startswith("not comparable: the scored images or labels differ")


def test_a_metric_of_which_lower_is_better_drops_when_it_rises(tmp_path: Path) -> None:
    metrics = {"spurious_components": 0.3}
    content = report()
    content["rows"] = [{**one, "metrics": {**one["metrics"], **metrics}} for one in content["rows"]]
    worse = changed(content, "openvino-int8", metrics={**content["rows"][-1]["metrics"], "spurious_components": 0.45})
    paths = [write(tmp_path / "old", content), write(tmp_path / "new", worse)]
    for bound, outcome in ((0.1, "broken"), (0.2, "passed")):
        check = check_of(paths[1], "fail", paths[0], figure="spurious_components", against="baseline", max_drop=bound)
        assert (check.outcome, check.value) == (outcome, pytest.approx(0.15))


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"figure": "miuo", "min": 0.1}, "unknown figure 'miuo'; did you mean 'miou'?"),
        ({"figure": "miou", "against": "baseline", "max_drop": 0.1}, "needs a baseline; give --baseline REPORT"),
    ],
)
def test_wrong_input_is_no_broken_limit(run: Path, limit: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_of(run, **limit)


def test_a_baseline_of_another_task_or_without_figures_is_refused(run: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("task", report(task="instance"), "compare runs of one task"),
        ("empty", report(rows=[]), "no limit applies to a row"),
    ):
        baseline = Run(write(tmp_path / name, content))
        with pytest.raises(UserError, match=message):
            gate(Run(run), baseline_limits("semantic"), baseline, needs_every_figure=False)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"figure": "miou"}, "expected one of min, max, max_drop and max_ratio, got none"),
        ({"figure": "miou", "min": 0.1, "max": 0.2}, "got min, max"),
        ({"figure": "miou", "min": 60}, "metrics are fractions from 0 to 1, got 60"),
        ({"figure": "miou", "min": 0.1, "against": "float"}, "leave out `against`"),
        ({"figure": "miou", "max_drop": 0.1}, "max_drop needs `against`"),
        ({"figure": "miou", "max_ratio": 0.5, "against": "float"}, "give max_drop for a metric, max_ratio for another figure"),
        ({"figure": "size_bytes", "max_drop": 0.5, "against": "float"}, "give max_drop for a metric, max_ratio for another figure"),
        ({"figure": "miou", "min": float("nan")}, "finite number"),
        ({"figure": "miou", "minimum": 0.1}, "Extra inputs are not permitted"),
        ({"figure": "", "min": 0.1}, "at least 1 character"),
    ],
)  # fmt: skip
def test_a_limit_that_says_nothing_clear_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Limit.model_validate({"row": "a", **entry})


def test_a_wrong_limit_is_one_finding_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("schema: edgekd.limits/1\nlimits: [{row: a, figure: miou, min: 60}]", encoding="utf-8")
    with pytest.raises(RecipeError) as found:
        read_limits(path)
    assert "60 % is 0.6" in str(found.value)
    assert "at least 1 item" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a file of limits is a mapping of sections"),
        ("limits: []", "schema: missing"),
        ("schema: edgekd.limits/2\nlimits: [{row: a, figure: miou, min: 0.1}]", "schema: "),
        ("schema: edgekd.limits/1\nlimits: []", "limits: "),
        ("schema: edgekd.limits/1\nlimits: {row: a}", "limits: "),
        ("schema: edgekd.limits/1\nlimits: [{row: a, figure: miou, mim: 0.1}]", "unknown key; did you mean 'min'?"),
        ("schema: edgekd.limits/1\nlimits: &a [*a]", "limits.yaml: "),
        ("!!python/object/apply:os.system [ls]", "limits.yaml: not readable as a file of limits"),
        ("\x00", "limits.yaml: not readable as a file of limits"),
    ],
)
def test_a_file_that_is_none_of_limits_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "limits.yaml").write_text(text)
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        read_limits(tmp_path / "limits.yaml")
    assert "\n" not in str(caught.value)


# --- files for CI -----------------------------------------------------------------------------------------------------


def result_of(*checks: Check) -> GateResult:
    return GateResult(schema="edgekd.gate/1", run="runs/b", baseline="runs/a", checks=list(checks))


HELD = Check(row="a", limit="mIoU at least 60.0 %", outcome="passed", text="61.0 %")
BROKEN = Check(row="b", limit="size at most 1.00 MB", outcome="broken", text="2.00 MB")


def test_junit_has_a_case_for_each_check_and_a_failure_for_each_broken_limit() -> None:
    text = junit(result_of(HELD, BROKEN))
    suites = ElementTree.fromstring(text)
    assert (suites.get("tests"), suites.get("failures")) == ("2", "1")
    cases = list(suites.iter("testcase"))
    assert [(case.get("classname"), case.get("name")) for case in cases] == [(c.row, c.limit) for c in (HELD, BROKEN)]
    assert [case.find("failure") is not None for case in cases] == [False, True]
    failure = cases[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "2.00 MB"
    assert failure.text == "b: size at most 1.00 MB: 2.00 MB"


def test_markdown_has_broken_limits_first() -> None:
    assert markdown(result_of(HELD, BROKEN)) == (
        "### edgekd gate: 1 of 2 limits are broken\n\n`runs/b` against `runs/a`\n\n"
        "| | row | limit | measured |\n|---|---|---|---|\n"
        "| ❌ broken | `b` | size at most 1.00 MB | 2.00 MB |\n"
        "| ✅ passed | `a` | mIoU at least 60.0 % | 61.0 % |\n"
    )
    assert "all 1 limits hold" in markdown(result_of(HELD))


def test_names_from_strangers_stay_text() -> None:
    row = "<img src=x>|`a`\n\x00\ud800]]>"
    check = Check(row=row, limit="a\n|b", outcome="broken", text="<b>&")
    case = next(ElementTree.fromstring(junit(result_of(check))).iter("testcase"))
    assert case.get("classname") == "<img src=x>|`a`\n\ufffd\ufffd]]>"
    (line,) = [line for line in markdown(result_of(check)).splitlines() if "broken |" in line]
    assert line.replace("\\|", "").count("|") == 5
    assert "<" not in line
