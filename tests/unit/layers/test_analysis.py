"""Cosines of a toolchain's analysis as dB, and the layer that they name."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.layers.analysis import analysed
from edgekd.layers.model import QUANTIZATION
from edgekd.layers.table import headers


def row(tensor: str, single: float | None, entire: float | None = 0.99) -> dict[str, object]:
    return {"op": "Conv", "tensor": tensor, "single_cosine": single, "entire_cosine": entire}


def test_a_cosine_is_the_ratio_of_signal_and_noise_that_gave_it() -> None:
    rng = np.random.default_rng(0)
    signal, noise = rng.standard_normal(100_000), 0.1 * rng.standard_normal(100_000)
    cosine = float(signal @ (signal + noise) / np.linalg.norm(signal) / np.linalg.norm(signal + noise))
    found = analysed("rknn-int8", [row("a", cosine), row("b", 1.0), row("c", None), row("d", -0.1)], ())
    assert [one.single for one in found.layers] == [pytest.approx(20, abs=0.1), 200.0, None, -200.0]


def test_a_layer_a_bit_below_the_middle_is_named() -> None:
    rows = [row("a", 0.9999), row("b", 0.9999), row("c", 0.999), row("d", 0.9998), row("e", 0.9999)]
    found = analysed("rknn-int8", rows, ("no taps",))
    assert [(one.comparison, one.layer) for one in found.blamed] == [(QUANTIZATION, "c")]
    assert "from float inputs its output is 27.0 dB from float, the layer in the middle 37.0 dB" in found.sentence
    assert headers(found) == ("layer", "MACs", "single", "accumulated")
    assert found.notes == ("no taps",)


def test_alike_layers_name_none() -> None:
    found = analysed("rknn-int8", [row("a", 0.9999), row("b", 0.9998)], ())
    assert not found.blamed
    assert found.sentence.startswith("Nothing stands out")
