"""Buildings and walls: the same masonry; windows make it a building."""

from __future__ import annotations

import numpy as np

from edgekd.data.scenes import BUILDING, WALL
from edgekd.data.scenes.scene import Scene
from edgekd.data.scenes.shapes import Stencil, arch, ellipse, polygon, rectangle
from edgekd.data.scenes.textures import Material


def add_building(scene: Scene, left: int, width: int, top: int, base: int, surface: Material) -> None:
    """Add a building between rows `top` and `base`: a front with windows and, often, a side without any."""
    dice, canvas = scene.dice, scene.canvas
    number = canvas.new_object(BUILDING)
    _add_roof(scene, left, width, top, surface, number)
    front = rectangle(left, top, width, base - top)
    scene.paint(front, surface, number)
    if dice.chance(60):
        depth = scene.size(10, 26)
        side = rectangle(left + width if scene.sun < 0 else left - depth, top, depth, base - top)
        scene.paint(side, surface, number)
        canvas.shade(side, dice.between(40, 56))
    _add_windows(scene, front, number)


def add_wall(scene: Scene, left: int, width: int, height: int, base: int, surface: Material) -> None:
    """Add a free-standing wall with a coping and, at times, arches through which one sees what is behind."""
    dice, canvas = scene.dice, scene.canvas
    number = canvas.new_object(WALL)
    body = rectangle(left, base - height, width, height)
    if dice.chance(45):
        opening, step = scene.size(14, 22), scene.size(44, 80)
        tall = height * dice.between(50, 72) // 100
        for x in range(left + step // 2, left + width - opening, step):
            body = body.without(arch(x, base - tall, opening, tall))
    canvas.shade(rectangle(left, base, width, max(2, height // 8)), 44, only=scene.ground)
    scene.paint(body, surface, number)
    canvas.shade(body, dice.between(54, 72))
    coping = scene.size(3, 5)
    scene.paint(rectangle(left - coping // 2, base - height, width + coping, coping), surface, number)
    canvas.shade(rectangle(left - coping // 2, base - height, width + coping, coping), dice.between(68, 84))


def _add_roof(scene: Scene, left: int, width: int, top: int, surface: Material, number: int) -> None:
    dice = scene.dice
    eaves, rise = scene.size(2, 8), scene.size(6, 26)
    kind = dice.pick(("flat", "parapet", "gable", "slope"))
    tiles = Material(scene.jittered(dice.pick(((120, 66, 54), (84, 86, 94), (98, 82, 70))), 12), "plank", 20)
    if kind == "parapet":
        scene.paint(rectangle(left - eaves // 2, top - eaves, width + eaves, eaves), surface, number)
    elif kind == "gable":
        apex = left + width // 2
        scene.paint(polygon(((left - eaves, top), (apex, top - rise), (left + width + eaves, top))), tiles, number)
    elif kind == "slope":
        inset = min(rise, width // 4)
        corners = ((left - eaves, top), (left + inset, top - rise), (left + width - inset, top - rise))
        scene.paint(polygon((*corners, (left + width + eaves, top))), tiles, number)


def _add_windows(scene: Scene, front: Stencil, number: int) -> None:
    """Put rows of windows on a front, whole ones only, the panes dark, lit, or mirroring the sky."""
    dice = scene.dice
    height, width = front.mask.shape
    wide, tall = scene.size(9, 15), scene.size(11, 20)
    step_x, step_y = wide + scene.size(9, 20), tall + scene.size(11, 22)
    columns, rows = max(1, (width - scene.size(8, 14)) // step_x), max(1, (height - scene.size(14, 40)) // step_y)
    grid_width = (columns - 1) * step_x + wide
    margin_x, margin_y = max(1, (width - grid_width) // 2), scene.size(7, 14)
    across, down = np.arange(grid_width), np.arange((rows - 1) * step_y + tall)
    panes = (across % step_x < wide)[None, :] & (down % step_y < tall)[:, None]
    grid = Stencil(front.top + margin_y, front.left + margin_x, panes)
    if dice.chance(25):
        _add_round_windows(scene, grid, (step_x, step_y), (wide, tall), number)
        return
    dark = Material(scene.jittered((58, 66, 80), 18), "plaster", 8)
    mirror = Material(scene.jittered(scene.haze, 10), "cloud", 8)
    first, second = dice.pick(((dark, mirror), (dark, dark), (mirror, dark), (dark, scene.vivid())))
    scene.paint(grid, first, number)
    chosen = dice.array(0, 99, (rows, columns)) < 30
    some = panes & chosen[down // step_y][:, across // step_x]
    scene.paint(Stencil(grid.top, grid.left, some), second, number)


def _add_round_windows(scene: Scene, grid: Stencil, step: tuple[int, int], size: tuple[int, int], number: int) -> None:
    """Put round windows on a grid; their glass may have the very colours of balls and signs."""
    glass = scene.vivid() if scene.dice.chance(50) else Material(scene.jittered((58, 66, 80), 18), "plaster", 8)
    radius = min(size) // 2
    for y in range(0, grid.mask.shape[0], step[1]):
        for x in range(0, grid.mask.shape[1], step[0]):
            center = (grid.left + x + size[0] // 2, grid.top + y + size[1] // 2)
            scene.paint(ellipse(*center, radius, radius), glass, number)
