"""A frame's result as JSON: values worked out by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from edgekd.board.detection import Detections, Selection
from edgekd.board.postprocess import Timed
from edgekd.board.run_masks import tight_masks
from edgekd.board.runs import encode_values
from edgekd.runner.frames import Frame
from edgekd.runner.manifest import Manifest, Tolerance
from edgekd.runner.metrics import Metrics
from edgekd.runner.results import ResultSettings, gray_png, to_json, to_line, write_map

FRAME = Frame("straße.png", 3, 1_790_000_000.25, np.zeros((2, 4, 3), np.uint8), dropped=5)
SETTINGS = ResultSettings(Selection(min_score=0.3, most=2), has_runs=True)


def test_a_class_map_is_shares_and_runs_column_by_column() -> None:
    class_map = np.array([[0, 0, 2, 2], [0, 1, 2, 2]], np.uint8)
    assert to_json(FRAME, Timed(class_map, (1.23456, 2, 3)), ("sky", "road", "car"), SETTINGS) == {
        "schema": "edgekd.results/1",
        "source": "straße.png",
        "index": 3,
        "time": "2026-09-21T14:13:20.250Z",
        "width": 4,
        "height": 2,
        "milliseconds": {"pre": 1.235, "engine": 2, "post": 3},
        "dropped": 5,
        "classes": {"car": 0.5, "sky": 0.375, "road": 0.125},
        "class_map": {"size": [2, 4], "values": [0, 1, 2], "counts": [3, 1, 4]},
    }


def test_objects_below_the_least_score_are_left_out_and_masks_are_cocos() -> None:
    masks = np.zeros((3, 2, 4), bool)
    masks[0, 1, 0] = masks[0, :, 1] = True
    boxes = np.array([[0.123, 0, 2, 2], [1, 0, 2, 1], [0, 0, 1, 1]], np.float32)
    scores, labels = np.array([0.98765, 0.5, 0.29], np.float32), np.array([2, 0, 1])
    found = Timed(Detections(boxes, scores, labels, tight_masks(masks)), (0, 0, 0))
    data = to_json(FRAME, found, ("sky", "road", "car"), SETTINGS)
    first, second = data["objects"]
    assert first == {
        "class": "car",
        "score": 0.9876,
        "box_xyxy": [0.12, 0, 2, 2],
        "mask": {"size": [2, 4], "counts": [1, 3, 4]},
    }
    assert (second["class"], second["mask"]["counts"]) == ("sky", [8])
    assert data["more"] is True
    without = ResultSettings(Selection(min_score=0.9, most=2), has_masks=False)
    assert to_json(FRAME, found, ("sky", "road", "car"), without)["objects"] == [
        {k: first[k] for k in first if k != "mask"}
    ]


def test_a_result_is_one_line_that_json_reads() -> None:
    line = to_line({"source": "a\nb ü", "score": 0.5})
    assert line == '{"source":"a\\nb ü","score":0.5}\n'.encode()
    assert json.loads(line) == {"source": "a\nb ü", "score": 0.5}


def test_runs_of_a_map_are_read_back() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (7, 5))
    runs = encode_values(labels)
    np.testing.assert_array_equal(np.repeat(runs["values"], runs["counts"]).reshape(5, 7).T, labels)


def test_a_map_is_a_gray_png_named_after_its_source_in_the_folder(tmp_path: Path) -> None:
    class_map = np.array([[0, 255, 7]], np.uint8)
    image = Image.open(io.BytesIO(gray_png(class_map)))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.array(image), class_map)
    names = [
        write_map(tmp_path, source, 7, class_map) for source in ("a/b/x.png", "rtsp://h/../../etc/pass wd", "..", "/")
    ]
    assert [Path(name).name for name in names] == [
        "x_000007_mask.png",
        "pass_wd_000007_mask.png",
        "frame_000007_mask.png",
        "frame_000007_mask.png",
    ]
    assert {Path(name).parent for name in names} == {tmp_path}


def test_metrics_are_cumulative_buckets_in_seconds() -> None:
    manifest = Manifest('a"b', 3, "semantic", "openvino", "int8", "engine/e", Tolerance(0, 0), 0)
    metrics = Metrics(manifest)
    metrics.count_result((0.5, 4, 3000), dropped=2)
    metrics.count_result((0.5, 6, 3000))
    metrics.count_answer(200)
    lines = metrics.text(connections=3, queue=1).splitlines()
    assert r'edgekd_release_info{name="a\"b",version="3",target="openvino",precision="int8"} 1' in lines
    for line in (
        'edgekd_stage_seconds_bucket{stage="pre",le="0.001"} 2',
        'edgekd_stage_seconds_bucket{stage="engine",le="0.005"} 1',
        'edgekd_stage_seconds_bucket{stage="engine",le="0.01"} 2',
        'edgekd_stage_seconds_bucket{stage="post",le="2.5"} 0',
        'edgekd_stage_seconds_bucket{stage="post",le="+Inf"} 2',
        'edgekd_stage_seconds_sum{stage="engine"} 0.010000',
        "edgekd_frames_dropped_total 2",
        "edgekd_http_connections 3",
        'edgekd_http_answers_total{status="200"} 1',
    ):
        assert line in lines
