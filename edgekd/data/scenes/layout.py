"""What stands where: one scene, back to front. Lengths are layout units, 192 per image height."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.data.scenes import GROUND, SKY
from edgekd.data.scenes.buildings import add_building, add_wall
from edgekd.data.scenes.canvas import Canvas
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.shapes import polygon, rectangle, wire
from edgekd.data.scenes.stage import Stage
from edgekd.data.scenes.street import add_fence, add_line, add_sign_post, add_toy
from edgekd.data.scenes.textures import LOOSE, Material

_SKIES = (((92, 142, 204), (188, 212, 232)), ((150, 164, 182), (206, 208, 210)), ((96, 104, 150), (232, 178, 140)))
_SOILS = ((104, 128, 72), (150, 132, 102), (112, 112, 114), (128, 120, 92), (176, 166, 140))
_CLEAR = 8  # a free disc or ring keeps that far from every post, or nobody could tell it from a sign


def compose(height: int, width: int, dice: Dice) -> Canvas:
    """Return the painted canvas of one scene."""
    stage = Stage(dice, Canvas(height, width))
    canvas = stage.canvas
    stage.ground_y = stage.size(86, 116)
    stage.sun = dice.pick((-1, 1))
    stage.masonry = (stage.new_masonry(), stage.new_masonry())
    posts = _post_columns(stage)
    _add_sky(stage)
    _add_ground(stage)
    for _ in range(dice.pick((0, 1, 1, 2))):
        _add_flying_toy(stage, posts)
    _add_buildings(stage)
    _add_walls(stage)
    nearer: list[tuple[int, Callable[[int], None]]] = [
        *_fences(stage),
        *_posts(stage, posts),
        *_lying_toys(stage, posts),
    ]
    for base, add in sorted(nearer, key=lambda item: item[0]):
        add(base)
    if dice.chance(25):
        x, wide = dice.between(-canvas.width // 4, canvas.width), canvas.width * dice.between(25, 60) // 100
        corners = ((x, canvas.height), (x + wide // 2, 0), (x + wide * 3 // 2, 0), (x + wide, canvas.height))
        canvas.shade(polygon(corners), dice.between(42, 54))  # a cloud's or a tall house's shadow over everything
    return canvas


def _add_sky(stage: Stage) -> None:
    dice, canvas = stage.dice, stage.canvas
    above, below = dice.pick(_SKIES)
    above, stage.haze = stage.jittered(above, 20), stage.jittered(below, 16)
    number = canvas.new_object(SKY)
    whole = rectangle(0, 0, canvas.width, canvas.height)
    stage.paint(whole, Material((0, 0, 0), "cloud", dice.pick((0, 8, 20, 34))), number)
    row = np.minimum(np.arange(canvas.height), stage.ground_y)[:, None]
    for channel, (high, low) in enumerate(zip(above, stage.haze, strict=True)):
        canvas.rgb[channel] += (high + (low - high) * row // stage.ground_y).astype(np.int16)
    if dice.chance(25):  # contrails: thin like wires, but bright
        x, y = stage.size(-60, 120), stage.size(8, 60)
        length, drop = stage.size(60, 180), stage.size(-30, 30)
        stage.canvas.shade(wire((x, y), (x + length, y + drop), 0, stage.size(3, 5)), dice.between(76, 84))


def _add_ground(stage: Stage) -> None:
    dice, canvas = stage.dice, stage.canvas
    soil = Material(stage.jittered(dice.pick(_SOILS), 18), dice.pick(LOOSE), dice.between(14, 40))
    if dice.chance(30):  # paved with what the houses are built of
        soil = stage.masonry[0]
    stage.ground = canvas.new_object(GROUND)
    depth = canvas.height - stage.ground_y
    stage.paint(rectangle(0, stage.ground_y, canvas.width, depth), soil, stage.ground)
    if dice.chance(40):  # a road with a painted line
        top, thick = stage.ground_y + depth * dice.between(20, 60) // 100, stage.size(24, 50)
        asphalt = Material(stage.jittered((92, 92, 96), 14), "gravel", 16)
        stage.paint(rectangle(0, top, canvas.width, thick), asphalt, stage.ground)
        paint, dash = Material(stage.jittered((214, 208, 190), 12)), stage.size(16, 40)
        for x in range(-dice.between(0, dash), canvas.width, 2 * dash):
            stage.paint(rectangle(x, top + thick // 2, dash, stage.size(3, 4)), paint, stage.ground)


def _post_columns(stage: Stage) -> list[tuple[int, int]]:
    """Return (x, half width) of all posts, kept apart; half width 0 stands for a post of a power line."""
    dice, canvas = stage.dice, stage.canvas
    columns: list[tuple[int, int]] = []
    wanted = [0] * dice.pick((0, 0, 1, 2)) + [stage.size(12, 20) for _ in range(dice.pick((0, 1, 1, 2, 3)))]
    for half in wanted:
        for _ in range(4):
            x = dice.between(canvas.scaled(8), canvas.width - canvas.scaled(8))
            if all(abs(x - other) > half + wide + canvas.scaled(_CLEAR) for other, wide in columns):
                columns.append((x, half))
                break
    return columns


def _add_buildings(stage: Stage) -> None:
    dice = stage.dice
    left = stage.size(-50, 90)
    for _ in range(dice.pick((0, 1, 2, 2, 3))):
        if left > stage.canvas.width - stage.canvas.scaled(24):
            break
        width, top = stage.size(44, 110), stage.size(14, 52)
        base = stage.ground_y + stage.size(0, 10)
        surface = dice.pick(stage.masonry).mixed(stage.haze, dice.between(0, 16))
        add_building(stage, left, width, top, base, surface)
        left += width + stage.size(-12, 60)


def _add_walls(stage: Stage) -> None:
    """Walls stay lower than buildings, so no building shows only a strip without windows."""
    dice = stage.dice
    for base in sorted(stage.ground_y + stage.size(4, 26) for _ in range(dice.pick((0, 1, 1, 2)))):
        left, width, height = stage.size(-60, 180), stage.size(70, 210), stage.size(20, 44)
        add_wall(stage, left, width, height, base, dice.pick(stage.masonry))


def _fences(stage: Stage) -> list[tuple[int, Callable[[int], None]]]:
    if not stage.dice.chance(60):
        return []
    left, width, height = stage.size(-40, 150), stage.size(80, 190), stage.size(28, 48)
    return [(stage.ground_y + stage.size(20, 64), lambda base: add_fence(stage, left, width, height, base))]


def _posts(stage: Stage, posts: list[tuple[int, int]]) -> list[tuple[int, Callable[[int], None]]]:
    line = sorted(x for x, half in posts if not half)
    items: list[tuple[int, Callable[[int], None]]] = []
    if line:
        items.append((stage.ground_y + stage.size(28, 50), lambda base: add_line(stage, line, base)))
    for x, half in posts:
        if half:
            base = stage.ground_y + stage.size(28, 70)
            items.append((base, lambda base, x=x, half=half: add_sign_post(stage, x, base, half)))  # type: ignore[misc]
    return items


def _free_column(stage: Stage, posts: list[tuple[int, int]], radius: int) -> int | None:
    """Return a column where a disc of that radius stays clear of every post, or None when none was found."""
    gap = radius + stage.canvas.scaled(_CLEAR)
    for _ in range(6):
        x = stage.dice.between(0, stage.canvas.width)
        if all(abs(x - other) > half + gap for other, half in posts):
            return x
    return None


def _add_flying_toy(stage: Stage, posts: list[tuple[int, int]]) -> None:
    radius = stage.size(13, 26)
    x = _free_column(stage, posts, radius)
    if x is not None:
        y = stage.dice.between(radius, stage.ground_y - radius - stage.canvas.scaled(10))
        add_toy(stage, x, y, radius, stage.dice.chance(50), is_grounded=False)


def _lying_toys(stage: Stage, posts: list[tuple[int, int]]) -> list[tuple[int, Callable[[int], None]]]:
    items: list[tuple[int, Callable[[int], None]]] = []
    for _ in range(stage.dice.pick((1, 1, 2, 3))):
        radius, is_ring = stage.size(12, 22), stage.dice.chance(60)
        x, base = _free_column(stage, posts, radius), stage.ground_y + stage.size(24, 84)
        if x is not None:
            items.append((base, lambda base, x=x, r=radius, i=is_ring: add_toy(stage, x, base - r, r, i, True)))  # type: ignore[misc]
    return items
