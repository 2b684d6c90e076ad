"""The part of a page and of report.json about an engine's layers."""

from __future__ import annotations

from edgekd.layers.model import QUANTIZATION, RUNTIME, TAPS, Blame, LayerError, LayerErrors
from edgekd.layers.table import headers, rows
from edgekd.report.engine_layers import SHOWN, EngineLayers, layers_chart, layers_tables


def errors(count: int = 45) -> LayerErrors:
    """Errors of `count` layers, the third of which is to blame and the fourth in float."""
    layers = tuple(
        LayerError(
            f"conv{n}",
            "Conv",
            f"net.{n}",
            0.02,
            n == 3,
            None if n == 3 else 50.0 + n % 7,
            accumulated=30.0,
            engine=40.0,
            engine_own=200.0,
            allowed=35.0,
        )
        for n in range(count)
    )
    blame = (
        Blame(RUNTIME, "conv2", "net.2 (Conv) is wrong on the engine."),
        Blame(QUANTIZATION, "conv9", "net.9 loses most."),
    )
    answer = {QUANTIZATION: 31.5, RUNTIME: 12.25, TAPS: 200.0, "board": None}
    return LayerErrors(
        "openvino-int8", 8, layers, answer, blame, blame[0].text, ("not compared on board pi: it is away",)
    )


def stored(found: LayerErrors) -> EngineLayers:
    import json

    return EngineLayers.model_validate(json.loads(json.dumps(found.to_dict())))


def test_the_table_shows_forty_layers_and_folds_the_rest() -> None:
    (one,) = layers_tables({"openvino-int8": stored(errors())}, {"openvino-int8": "openvino int8"})
    assert one.headers == ("layer", "MACs", "alone", "accumulated", "engine", "engine, own", "rounding", "noise from")
    assert (len(one.rows), len(one.folded)) == (SHOWN, 5)
    assert one.rows[2] == ("> net.2 (Conv)", "2.0%", "52.0", "30.0", "40.0", "=", "35.0", "")
    assert one.rows[3] == ("  net.3 (Conv)", "2.0%", "", "30.0", "40.0", "=", "35.0", "(float)")
    assert one.sentence == "net.2 (Conv) is wrong on the engine."
    assert one.others == ["net.9 loses most."]
    assert one.answers == [
        "float ONNX – Q/DQ graph 31.5 dB", "Q/DQ graph – engine 12.2 dB", "tapped – untapped engine the same",
    ]  # fmt: skip
    assert one.notes == ["not compared on board pi: it is away"]


def test_columns_that_were_not_measured_are_left_out() -> None:
    found = LayerErrors(
        "fp32", 1, (LayerError("a", "Conv", engine=120.0, engine_own=130.0, allowed=40.0),), {}, (), "Nothing."
    )
    assert headers(found) == ("layer", "MACs", "engine", "engine, own", "rounding")
    assert rows(found) == [("  a", "", "120.0", "130.0", "40.0")]


def test_the_picture_says_its_numbers_and_names_the_layer_to_blame() -> None:
    figure = layers_chart(errors(6), "openvino int8")
    assert 'aria-label="Error of each layer, openvino int8: net.0 (Conv) alone 50.0 dB, accumulated 30.0 dB' in figure
    assert figure.count("alone, the layer to blame") == 2  # desktop and phone
    assert "net.2 (Conv)</text>" in figure
    assert layers_chart(LayerErrors("x", 1, (LayerError("a"),), {}, (), ""), "x") == ""
