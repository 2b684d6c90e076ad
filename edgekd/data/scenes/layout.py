"""Composition of one scene, back to front. Lengths are layout units, 192 per image height."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgekd.data.scenes import GROUND, SKY
from edgekd.data.scenes.buildings import add_building, add_wall
from edgekd.data.scenes.canvas import Canvas
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.scene import Scene
from edgekd.data.scenes.shapes import polygon, rectangle, wire
from edgekd.data.scenes.street import add_fence, add_line, add_sign_post, add_toy
from edgekd.data.scenes.textures import LOOSE, Material

_SKIES = (((92, 142, 204), (188, 212, 232)), ((150, 164, 182), (206, 208, 210)), ((96, 104, 150), (232, 178, 140)))
_SOILS = ((104, 128, 72), (150, 132, 102), (112, 112, 114), (128, 120, 92), (176, 166, 140))
_CLEAR = 8  # a free disc or ring keeps that far from every post, or nobody could tell it from a sign


def compose(height: int, width: int, dice: Dice) -> Canvas:
    """Return the painted canvas of one scene."""
    scene = Scene(dice, Canvas(height, width))
    canvas = scene.canvas
    scene.ground_y = scene.size(86, 116)
    scene.sun = dice.pick((-1, 1))
    scene.masonry = (scene.new_masonry(), scene.new_masonry())
    posts = _post_columns(scene)
    _add_sky(scene)
    _add_ground(scene)
    for _ in range(dice.pick((0, 1, 1, 2))):
        _add_flying_toy(scene, posts)
    _add_buildings(scene)
    _add_walls(scene)
    nearer: list[tuple[int, Callable[[int], None]]] = [
        *_fences(scene),
        *_posts(scene, posts),
        *_lying_toys(scene, posts),
    ]
    for base, add in sorted(nearer, key=lambda item: item[0]):
        add(base)
    if dice.chance(25):
        x, wide = dice.between(-canvas.width // 4, canvas.width), canvas.width * dice.between(25, 60) // 100
        corners = ((x, canvas.height), (x + wide // 2, 0), (x + wide * 3 // 2, 0), (x + wide, canvas.height))
        canvas.shade(polygon(corners), dice.between(42, 54))  # a cloud's or a tall house's shadow over everything
    return canvas


def _add_sky(scene: Scene) -> None:
    dice, canvas = scene.dice, scene.canvas
    above, below = dice.pick(_SKIES)
    above, scene.haze = scene.jittered(above, 20), scene.jittered(below, 16)
    number = canvas.new_object(SKY)
    whole = rectangle(0, 0, canvas.width, canvas.height)
    scene.paint(whole, Material((0, 0, 0), "cloud", dice.pick((0, 8, 20, 34))), number)
    row = np.minimum(np.arange(canvas.height), scene.ground_y)[:, None]
    for channel, (high, low) in enumerate(zip(above, scene.haze, strict=True)):
        canvas.rgb[channel] += (high + (low - high) * row // scene.ground_y).astype(np.int16)
    if dice.chance(25):  # contrails: thin like wires, but bright
        x, y = scene.size(-60, 120), scene.size(8, 60)
        length, drop = scene.size(60, 180), scene.size(-30, 30)
        scene.canvas.shade(wire((x, y), (x + length, y + drop), 0, scene.size(3, 5)), dice.between(76, 84))


def _add_ground(scene: Scene) -> None:
    dice, canvas = scene.dice, scene.canvas
    soil = Material(scene.jittered(dice.pick(_SOILS), 18), dice.pick(LOOSE), dice.between(14, 40))
    if dice.chance(30):  # paved with what the houses are built of
        soil = scene.masonry[0]
    scene.ground = canvas.new_object(GROUND)
    depth = canvas.height - scene.ground_y
    scene.paint(rectangle(0, scene.ground_y, canvas.width, depth), soil, scene.ground)
    if dice.chance(40):  # a road with a painted line
        top, thick = scene.ground_y + depth * dice.between(20, 60) // 100, scene.size(24, 50)
        asphalt = Material(scene.jittered((92, 92, 96), 14), "gravel", 16)
        scene.paint(rectangle(0, top, canvas.width, thick), asphalt, scene.ground)
        paint, dash = Material(scene.jittered((214, 208, 190), 12)), scene.size(16, 40)
        for x in range(-dice.between(0, dash), canvas.width, 2 * dash):
            scene.paint(rectangle(x, top + thick // 2, dash, scene.size(3, 4)), paint, scene.ground)


def _post_columns(scene: Scene) -> list[tuple[int, int]]:
    """Return (x, half width) of all posts, kept apart; half width 0 stands for a post of a power line."""
    dice, canvas = scene.dice, scene.canvas
    columns: list[tuple[int, int]] = []
    wanted = [0] * dice.pick((0, 0, 1, 2)) + [scene.size(12, 20) for _ in range(dice.pick((0, 1, 1, 2, 3)))]
    for half in wanted:
        for _ in range(4):
            x = dice.between(canvas.scaled(8), canvas.width - canvas.scaled(8))
            if all(abs(x - other) > half + wide + canvas.scaled(_CLEAR) for other, wide in columns):
                columns.append((x, half))
                break
    return columns


def _add_buildings(scene: Scene) -> None:
    dice = scene.dice
    left = scene.size(-50, 90)
    for _ in range(dice.pick((0, 1, 2, 2, 3))):
        if left > scene.canvas.width - scene.canvas.scaled(24):
            break
        width, top = scene.size(44, 110), scene.size(14, 52)
        base = scene.ground_y + scene.size(0, 10)
        surface = dice.pick(scene.masonry).mixed(scene.haze, dice.between(0, 16))
        add_building(scene, left, width, top, base, surface)
        left += width + scene.size(-12, 60)


def _add_walls(scene: Scene) -> None:
    """Walls stay lower than buildings, so no building shows only a strip without windows."""
    dice = scene.dice
    for base in sorted(scene.ground_y + scene.size(4, 26) for _ in range(dice.pick((0, 1, 1, 2)))):
        left, width, height = scene.size(-60, 180), scene.size(70, 210), scene.size(20, 44)
        add_wall(scene, left, width, height, base, dice.pick(scene.masonry))


def _fences(scene: Scene) -> list[tuple[int, Callable[[int], None]]]:
    if not scene.dice.chance(60):
        return []
    left, width, height = scene.size(-40, 150), scene.size(80, 190), scene.size(28, 48)
    return [(scene.ground_y + scene.size(20, 64), lambda base: add_fence(scene, left, width, height, base))]


def _posts(scene: Scene, posts: list[tuple[int, int]]) -> list[tuple[int, Callable[[int], None]]]:
    line = sorted(x for x, half in posts if not half)
    items: list[tuple[int, Callable[[int], None]]] = []
    if line:
        items.append((scene.ground_y + scene.size(28, 50), lambda base: add_line(scene, line, base)))
    for x, half in posts:
        if half:
            base = scene.ground_y + scene.size(28, 70)
            items.append((base, lambda base, x=x, half=half: add_sign_post(scene, x, base, half)))  # type: ignore[misc]
    return items


def _free_column(scene: Scene, posts: list[tuple[int, int]], radius: int) -> int | None:
    """Return a column where a disc of that radius stays clear of every post, or None when none was found."""
    gap = radius + scene.canvas.scaled(_CLEAR)
    for _ in range(6):
        x = scene.dice.between(0, scene.canvas.width)
        if all(abs(x - other) > half + gap for other, half in posts):
            return x
    return None


def _add_flying_toy(scene: Scene, posts: list[tuple[int, int]]) -> None:
    radius = scene.size(13, 26)
    x = _free_column(scene, posts, radius)
    if x is not None:
        y = scene.dice.between(radius, scene.ground_y - radius - scene.canvas.scaled(10))
        add_toy(scene, x, y, radius, scene.dice.chance(50), is_grounded=False)


def _lying_toys(scene: Scene, posts: list[tuple[int, int]]) -> list[tuple[int, Callable[[int], None]]]:
    items: list[tuple[int, Callable[[int], None]]] = []
    for _ in range(scene.dice.pick((1, 1, 2, 3))):
        radius, is_ring = scene.size(12, 22), scene.dice.chance(60)
        x, base = _free_column(scene, posts, radius), scene.ground_y + scene.size(24, 84)
        if x is not None:
            items.append((base, lambda base, x=x, r=radius, i=is_ring: add_toy(scene, x, base - r, r, i, True)))  # type: ignore[misc]
    return items
