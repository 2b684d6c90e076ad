"""Weight bits follow from the boards that run the engines: 8 where all are ARM, else 7; a chosen number stays."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

from edgekd.core.recipe import Recipe
from edgekd.quantize import place, stage
from tests.unit.core.small_recipe import SMALL

BOARDS = """
schema: edgekd.boards/1
boards:
  pi: {ssh: pi, chip: raspberry-pi-5}
  any-arm: {ssh: a, chip: arm64}
  pc: {ssh: pc, chip: x86-64}
  unknown: {ssh: u}
"""


@pytest.fixture(autouse=True)
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS, encoding="utf-8")
    monkeypatch.setenv("EDGEKD_BOARDS", str(tmp_path / "boards.yaml"))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def recipe(*boards: str, **quantize: Any) -> Recipe:
    engines = [{"target": "onnxruntime", "precision": "int8", "board": list(boards)}]
    engines.append({"target": "openvino", "precision": "int8"})
    return Recipe.model_validate({**SMALL, "engines": engines, "quantize": quantize}).only("quantize:ptq/qdq")


@pytest.mark.parametrize(
    ("boards", "bits"),
    [(("local",), 7), (("pc",), 7), (("unknown",), 7), (("pi",), 8), (("any-arm", "pi"), 8), (("pi", "local"), 7),
     (("pi", "unknown"), 7)],
)  # fmt: skip
def test_auto_is_8_bits_where_every_board_is_arm(boards: tuple[str, ...], bits: int) -> None:
    """The engine of another quantizer here, on x86, decides nothing."""
    seen = recipe(*boards)
    assert place.options_of(seen.quantize, "qdq").weight_bits == bits
    assert stage.place(seen) == ({"weight_bits": 8} if bits == 8 else None)  # in the cache key


def test_this_machine_may_be_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert place.options_of(recipe("local").quantize, "qdq").weight_bits == 8


@pytest.mark.parametrize("bits", [7, 8])
def test_a_chosen_number_of_bits_stays(bits: int) -> None:
    seen = recipe("pi", options={"qdq": {"weight_bits": bits}})
    assert place.options_of(seen.quantize, "qdq").weight_bits == bits
    assert stage.place(seen) is None


def test_quantizers_without_the_option_depend_on_no_machine() -> None:
    whole = Recipe.model_validate({**SMALL, "engines": [{"target": "rknn", "precision": "int8", "board": "pi"}]})
    seen = whole.only("quantize:ptq/vendor")
    assert seen.quantize.boards == ("pi",)
    assert stage.place(seen) is None
