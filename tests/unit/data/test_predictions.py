"""Results of `edgekd predict`: their names, and masks that are made whole only where they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekd.board.detection import Detections, Selection
from edgekd.board.masks import Masks
from edgekd.data.predictions import check_names, write_prediction
from edgekd.errors import UserError


class Finds:
    """Finds a dog on the left, in front of a cat in the middle, and perhaps a cat on the right."""

    classes = ("cat", "dog")

    def __call__(self, image: np.ndarray, /) -> Detections:
        corners = np.array([[0, 0, 4, 2], [2, 0, 6, 2], [6, 0, 8, 2]])
        masks = Masks((2, 8), corners, [np.ones((2, x2 - x1), bool) for x1, _, x2, _ in corners])
        scores = np.array([0.9, 0.5, 0.2], np.float32)
        return Detections(corners.astype(np.float32), scores, np.array([1, 0, 0]), masks)


def test_what_is_hardly_seen_is_not_written_and_its_mask_never_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    one_of = Masks.__getitem__
    monkeypatch.setattr(Masks, "__getitem__", lambda masks, number: made.append(len(masks)) or one_of(masks, number))
    monkeypatch.delattr(Masks, "whole")
    Image.new("RGB", (8, 2)).save(tmp_path / "x.png")
    seen = write_prediction(Finds(), tmp_path / "x.png", tmp_path)
    assert set(made) == {2}
    assert seen["classes"] == {"cat": 1, "dog": 1}
    assert np.asarray(Image.open(tmp_path / "x_mask.png")).tolist() == [[1, 1, 1, 1, 2, 2, 0, 0]] * 2


def test_each_object_is_written_with_its_mask_as_runs(tmp_path: Path) -> None:
    Image.new("RGB", (8, 2)).save(tmp_path / "x.png")
    seen = write_prediction(Finds(), tmp_path / "x.png", tmp_path, Selection(min_score=0.1, most=3))
    objects = json.loads((tmp_path / "x_objects.json").read_text())
    assert [(one["class"], one["score"]) for one in objects] == [("dog", 0.9), ("cat", 0.5), ("cat", 0.2)]
    assert objects[0]["mask"] == {"size": [2, 8], "counts": [0, 8, 8]}
    assert objects[1]["mask"] == {"size": [2, 8], "counts": [4, 8, 4]}
    assert seen["more"]
    assert not write_prediction(Finds(), tmp_path / "x.png", tmp_path)["more"]


def test_more_objects_than_a_byte_counts_keep_their_numbers(tmp_path: Path) -> None:
    Image.new("RGB", (300, 1)).save(tmp_path / "x.png")
    corners = np.array([[x, 0, x + 1, 1] for x in range(300)])
    masks = Masks((1, 300), corners, [np.ones((1, 1), bool)] * 300)
    found = Detections(corners.astype(np.float32), np.full(300, 0.9, np.float32), np.zeros(300, np.int64), masks)

    class FindsAll:
        classes = ("cat",)

        def __call__(self, image: np.ndarray, /) -> Detections:
            return found

    write_prediction(FindsAll(), tmp_path / "x.png", tmp_path)
    assert np.asarray(Image.open(tmp_path / "x_mask.png"))[0].tolist() == list(range(1, 301))


def test_some_masks_are_those_of_all() -> None:
    masks = Finds()(np.zeros((2, 8, 3), np.uint8)).masks
    assert masks is not None
    some = np.array([True, False, True])
    assert np.array_equal(masks.only(some).whole(), masks.whole()[some])
    assert masks.only(np.zeros(3, bool)).whole().shape == (0, 2, 8)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (("a/x.png", "b/x.png"), "a/x.png and b/x.png would both be written as out/x_overlay.png; rename one"),
        (("a/x.png", "a/x.jpg"), "a/x.png and a/x.jpg would both be written as out/x_overlay.png; rename one"),
        (("out/x_mask.png", "a/x.png"), "out/x_mask.png would be overwritten by the result of a/x.png; give another"),
        (("a/x.png", "a/y.png", "b/y.png", "a/x.png"), "a/y.png and b/y.png"),
    ],
)
def test_results_of_one_name_are_refused(images: tuple[str, ...], words: str) -> None:
    with pytest.raises(UserError, match=f"^{words}"):
        check_names([Path(image) for image in images], Path("out"))


def test_an_image_given_twice_is_written_twice() -> None:
    check_names([Path("a/x.png"), Path("b/y.png"), Path("b/../a/x.png")], Path("out"))
