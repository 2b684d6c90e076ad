"""The picture of the packages in docs/architecture.md is the one that the layer rules hold."""

from __future__ import annotations

from docs.draw_packages import ROWS, drawing
from tests.architecture.test_layers import LAYERS
from tests.conftest import REPOSITORY


def test_the_picture_has_every_package_in_its_layer() -> None:
    drawn = [sorted(name for name, _, _ in row) for row in ROWS]
    assert drawn == [sorted(layer) for layer in reversed(LAYERS)]


def test_the_picture_is_drawn_from_its_data() -> None:
    drawn = (REPOSITORY / "docs/packages.svg").read_text(encoding="utf-8")
    assert drawn == drawing(), "python docs/draw_packages.py"
