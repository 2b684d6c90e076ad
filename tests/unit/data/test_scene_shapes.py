"""Shapes and street furniture of the rendered scenes: exact areas, thin parts in one piece, holes that show through."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgekd.data.scenes import BALL, FENCE, POLE, RING, SIGN, SKY, WALL, shapes
from edgekd.data.scenes.canvas import Canvas
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.scene import Scene
from edgekd.data.scenes.street import add_fence, add_line, add_plate
from edgekd.data.scenes.textures import Material

WHITE = Material((255, 255, 255))


def component_sizes(mask: np.ndarray, diagonal: bool) -> list[int]:
    """Sizes of connected components by flood fill: an oracle without cv2 or scipy."""
    steps = [s for s in itertools.product((-1, 0, 1), repeat=2) if s != (0, 0) and (diagonal or 0 in s)]
    todo, sizes = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while todo:
        stack, size = [todo.pop()], 0
        while stack:
            y, x = stack.pop()
            size += 1
            for near in {(y + dy, x + dx) for dy, dx in steps} & todo:
                todo.remove(near)
                stack.append(near)
        sizes.append(size)
    return sizes


def empty_stage(key: int = 0, height: int = 96, width: int = 128) -> Scene:
    canvas = Canvas(height, width)
    canvas.new_object(SKY)
    return Scene(Dice(key), canvas, ground_y=canvas.scaled(100))


def painted(stencil: shapes.Stencil) -> np.ndarray:
    """The (96, 128) bool mask of a stencil painted alone."""
    canvas = Canvas(96, 128)
    canvas.new_object(SKY)
    canvas.paint(stencil, WHITE, (0, 0), canvas.new_object(POLE))
    return canvas.visible_ids() == 1


# --- thin parts and holes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", range(12))
def test_a_line_of_posts_and_wires_is_one_piece(key: int):
    scene = empty_stage(key)
    add_line(scene, [50, 180], base=150)
    line = np.isin(scene.canvas.visible_ids(), [n for n, label in enumerate(scene.canvas.classes) if label == POLE])
    assert len(component_sizes(line, diagonal=True)) == 1
    assert line[:, 0].any()  # wires leave on both sides
    assert line[:, -1].any()


@pytest.mark.parametrize(("drop", "sag"), [(0, 0), (60, 0), (-60, 20), (17, 31)])
@pytest.mark.parametrize("thickness", [2, 3, 4])
def test_a_wire_never_breaks(drop: int, sag: int, thickness: int):
    mask = painted(shapes.wire((3, 80), (251, 80 + drop), sag, thickness))
    assert len(component_sizes(mask, diagonal=True)) == 1
    assert mask.any(axis=0).sum() >= 123  # 248 subpixels long, and an end may cover a quarter of a pixel only


@pytest.mark.parametrize("key", range(8))
def test_a_fence_is_one_piece_with_holes(key: int):
    scene = empty_stage(key)
    add_fence(scene, left=40, width=150, height=40, base=150)
    fence = scene.canvas.visible_ids() == scene.canvas.classes.index(FENCE)
    assert len(component_sizes(fence, diagonal=True)) == 1
    y, x = np.nonzero(fence)
    inside = ~fence[y.min() : y.max() + 1, x.min() : x.max() + 1]
    assert 0.3 < inside.mean() < 0.8
    assert len(component_sizes(inside, diagonal=False)) >= 8


def test_one_sees_through_a_ring_but_not_through_a_disc():
    for shape, hole in (("ring", True), ("disc", False)):
        scene = empty_stage()
        add_plate(scene, shape, 100, 100, 24, RING)
        shown = scene.canvas.visible_ids() == 1
        assert shown[50, 50] != hole
        assert shown[50, 39]  # the band, 11 pixels left of the centre
        assert len(component_sizes(~shown, diagonal=False)) == (2 if hole else 1)


def test_the_same_plate_is_a_sign_a_ball_or_a_ring_by_label_only():
    images = []
    for label in (SIGN, BALL):
        scene = empty_stage()
        add_plate(scene, "disc", 100, 100, 24, label)
        images.append(scene.canvas.rgb)
    np.testing.assert_array_equal(images[0], images[1])


# --- shapes ------------------------------------------------------------------------------------------------------


def test_a_disc_covers_its_area_and_is_symmetric():
    mask = shapes.disc(0, 0, 20).mask
    assert mask.shape == (40, 40)
    assert mask.sum() == pytest.approx(np.pi * 400, rel=0.01)
    np.testing.assert_array_equal(mask, mask[::-1])
    np.testing.assert_array_equal(mask, mask.T)


def test_a_triangle_covers_half_of_its_box():
    stencil = shapes.polygon(((0, 20), (20, 0), (40, 20)))
    assert (stencil.top, stencil.left, stencil.mask.shape) == (0, 0, (20, 40))
    assert stencil.mask.sum() == pytest.approx(400, abs=20)  # half of 20 x 40, give or take the two edges


def test_shapes_that_reach_over_the_edge_are_cut_there():
    for stencil in (shapes.rectangle(-10, -10, 30, 30), shapes.disc(0, 0, 20), shapes.disc(256, 192, 20)):
        assert 0 < painted(stencil).sum() < stencil.mask.sum() / 4
    assert not painted(shapes.rectangle(-50, 0, 20, 20)).any()
    assert not painted(shapes.disc(300, 90, 20)).any()


def test_shading_darkens_only_the_object_that_is_asked_for():
    canvas = Canvas(64, 64)
    first, second = canvas.new_object(SKY), canvas.new_object(WALL)
    canvas.paint(shapes.rectangle(0, 0, 128, 128), WHITE, (0, 0), first)
    canvas.paint(shapes.rectangle(0, 0, 64, 128), WHITE, (0, 0), second)
    canvas.shade(shapes.rectangle(32, 0, 64, 128), 32, only=first)
    assert canvas.rgb[0, 5].reshape(4, 32)[:, 0].tolist() == [255, 255, 127, 255]
