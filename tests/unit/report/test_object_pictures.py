"""Layers of detections: crowds are neither missed nor false alarms; found objects are compared; masks are lossless."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from report_rows import network

from edgekd.board.run_masks import packed, tight_masks
from edgekd.data.base import Instances, Sample
from edgekd.data.colors import palette
from edgekd.report.object_pictures import mask_layer, read_object_pictures, stored_masks
from edgekd.report.page_data import truth_arrays


def test_a_crowd_is_not_missed_and_what_lies_in_it_is_no_false_alarm() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 60, 20], [0, 20, 10, 30]], np.float32)
    masks = np.zeros((3, 40, 80), bool)
    objects = Instances(masks, boxes, np.array([0, 0, 1]), np.array([False, True, False]))
    image = np.zeros((40, 80, 3), np.uint8)
    truth = truth_arrays("instance", Sample("x", image, np.full((40, 80), 255, np.uint8), objects))
    assert truth["/mask_run_counts"].tolist() == [1, 1]  # blank masks: one run of zeros each
    assert truth["/mask_runs"].tolist() == [3200, 3200]
    # One object is found; three quarters of a box lie in the crowd, of another class's box all; one box is on nothing.
    found = np.array([[0, 0, 10, 10], [55, 5, 60, 25], [30, 5, 40, 15], [70, 30, 80, 40]], np.float32)
    archive = {
        "0/name": np.array("x"), "0/image": image, **{f"0/truth{key}": value for key, value in truth.items()},
        "0/student/boxes": found, "0/student/labels": np.array([0, 0, 1, 0]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, [network("student", 0.9)], ["car", "person"])
    assert picture.tiles[1].caption == "2 objects"
    assert picture.tiles[2].caption == "1 of 2 found, 1 missed, 2 false alarms"


def test_a_report_without_crowds_is_drawn() -> None:
    box = np.array([[0, 0, 10, 10]], np.float32)
    archive = {
        "0/name": np.array("x"), "0/image": np.zeros((20, 20, 3), np.uint8),
        "0/truth/boxes": box, "0/truth/labels": np.array([0]),
        "0/student/boxes": box + 10, "0/student/labels": np.array([0]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, [network("student", 0.9)], ["car"])
    assert picture.tiles[2].caption == "0 of 1 found, 1 missed, 1 false alarms"


def test_found_objects_of_two_networks_are_compared() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]], np.float32)
    archive = {
        "0/name": np.array("x"), "0/image": np.zeros((40, 80, 3), np.uint8),
        "0/truth/boxes": boxes, "0/truth/labels": np.array([0, 0, 0]),
        "0/student/boxes": boxes[:2], "0/student/labels": np.array([0, 0]),
        "0/distilled/boxes": boxes[1:], "0/distilled/labels": np.array([0, 0]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, [network("student", 0.9), network("distilled", 0.9)], ["car"])
    student, distilled = picture.tiles[2:]
    assert (student.found, distilled.found) == ((0, 1), (1, 2))
    assert distilled.differences == {"student": "won 1, lost 1 objects"}
    assert student.score == 2 / 3
    kinds = [(mark.kind, mark.number) for mark in student.marks]
    assert kinds == [("found", -1), ("found", -1), ("truth", 0), ("truth", 1), ("truth", 2)]


def test_a_false_alarm_is_marked_and_keeps_its_class_colour() -> None:
    archive = {
        "0/name": np.array("x"), "0/image": np.zeros((40, 80, 3), np.uint8),
        "0/truth/boxes": np.zeros((0, 4), np.float32), "0/truth/labels": np.zeros(0, int),
        "0/student/boxes": np.array([[1, 2, 4, 8]], np.float32), "0/student/labels": np.array([1]),
    }  # fmt: skip
    (picture,) = read_object_pictures(archive, [network("student", 0.9)], ["car", "person"])
    (mark,) = picture.tiles[2].marks
    assert (mark.kind, mark.box, mark.color) == ("wrong", (1, 2, 3, 6), "#" + bytes(palette(2)[1]).hex())


def test_masks_are_drawn_from_their_run_lengths_and_in_earlier_reports_from_their_bits() -> None:
    """13 pixels a row: the last byte is half used."""
    masks = np.zeros((2, 6, 13), bool)
    masks[0, 1:3, 2:5] = masks[1, 2:, 9:] = True
    expected = np.zeros((6, 13, 4), np.uint8)
    colors = palette(2)
    for mask, color in zip(masks, colors, strict=True):
        expected[mask] = [*color, 255]
    for stored in ({"mask_bits": np.packbits(masks, axis=2)}, packed(tight_masks(masks), [0, 1])):
        archive = {f"0/truth/{key}": value for key, value in stored.items()}
        read = stored_masks(archive, "0/truth", (6, 13))
        assert read is not None
        np.testing.assert_array_equal(read.whole(), masks)
        address = mask_layer(read, np.array([0, 1]), colors)
        drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))
        np.testing.assert_array_equal(drawn, expected)
