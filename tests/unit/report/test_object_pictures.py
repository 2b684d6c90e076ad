"""Pictures of detections: crowds and difficult objects are neither missed nor false alarms."""

from __future__ import annotations

import numpy as np
from report_rows import network

from edgekd.data.base import Instances, Sample
from edgekd.report.collect import _truth
from edgekd.report.object_pictures import read_object_pictures
from edgekd.report.rows import read_rows


def test_a_crowd_is_not_missed_and_what_lies_in_it_is_no_false_alarm() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 60, 20], [0, 20, 10, 30]], np.float32)
    masks = np.zeros((3, 40, 80), bool)
    objects = Instances(masks, boxes, np.array([0, 0, 1]), np.array([False, True, False]))
    image = np.zeros((40, 80, 3), np.uint8)
    truth = _truth("instance", Sample("x", image, np.full((40, 80), 255, np.uint8), objects))
    assert truth["/masks"].shape == (2, 40, 80)
    # One object is found; three quarters of a box lie in the crowd, of another class's box all; one box is on nothing.
    found = np.array([[0, 0, 10, 10], [55, 5, 60, 25], [30, 5, 40, 15], [70, 30, 80, 40]], np.float32)
    archive = {
        "0/name": np.array("x"), "0/image": image, **{f"0/truth{key}": value for key, value in truth.items()},
        "0/student/boxes": found, "0/student/labels": np.array([0, 0, 1, 0]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, read_rows([network("student", 0.9)]), ["car", "person"])
    assert picture.tiles[1].caption == "2 objects"
    assert picture.tiles[2].caption == "1 of 2 found, 1 missed, 2 false alarms"


def test_a_report_without_crowds_is_drawn() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    archive = {
        "0/name": np.array("x"), "0/image": np.zeros((20, 20, 3), np.uint8),
        "0/truth/boxes": box, "0/truth/labels": np.array([0]),
        "0/student/boxes": box + 10, "0/student/labels": np.array([0]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, read_rows([network("student", 0.9)]), ["car"])
    assert picture.tiles[2].caption == "0 of 1 found, 1 missed, 1 false alarms"
