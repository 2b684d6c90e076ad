"""State that all objects of a scene share: random numbers, canvas, colours, the sun's side."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.data.scenes.canvas import Canvas
from edgekd.data.scenes.dice import Dice
from edgekd.data.scenes.shapes import Stencil
from edgekd.data.scenes.textures import MARGIN, MASONRY, Material

Color = tuple[int, int, int]

MASONRY_COLORS: tuple[Color, ...] = (
    (164, 92, 74),
    (186, 150, 118),
    (150, 146, 140),
    (198, 186, 160),
    (124, 110, 104),
    (170, 128, 92),
    (138, 152, 160),
    (206, 176, 128),
)
METAL_COLORS: tuple[Color, ...] = (
    (66, 68, 72),
    (118, 122, 126),
    (176, 178, 180),
    (92, 70, 52),
    (134, 104, 76),
    (52, 76, 62),
    (212, 208, 200),
)
VIVID_COLORS: tuple[Color, ...] = (
    (206, 44, 40),
    (236, 196, 40),
    (38, 96, 190),
    (232, 124, 36),
    (50, 150, 84),
    (240, 240, 236),
    (150, 60, 140),
    (60, 60, 66),
)


@dataclass
class Scene:
    """The scene under construction.

    Attributes:
        ground_y: row of the horizon, in subpixels.
        sun: -1 when the light comes from the left, +1 from the right.
        haze: the sky's colour at the horizon, into which far things fade.
        masonry: what this scene's buildings and walls are built of, and in some scenes its ground is paved with.
        ground: object number of the ground; shadows fall on it.
    """

    dice: Dice
    canvas: Canvas
    ground_y: int = 0
    sun: int = 1
    haze: Color = (200, 210, 220)
    masonry: tuple[Material, ...] = ()
    ground: int = 0

    def size(self, low: int, high: int) -> int:
        """Return a random length in subpixels, between `low` and `high` layout units (192 per image height)."""
        return self.canvas.scaled(self.dice.between(low, high))

    def paint(self, stencil: Stencil, material: Material, number: int) -> None:
        """Paint with the texture starting at a random offset."""
        offset = (self.dice.between(0, MARGIN), self.dice.between(0, MARGIN))
        self.canvas.paint(stencil, material, offset, number)

    def jittered(self, color: Color, by: int) -> Color:
        """Return a colour near `color`: all channels move together, and each a little by itself."""
        together = self.dice.between(-by, by)
        red, green, blue = (max(0, min(255, c + together + self.dice.between(-by // 3, by // 3))) for c in color)
        return red, green, blue

    def new_masonry(self) -> Material:
        """Return a random wall surface."""
        color = self.jittered(self.dice.pick(MASONRY_COLORS), 18)
        return Material(color, self.dice.pick(MASONRY), self.dice.between(16, 36))

    def metal(self) -> Material:
        """Return a random surface for posts, fences and wires."""
        return Material(self.jittered(self.dice.pick(METAL_COLORS), 14), "plaster", self.dice.between(4, 12))

    def vivid(self) -> Material:
        """Return a random surface for signs, balls and rings, one in nine as dull as a wall or a post."""
        colors = self.dice.pick((VIVID_COLORS,) * 8 + (MASONRY_COLORS + METAL_COLORS,))
        return Material(self.jittered(self.dice.pick(colors), 16), "plaster", self.dice.between(0, 10))
