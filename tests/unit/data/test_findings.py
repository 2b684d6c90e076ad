"""What a check finds in labels, with facts made by hand: each kind with its count and its first file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgekd.core.recipe import Augment, Data
from edgekd.data.facts import SplitFacts
from edgekd.data.findings import Finding, grouped_errors
from edgekd.data.mirrored import mirrored_pairs, upended_pairs
from edgekd.data.object_cap import best_average_precision, best_recalls
from edgekd.data.pair_findings import flip_findings, never_trained, palette_findings
from edgekd.data.split_findings import (
    CheckedSplit,
    absent_classes,
    cap_findings,
    indivisible_size,
    label_findings,
    size_findings,
)

CLASSES = ("sky", "road", "car")
Size = tuple[int, int]


def facts(sizes: list[Size], labels: list[list[int]], **more: Any) -> SplitFacts:
    """Return facts of samples of these sizes; labels are rows sample, class, count."""
    count = len(sizes)
    nothing: dict[str, Any] = {
        "sides": np.zeros((0, 3)),
        "ignored": np.zeros(count, np.int64),
        "apart": np.zeros(count, np.int64),
        "unchecked": np.zeros(count, bool),
        "palettes": np.zeros((0, 3), np.int64),
        "has_objects": False,
        "repairs": {},
    }
    rows = np.array(labels, np.int64).reshape(-1, 3)
    arrays = {key: np.array(value) if isinstance(value, list) else value for key, value in more.items()}
    return SplitFacts(sizes=np.array(sizes, np.int64), labels=rows, **(nothing | arrays))


def split(sizes: list[Size], labels: list[list[int]], name: str = "train", **more: Any) -> CheckedSplit:
    return CheckedSplit(name, CLASSES, lambda sample: f"{'abcdefgh'[sample]}.jpg", facts(sizes, labels, **more))


def with_boxes(boxes: list[tuple[float, float]], size: Size = (100, 200), name: str = "train") -> CheckedSplit:
    """Return a split of one image per box (height, width)."""
    rows = [[place, height, width] for place, (height, width) in enumerate(boxes)]
    labels = [[place, 0, 1] for place in range(len(boxes))]
    return split([size] * len(boxes), labels, name, sides=rows, has_objects=True)


def data(size: Size, resize: str = "stretch") -> Data:
    return Data.model_validate({"format": "none", "size": size, "resize": resize})


def told(findings: Any) -> list[tuple[str, bool, int, str]]:
    return [(one.code, one.is_error, one.count, one.first) for one in findings]


def test_errors_of_one_cause_are_one_line_with_a_count() -> None:
    errors = [
        ("a.png", "root/masks/a.png: label 7 on 1 pixel is none of the 2 classes; fix the mask"),
        ("b.png", "root/masks/b.png: damaged or truncated (image b.png is cut); replace the file"),
        ("c.png", "root/masks/c.png: label 9 on 12 pixels is none of the 2 classes; fix the mask"),
        ("d.png", "root/masks/d.png: damaged or truncated (image d.png is cut); replace the file"),
        ("e.png", "root/masks/e.png: label 7 on 1 pixel is none of the 2 classes; fix the mask"),
    ]
    assert [(one.count, one.first, one.text) for one in grouped_errors(errors)] == [
        (2, "a.png", f"{errors[0][1]} (1 more like this)"),
        (2, "b.png", f"{errors[1][1]} (1 more like this)"),
        (1, "c.png", errors[2][1]),
    ]


def test_annotations_that_name_one_missing_image_or_class_are_one_line() -> None:
    lines = [
        f"a.json, annotation {number}: no image has id {100 + number}; remove the annotation" for number in range(468)
    ]
    (one,) = grouped_errors(("", line) for line in lines)
    assert (one.count, one.text) == (468, f"{lines[0]} (467 more like this)")
    apart = [f"{stem}.xml, object 1: unknown class {name!r}; list it" for stem, name in (("a", "cat"), ("b", "dog"))]
    assert [found.count for found in grouped_errors(("", line) for line in apart)] == [1, 1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[0, 0, 5], [1, 1, 5]], []),
        ([[0, 255, 10], [1, 255, 10]], [("no_labels", True, 2, "a.jpg")]),
        ([[0, 1, 10], [1, 1, 10]], [("one_class", True, 2, "a.jpg")]),
        (
            [[0, 0, 5], [0, 255, 5], [1, 255, 10]],
            [("one_class", True, 2, "a.jpg"), ("unlabelled_images", False, 1, "b.jpg")],
        ),
    ],
)
def test_a_split_needs_pixels_of_two_classes(
    labels: list[list[int]], expected: list[tuple[str, bool, int, str]]
) -> None:
    assert told(label_findings(split([(2, 5), (2, 5)], labels))) == expected


def test_one_class_beside_ignored_pixels_names_masks_of_0_and_255() -> None:
    (one,) = label_findings(split([(2, 5)], [[0, 0, 4], [0, 255, 6]]))
    assert "one class alone, 'sky'" in one.text
    assert "{0: background, 255: crack}" in one.text
    (other,) = label_findings(split([(2, 5)], [[0, 0, 10]]))
    assert "255" not in other.text


def test_crowds_are_counted_and_a_split_of_crowds_alone_is_refused() -> None:
    some = split([(4, 4)] * 3, [[0, 1, 1]], ignored=[0, 2, 4], has_objects=True)
    assert told(label_findings(some)) == [
        ("ignored_objects", False, 6, "b.jpg"),
        ("unlabelled_images", False, 2, "b.jpg"),
    ]
    assert "6 of 7 objects" in next(iter(label_findings(some))).text
    (every,) = label_findings(split([(4, 4)] * 2, [], ignored=[0, 6], has_objects=True))
    assert told([every]) == [("only_crowds", True, 6, "b.jpg")]
    assert "all 6 objects of split 'train' are crowds or difficult" in every.text


def test_a_split_without_objects_is_refused_and_says_what_was_left_out() -> None:
    (one,) = label_findings(split([(4, 4)], [], has_objects=True, repairs={"boxes without area left out": 3}))
    assert told([one]) == [("no_labels", True, 1, "a.jpg")]
    assert "no object in its 1 images (3 boxes without area left out), expected at least one" in one.text


def test_masks_outside_of_their_boxes_and_unchecked_orientations_are_counted() -> None:
    labels = [[number, label, 1] for number in range(3) for label in (0, 1)]
    one = split([(4, 4)] * 3, labels, apart=[0, 2, 1], unchecked=[False, True, True], has_objects=True)
    assert told(label_findings(one)) == [
        ("mask_outside_box", False, 3, "b.jpg"),
        ("exif_orientation", False, 2, "b.jpg"),
    ]
    (pixels,) = label_findings(split([(4, 4)] * 3, labels, unchecked=[True, False, False]))
    assert (
        "1 of 3 images of split 'train' have an EXIF orientation, and their masks lack it, the first is a.jpg"
        in pixels.text
    )


@pytest.mark.parametrize(
    ("images", "size", "resize", "expected"),
    [
        ((480, 640), (480, 640), "stretch", []),
        ((480, 640), (240, 240), "stretch", []),  # 1.33
        ((480, 640), (320, 256), "stretch", [("size_turned", True)]),  # 4:3 and 4:5; turned, 1.07
        ((480, 640), (640, 480), "stretch", [("size_turned", True)]),
        ((480, 640), (640, 480), "letterbox", [("size_turned", True)]),
        ((640, 480), (480, 640), "stretch", [("size_turned", True)]),
        ((1080, 1920), (640, 480), "stretch", [("size_turned", True)]),  # 2.37 as it is, 1.33 turned
        ((1080, 1920), (640, 480), "letterbox", []),
        ((100, 300), (128, 96), "stretch", [("squeezed", False)]),  # 4, and turned 2.25: neither fits
        ((100, 300), (128, 128), "stretch", [("squeezed", False)]),
        ((100, 300), (128, 128), "letterbox", []),
        ((100, 100), (128, 96), "stretch", []),
    ],
)
def test_sizes_turned_around_are_refused_and_squeezed_images_warned_of(
    images: Size, size: Size, resize: str, expected: list[tuple[str, bool]]
) -> None:
    found = size_findings(split([images] * 2, [[0, 0, 1]]), data(size, resize), is_train=True)
    assert [(one.code, one.is_error) for one in found] == expected


def test_a_split_with_images_of_both_ways_is_not_turned_around() -> None:
    mixed = split([(480, 640), (640, 480), (480, 640)], [[0, 0, 1]])
    assert told(size_findings(mixed, data((640, 480)), is_train=True)) == [("squeezed", False, 2, "a.jpg")]


def test_objects_under_two_pixels_on_the_input_are_counted_and_alone_refused() -> None:
    """100 x 200 to 50 x 100: half of every side."""
    boxes = [(4.0, 4.0), (3.0, 40.0), (40.0, 3.0), (4.0, 100.0)]
    assert told(size_findings(with_boxes(boxes), data((50, 100)), is_train=True)) == [
        ("small_objects", False, 2, "b.jpg")
    ]
    assert told(size_findings(with_boxes(boxes[1:3]), data((50, 100)), is_train=True)) == [
        ("only_small_objects", True, 2, "a.jpg")
    ]
    assert told(size_findings(with_boxes(boxes[1:3]), data((50, 100)), is_train=False)) == [
        ("small_objects", False, 2, "a.jpg")
    ]


def test_letterbox_shrinks_both_sides_alike() -> None:
    """100 x 200 to 50 x 50 is 25 x 50 there, a quarter of every side; stretched it would be half of the height."""
    boxes = [(6.0, 8.0), (10.0, 10.0)]
    found = size_findings(with_boxes(boxes), data((50, 50), "letterbox"), is_train=True)
    assert told(found) == [("small_objects", False, 1, "a.jpg")]
    codes = [one.code for one in size_findings(with_boxes(boxes), data((50, 50)), is_train=True)]
    assert codes == ["squeezed"]


def test_boxes_given_as_shares_are_named() -> None:
    (one,) = size_findings(with_boxes([(0.4, 0.3), (0.2, 0.2)]), data((100, 200)), is_train=True)
    assert one.is_error
    assert "are they shares of the image's sides, not pixels?" in one.text


def test_more_objects_than_are_scored_name_the_ceiling() -> None:
    crowded = split([(9, 9)] * 3, [[0, 0, 150], [1, 0, 20], [2, 0, 80]], "val", has_objects=True)
    (one,) = cap_findings(crowded, 100)
    assert told([one]) == [("many_objects", False, 1, "a.jpg")]
    # 200 of 250 objects: recall 0.8, and 81 of the 101 recall points are reached.
    assert "perfect labels would score 80.2% AP and 80.0% AR" in one.text
    assert list(cap_findings(crowded, 150)) == []


def test_the_best_choice_under_a_cap_keeps_objects_of_rare_classes() -> None:
    counts = np.array([[150, 10, 0], [30, 0, 0]])
    recalls = best_recalls(counts, 100)
    assert recalls[:2] == pytest.approx([120 / 180, 1.0])  # 10 rare and 90 others in the first image
    assert math.isnan(recalls[2])
    assert best_average_precision(recalls) == pytest.approx((67 / 101 + 1) / 2)


def test_classes_without_labels_are_named_once() -> None:
    train = split([(2, 2)], [[0, 0, 2], [0, 1, 2]])
    val = split([(2, 2)], [[0, 0, 2], [0, 2, 2]], "val")
    (missing,) = never_trained(train, val)
    assert told([missing]) == [("never_trained", False, 1, "car")]
    assert "split 'val' of which split 'train' has no label: 1, car" in missing.text
    assert list(absent_classes(train, known=np.array([False, False, True]))) == []
    assert [one.text for one in absent_classes(val)] == ["1 of 3 classes never occur in split 'val': road"]
    assert list(never_trained(train, train)) == []


BLACK, RED, GREEN = 0, 0xC80000, 0x00C800


def painted(*palettes: list[int], name: str = "train") -> CheckedSplit:
    """Return a split whose masks have these colours at the indices 0, 1, 2, ..."""
    rows = np.array(
        [[sample, index, color] for sample, colors in enumerate(palettes) for index, color in enumerate(colors)],
        np.int64,
    ).reshape(-1, 3)
    return split([(2, 2)] * len(palettes), [], name, palettes=rows)


def test_a_palette_in_another_order_is_found_in_one_split_and_between_two() -> None:
    usual, other = [BLACK, RED, GREEN], [BLACK, GREEN, RED]
    assert list(palette_findings([painted(usual, usual)])) == []
    (one,) = palette_findings([painted(usual, other, usual, other, usual)])
    assert told([one]) == [("palette_order", False, 2, "b.jpg")]
    assert "#00c800 is 1 in it and 2 elsewhere" in one.text
    assert "data.options.colors" in one.text
    assert told(palette_findings([painted(usual, usual), painted(other, name="val")])) == [
        ("palette_order", False, 1, "a.jpg")
    ]


def test_palettes_without_a_shared_order_are_no_finding() -> None:
    assert list(palette_findings([painted([BLACK, RED], [BLACK, RED, GREEN])])) == []  # one more colour
    assert list(palette_findings([painted([BLACK] * 3, [BLACK, BLACK, RED])])) == []  # black tells nothing
    assert list(palette_findings([painted()])) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left lane", "right lane"),
        ("left lane", "lane_right"),
        ("lane-left", "Right lane"),
        ("L_hand", "R_hand"),
        ("hand.l", "hand.r"),
        ("LeftEye", "RightEye"),
        ("leftmost", "rightmost"),
        ("armL", "armR"),
        ("L", "R"),
        ("turn clockwise", "turn counterclockwise"),
        ("Arm_LH_2", "Arm_RH_2"),
    ],
)
def test_names_that_mirror_each_other(one: str, other: str) -> None:
    assert mirrored_pairs(("road", one, "car", other)) == [(one, other)]


@pytest.mark.parametrize(
    "classes",
    [
        ("lamp", "ramp"),
        ("left lane", "lane"),
        ("left", "left lane"),
        ("bright", "dark"),
        ("left 1", "right 2"),
        ("lock", "rock"),
    ],
)
def test_names_that_only_look_like_it(classes: tuple[str, ...]) -> None:
    assert mirrored_pairs(classes) == []


def test_flips_of_mirrored_classes_are_warned_of_unless_pairs_are_given() -> None:
    classes = ("road", "left lane", "right lane", "L", "R")

    def found(**augment: Any) -> list[Finding]:
        return list(flip_findings(classes, Augment.model_validate(augment)))

    (one,) = found()
    assert told([one]) == [("flipped_classes", False, 2, "left lane")]
    assert "data.augment.flip_pairs: [[left lane, right lane], [L, R]]" in one.text
    assert found(flip=0) == []
    (left,) = found(flip_pairs=[["right lane", "left lane"]])
    assert told([left]) == [("flipped_classes", False, 1, "L")]
    assert found(flip_pairs=[["right lane", "left lane"], ["L", "R"]]) == []
    (wrong,) = found(flip=0, flip_pairs=[["left lane", "right line"]])
    assert told([wrong]) == [("flip_pairs", True, 1, "right line")]
    assert wrong.text == "data.augment.flip_pairs: no class is called 'right line'; did you mean 'right lane'?"


def test_up_and_down_are_warned_of_under_vertical_flips() -> None:
    classes = ("upper jaw", "jaw, lower", "roof")
    assert upended_pairs(classes) == [("upper jaw", "jaw, lower")]
    assert list(flip_findings(classes, Augment())) == []
    assert told(flip_findings(classes, Augment(flip_vertical=0.5))) == [("flipped_classes", False, 1, "upper jaw")]


@pytest.mark.parametrize(
    ("size", "nearest"), [((100, 130), "[96, 128]"), ((64, 90), "[64, 96]"), ((10, 64), "[32, 64]")]
)
def test_a_size_that_most_networks_refuse_is_warned_of(size: Size, nearest: str) -> None:
    (finding,) = indivisible_size(data(size))
    assert not finding.is_error
    assert finding.text.endswith(f"the nearest is {nearest}")
    assert not list(indivisible_size(data((64, 96))))
