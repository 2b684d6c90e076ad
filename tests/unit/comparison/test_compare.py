"""Runs against runs: what is decided, what is not, and what is not compared, with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import MACHINE, changed, report, write

from edgekd.comparison.compare import compare
from edgekd.comparison.model import Comparison, Difference, Pair
from edgekd.comparison.table import change_text, refused_lines, table_rows, verdict_text
from edgekd.errors import ArtifactError, UserError
from tests.conftest import REPOSITORY

STORED = REPOSITORY / "tests/unit/report/stored/quickstart.json"


def pair_of(folder: Path, new: dict[str, Any], old: dict[str, Any] | None = None, **hits: int) -> Pair:
    """Return the comparison of a run with the made one."""
    paths = [write(folder / "old", old or report()), write(folder / "new", new, **hits)]
    return compare(paths).pairs[0]


def figure(pair: Pair, row: str, name: str) -> Difference:
    return next(one for found in pair.rows if found.id == row for one in found.figures if one.figure == name)


def test_a_run_is_the_same_as_its_copy(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, report())
    assert {one.verdict for row in pair.rows for one in row.figures} == {"same"}
    assert (pair.changes, pair.refused, pair.only_old, pair.only_new) == ([], [], [], [])


def test_a_loss_on_the_same_weights_is_decided_by_the_images(tmp_path: Path) -> None:
    """Six of eight pixels: IoU 6/8 and 8/10, so 77.5 %, in every image."""
    pair = pair_of(tmp_path, changed(report(), "openvino-int8", sha256="other file"), openvino_int8=6)
    found = figure(pair, "openvino-int8", "miou")
    assert (found.old, found.new, found.change) == (1.0, 0.775, pytest.approx(-0.225))
    assert (found.low, found.high) == (pytest.approx(-0.225), pytest.approx(-0.225))
    assert (found.verdict, found.reservation, found.note) == ("worse", "", "")
    assert figure(pair, "openvino-fp32", "miou").verdict == "same"


def test_a_loss_after_another_training_is_one_seed(tmp_path: Path) -> None:
    new = changed(changed(report(), "student", sha256="others"), "openvino-int8", sha256="other file")
    new["recipe"] = {**new["recipe"], "student": {"train": {"steps": 20}}}
    pair = pair_of(tmp_path, new, student=6, openvino_int8=6)
    for row in ("student", "openvino-int8"):
        found = figure(pair, row, "miou")
        assert verdict_text(found) == "worse, one seed"
        assert "training noise" in found.note
    assert [(one.kind, one.key, one.old, one.new) for one in pair.changes] == [
        ("recipe", "student.train.steps", "60", "20")
    ]


def test_images_that_disagree_decide_nothing(tmp_path: Path) -> None:
    """Half of the images lose and half gain as much: the mean is 0 and the interval holds it."""
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", changed(report(), "openvino-int8", sha256="b"))]
    for path, first in zip(paths, (5, 7), strict=True):
        data = path / "report_data/image_counts.npz"
        with np.load(data) as archive:
            arrays = {name: archive[name] for name in archive.files}
        hits = np.where(np.arange(40) % 2, first, 12 - first).astype(np.uint32)
        mixed = arrays["openvino-int8"]
        mixed[:, 0, 0], mixed[:, 2, 0], mixed[:, 2, 1] = hits, hits, 16 - hits
        np.savez(data, **{**arrays, "openvino-int8": mixed})
        content = json.loads((path / "report.json").read_text())
        content["rows"][-1]["metrics"]["miou"] = (6 / 8 + 8 / 10) / 2
        (path / "report.json").write_text(json.dumps(content))
    found = figure(compare(paths).pairs[0], "openvino-int8", "miou")
    assert found.verdict == "not decided"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_other_images_are_not_compared_and_the_rest_is(tmp_path: Path) -> None:
    new = report(recipe={"data": {"format": "scenes", "val": "test"}})
    new["rows"] = [{**one, "images_sha256": "others"} for one in new["rows"]]
    pair = pair_of(tmp_path, new)
    assert figure(pair, "student", "miou").verdict == "not comparable"
    assert figure(pair, "openvino-int8", "latency_p50_ms").verdict == "same"
    assert figure(pair, "openvino-int8", "size_bytes").verdict == "same"
    assert refused_lines(pair) == [
        "score of all rows: the scored images or labels differ (40 images of split 'val'; 40 images of split 'test')"
    ]


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (["road", "pole", "sign"], "other classes: 2 and 3"),
        (["road", "sign"], "other classes: class 1 is 'pole' and 'sign'"),
    ],
)
def test_other_classes_are_not_compared(tmp_path: Path, classes: list[str], reason: str) -> None:
    pair = pair_of(tmp_path, report(classes=classes))
    assert [(one.kind, one.reason) for one in pair.refused] == [("score", reason)]


@pytest.mark.parametrize(
    ("part", "key", "value", "reason"),
    [
        ("use", "machine_id", "two", "another machine: A CPU and A CPU"),
        ("use", "power_mode", {"governors": ["powersave"]}, "other power mode: power_mode is {'governors': "),
        ("hardware", "logical_cores", 4, "another machine: logical_cores is 2 and 4"),
    ],
)
def test_latency_of_another_machine_is_not_compared(
    tmp_path: Path, part: str, key: str, value: Any, reason: str
) -> None:
    machine = {**MACHINE, part: {**MACHINE[part], key: value}}
    pair = pair_of(tmp_path, report(boards={"local": machine}))
    (refused,) = pair.refused
    assert (refused.kind, refused.rows) == ("latency", ["openvino-fp32", "openvino-int8"])
    assert refused.reason.startswith(reason)
    assert figure(pair, "openvino-int8", "miou").verdict == "same"


def test_another_kernel_is_a_change_and_no_other_machine(tmp_path: Path) -> None:
    machine = {**MACHINE, "hardware": {**MACHINE["hardware"], "kernel": "6.2"}}
    pair = pair_of(tmp_path, report(boards={"local": machine}))
    assert pair.refused == []
    assert [(one.kind, one.key, one.old, one.new) for one in pair.changes] == [("machine", "kernel", "6.1", "6.2")]


def test_another_runtime_is_not_compared(tmp_path: Path) -> None:
    pair = pair_of(tmp_path, changed(report(), "openvino-int8", target="onnxruntime"))
    assert refused_lines(pair) == ["latency of openvino-int8: other runtime: openvino and onnxruntime"]


@pytest.mark.parametrize(
    ("rounds", "warnings", "verdict"),
    [
        ([12.0] * 10, [], "worse"),
        ([8.0] * 10, [], "better"),
        ([10.2] * 10, [], "same"),  # within 5 %, which a bench takes as steady
        ([9.0, 12.0] * 5, [], "not decided"),
        ([10.5] + [12.0] * 9, ["not quiet"], "not decided"),  # one round was within 5 %
        ([12.0] * 10, ["not quiet"], "worse, machine not quiet"),
        ([12.0] * 6, [], "not decided"),  # too few rounds for an interval
    ],
)
def test_latency_is_decided_by_the_rounds_of_both_benches(
    tmp_path: Path, rounds: list[float], warnings: list[str], verdict: str
) -> None:
    new = changed(report(), "openvino-int8", rounds_ms=rounds, sha256="other file", warnings=warnings)
    assert verdict_text(figure(pair_of(tmp_path, new), "openvino-int8", "latency_p50_ms")) == verdict


def test_an_unchanged_engine_is_the_control_of_the_machine(tmp_path: Path) -> None:
    """The fp32 file is the same and 1.3 times slower: so the machine is, and 1.2 times decides nothing."""
    new = changed(report(), "openvino-fp32", rounds_ms=[13.0] * 10)
    new = changed(new, "openvino-int8", rounds_ms=[12.0] * 10, sha256="other file")
    pair = pair_of(tmp_path, new)
    found = figure(pair, "openvino-int8", "latency_p50_ms")
    assert (found.verdict, found.change) == ("same", pytest.approx(1.2))
    assert "an unchanged engine differs by 30%" in found.note


def test_an_unchanged_engine_under_another_runtime_is_no_control(tmp_path: Path) -> None:
    new = changed(report(), "openvino-fp32", rounds_ms=[13.0] * 10, runtime={"version": "2.0", "threads": 2})
    pair = pair_of(tmp_path, new)
    assert figure(pair, "openvino-fp32", "latency_p50_ms").verdict == "worse"


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [("size_bytes", 1005, "same"), ("size_bytes", 1200, "worse"), ("params", 11, "worse"), ("macs", 90, "better")],
)
def test_facts_of_the_file_are_exact(tmp_path: Path, key: str, value: int, verdict: str) -> None:
    found = figure(pair_of(tmp_path, changed(report(), "openvino-int8", **{key: value})), "openvino-int8", key)
    assert found.verdict == verdict
    assert found.low == found.high == found.change


def meter(net_mj: float | None, uncertainty: float, name: str = "VDD_IN") -> dict[str, Any]:
    return {"meters": [{"meter": name, "net_mj": net_mj, "uncertainty": uncertainty}]}


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        (meter(240.0, 0.1), "worse"),  # 2.4 x 0.9 / 1.1 = 1.96
        (meter(120.0, 0.1), "not decided"),  # 1.2 x 0.9 / 1.1 = 0.98
        (meter(240.0, 0.1, "VDD_CPU"), "not comparable"),
        (meter(None, 0.1), "not measured"),
    ],
)
def test_energy_is_decided_by_the_uncertainty_of_the_meter(tmp_path: Path, new: dict[str, Any], verdict: str) -> None:
    old = changed(report(), "openvino-int8", energy=meter(100.0, 0.1))
    pair = pair_of(tmp_path, changed(report(), "openvino-int8", energy=new), old)
    assert figure(pair, "openvino-int8", "energy_net_mj").verdict == verdict


def test_rows_of_one_run_are_named(tmp_path: Path) -> None:
    new = report()
    new["rows"][-1]["id"] = "rknn-int8"
    pair = pair_of(tmp_path, new)
    assert refused_lines(pair) == ["only in A: openvino-int8", "only in B: rknn-int8"]


def test_what_has_nothing_in_common_is_refused(tmp_path: Path) -> None:
    objects = report(task="detection")
    with pytest.raises(UserError, match="task 'detection', .* of 'semantic'; compare runs of one task"):
        pair_of(tmp_path / "task", objects)
    with pytest.raises(UserError, match="no row of the same id"):
        pair_of(tmp_path / "rows", report(rows=[]))
    with pytest.raises(UserError, match="expected 2 to 26 runs to compare, got 1"):
        compare([tmp_path])


def test_a_report_of_an_earlier_edgekd_is_compared_as_far_as_it_says(tmp_path: Path) -> None:
    """It has no hash of the images, no counts by image and no machine."""
    content = json.loads(STORED.read_text())
    content["rows"][0]["metrics"]["miou"] += 0.1
    (tmp_path / "newer.json").write_text(json.dumps(content))
    (pair,) = compare([STORED, tmp_path / "newer.json"]).pairs
    teacher = figure(pair, "teacher", "miou")
    assert (teacher.verdict, teacher.change) == ("not decided", pytest.approx(0.1))
    assert "no counts or matches by image, so no interval" in teacher.note
    (refused,) = pair.refused
    assert refused.kind == "latency"
    assert refused.reason.startswith("a report does not say on which machine")


def test_without_a_hash_of_the_images_the_recipes_must_agree(tmp_path: Path) -> None:
    content = json.loads(STORED.read_text())
    content["recipe"]["data"]["options"] = {"seed": 7}
    (tmp_path / "newer.json").write_text(json.dumps(content))
    (pair,) = compare([STORED, tmp_path / "newer.json"]).pairs
    reason = next(one.reason for one in pair.refused if one.kind == "score")
    assert reason.startswith("the recipes differ in data.options, and a report does not say")


def test_arrays_that_are_not_the_report_s_are_not_used(tmp_path: Path) -> None:
    """Counts that give another mIoU, and samples of another bench."""
    new = changed(report(), "openvino-int8", sha256="other file", rounds_ms=[12.0] * 10)
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new, openvino_int8=6)]
    content = json.loads((paths[1] / "report.json").read_text())
    content["rows"][-1]["metrics"]["miou"] = 0.9
    content["rows"][-1]["latency_ms"]["n"] = 7
    (paths[1] / "report.json").write_text(json.dumps(content))
    (pair,) = compare(paths).pairs
    for name, note in (("miou", "no counts or matches by image"), ("latency_p50_ms", "no raw samples")):
        found = figure(pair, "openvino-int8", name)
        assert found.verdict == "not decided"
        assert note in found.note


HOSTILE = {
    "no zip": b"PK\x03\x04",
    "empty": b"",
    "text": b"{}",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("file", ["samples.npz", "image_counts.npz"])
def test_a_damaged_file_is_one_line(tmp_path: Path, file: str, content: bytes) -> None:
    new = changed(report(), "openvino-int8", sha256="other file", rounds_ms=[12.0] * 10)
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new)]
    (paths[1] / "report_data" / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{file}: damaged"):
        compare(paths)


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    new = changed(report(), "openvino-int8", sha256="other file")
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new)]
    np.savez(paths[1] / "report_data/image_counts.npz", **{"openvino-int8": np.array([{}], object)})
    with pytest.raises(ArtifactError, match=r"image_counts\.npz: damaged"):
        compare(paths)


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((40, 5, 2)), np.zeros((40, 5), int), np.zeros((40, 5, 2, 1), int), np.array(5)]
)
def test_arrays_of_another_shape_are_not_used(tmp_path: Path, array: np.ndarray) -> None:
    new = changed(report(), "openvino-int8", sha256="other file")
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new)]
    names = ("openvino-int8/engine_ns", "openvino-int8/engine_bursts", "openvino-int8")
    for file in ("samples.npz", "image_counts.npz"):
        np.savez(paths[1] / "report_data" / file, **dict.fromkeys(names, array))
    (pair,) = compare(paths).pairs
    assert figure(pair, "openvino-int8", "miou").low is None


def test_the_table_shows_what_changed_with_its_interval(tmp_path: Path) -> None:
    new = changed(report(), "openvino-int8", sha256="other file", size_bytes=2000, rounds_ms=[12.0] * 10)
    paths = [write(tmp_path / "old", report()), write(tmp_path / "new", new, openvino_int8=6)]
    comparison: Comparison = compare(paths)
    rows = table_rows(comparison, comparison.pairs[0])[-4:]
    assert [(row.row, row.figure, row.old, row.new, row.change, row.verdict) for row in rows] == [
        ("openvino-int8", "mIoU %", "100.0", "77.5", "−22.5", "worse"),
        ("", "boundary IoU %", "100.0", "77.5", "−22.5", "worse"),
        ("", "engine p50 ms", "10.0", "12.0", "1.20×", "worse"),
        ("", "size", "1.00 kB", "2.00 kB", "2.00×", "worse"),
    ]


def test_an_interval_is_printed_in_the_unit_of_its_change() -> None:
    one = Difference(
        figure="miou", title="mIoU", kind="score", unit="fraction", change=0.012, low=-0.003, high=0.027,
        verdict="not decided",
    )  # fmt: skip
    assert change_text(one) == "+1.2 [−0.3, +2.7]"
    assert change_text(one.model_copy(update={"unit": "ms", "change": 0.97, "low": 0.95, "high": 1.0})) == (
        "0.97× [0.95, 1.00]"
    )
    assert change_text(one.model_copy(update={"change": None})) == "–"


def test_the_baseline_is_compared_with_each_other_run(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, report()) for name in ("a", "b", "c")]
    comparison = compare(paths)
    assert [run.letter for run in comparison.runs] == ["A", "B", "C"]
    assert [(pair.old, pair.new) for pair in comparison.pairs] == [("A", "B"), ("A", "C")]
    assert Comparison.model_validate(json.loads(comparison.to_json())) == comparison


def test_a_report_that_somebody_made_is_compared_or_refused_in_one_line(tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(300):
        deep = {"a": [{"b": deep}]}
    new = changed(
        report(recipe=deep, environment={"packages": "none"}), "openvino-int8", size_bytes=10**400, sha256="b"
    )
    pair = pair_of(tmp_path, new)
    assert figure(pair, "openvino-int8", "size_bytes").verdict == "not measured"
    assert any(one.new == "..." for one in pair.changes)
