"""Fences, poles with their wires, and the plates that are a sign on a pole and a ball or a ring without one."""

from __future__ import annotations

from itertools import pairwise

from edgekd.data.scenes import BALL, FENCE, POLE, RING, SIGN
from edgekd.data.scenes.scene import Scene
from edgekd.data.scenes.shapes import Stencil, bars, disc, ellipse, lattice, polygon, rectangle, ring, wire
from edgekd.data.scenes.textures import Material

SIGN_SHAPES = ("disc", "disc", "ring", "ring", "triangle", "square", "diamond")


def add_fence(scene: Scene, left: int, width: int, height: int, base: int) -> None:
    """Add a fence of pickets or crossed bars; what is behind it shows through."""
    surface, thickness = scene.metal(), scene.size(5, 6)
    number = scene.canvas.new_object(FENCE)
    if scene.dice.chance(65):
        period = thickness + scene.size(9, 14)
        width -= (width - thickness) % period  # ends with a bar
        stencil = bars(left, base - height, width, height, period, thickness)
    else:
        stencil = lattice(left, base - height, width, height, thickness + scene.size(14, 20), thickness)
    shift = scene.canvas.scaled(scene.sun * -6)
    scene.canvas.shade(Stencil(stencil.top + height, left + shift, stencil.mask[::-1][: height // 3]), 48, scene.ground)
    scene.paint(stencil, surface, number)


def add_post(scene: Scene, x: int, top: int, base: int, thickness: int, surface: Material) -> int:
    """Add an upright post and its long thin shadow on the ground; return its object number."""
    reach = (base - top) * scene.dice.between(20, 60) // 100
    drop = reach // 4
    foot, tip = (x, base), (x - scene.sun * reach, base + drop)
    low, high = sorted((foot, tip))
    shadow = wire(low, high, 0, max(2, thickness * 2 // 3)) if low[0] < high[0] else None
    if shadow is not None:
        scene.canvas.shade(shadow, 46, only=scene.ground)
    number = scene.canvas.new_object(POLE)
    scene.paint(rectangle(x - thickness // 2, top, thickness, base - top), surface, number)
    return number


def add_sign_post(scene: Scene, x: int, base: int, radius: int) -> None:
    """Add a post with a plate at its top, now and then a second plate below."""
    surface, thickness = scene.metal(), scene.size(5, 7)
    shaft = radius + scene.size(22, 44)
    y = base - shaft - radius
    add_post(scene, x, y, base, thickness, surface)
    add_plate(scene, scene.dice.pick(SIGN_SHAPES), x, y, radius, SIGN)


def add_line(scene: Scene, xs: list[int], base: int) -> None:
    """Add tall posts at the columns `xs` (rising) with cross-arms, and the wires that run along them across the scene."""
    dice, canvas = scene.dice, scene.canvas
    surface, thickness = scene.metal(), scene.size(5, 8)
    arm, top = scene.size(8, 18), scene.size(8, 40)
    tops = [max(2, top + scene.size(-6, 6)) for _ in xs]
    numbers = [add_post(scene, x, y, base, thickness, surface) for x, y in zip(xs, tops, strict=True)]
    beam = max(3, thickness * 2 // 3)
    for x, y, number in zip(xs, tops, numbers, strict=True):
        scene.paint(rectangle(x - arm, y + beam, 2 * arm, beam), surface, number)
    number = canvas.new_object(POLE)
    ends = [(-canvas.scaled(40), top), *zip(xs, tops, strict=True), (canvas.width + canvas.scaled(40), top)]
    dark = Material(scene.jittered((52, 52, 56), 12))
    for offset in (-arm, arm)[: dice.between(1, 2)]:
        sag = scene.size(6, 22)
        for (x0, y0), (x1, y1) in pairwise(ends):
            hung = wire((x0 + offset, y0 + beam), (x1 + offset, y1 + beam), sag, scene.canvas.scaled(4))
            scene.paint(hung, dark, number)


def add_plate(scene: Scene, shape: str, x: int, y: int, radius: int, label: int) -> None:
    """Add a flat plate around (x, y): same looks whether it is a sign, a ball or a ring."""
    dice = scene.dice
    number = scene.canvas.new_object(label)
    outline = plate_outline(shape, x, y, radius, band=max(3, radius * dice.between(38, 52) // 100))
    scene.paint(outline, scene.vivid(), number)
    inner = radius * dice.between(50, 74) // 100
    if shape != "ring" and inner >= 3 and dice.chance(60):
        scene.paint(plate_outline(shape, x, y, inner, band=1), scene.vivid(), number)
    if dice.chance(40):  # the half away from the sun is darker, on round things and flat ones alike
        half = rectangle(x if scene.sun < 0 else x - radius, y - radius, radius, 2 * radius)
        scene.canvas.shade(half, dice.between(48, 58), only=number)


def plate_outline(shape: str, x: int, y: int, radius: int, band: int) -> Stencil:
    """Return a plate's stencil; `band` is the width of a ring's band."""
    if shape == "disc":
        return disc(x, y, radius)
    if shape == "ring":
        return ring(x, y, radius, band)
    if shape == "square":
        return rectangle(x - radius * 7 // 8, y - radius * 7 // 8, radius * 7 // 4, radius * 7 // 4)
    if shape == "triangle":
        return polygon(((x - radius, y + radius * 7 // 8), (x, y - radius), (x + radius, y + radius * 7 // 8)))
    return polygon(((x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)))


def add_toy(scene: Scene, x: int, y: int, radius: int, is_ring: bool, is_grounded: bool) -> None:
    """Add a ball or a ring around (x, y), with a shadow when it lies on the ground."""
    if is_grounded:
        shadow = ellipse(x - scene.sun * radius // 2, y + radius, radius * 5 // 4, max(2, radius // 4))
        scene.canvas.shade(shadow, 42, only=scene.ground)
    add_plate(scene, "ring" if is_ring else "disc", x, y, radius, RING if is_ring else BALL)
