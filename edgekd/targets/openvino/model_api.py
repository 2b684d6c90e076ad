"""Metadata for OpenVINO's Model API (PyPI: openvino-model-api), which it reads from the IR: the wrapper, and how to prepare images.

An engine has it where Model API's wrapper reads the engine's own outputs: segmenters that end in logits and stretch the image.
For the others `edgekd stack --for model_api` writes an IR with another beginning and end.

Model API takes images as OpenCV reads them, in BGR order, and splits lists of names at spaces.

Source: Model API 0.4.7, `model_api/models/{image_model,segmentation,parameters,types}.py`.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

from typing import Any, Dict

from edgekd.board.specs import ModelSpec

Info = Dict[str, str]


def is_read_as_it_is(spec: ModelSpec) -> bool:
    """Whether Model API's wrapper reads the outputs of an engine.

    Its segmentation wrapper takes logits of two classes or more, and maps the class map to the whole image.
    """
    logits = spec.all_outputs("logits")
    return bool(logits) and logits[0].shape[1] > 1 and spec.preprocess.resize == "stretch"


def model_info(spec: ModelSpec) -> Info:
    """Return the metadata of an engine that is read as it is, else none."""
    if not is_read_as_it_is(spec):
        return {}
    return {"model_type": "Segmentation", "labels": names(spec.classes), **preparation(spec)}


def preparation(spec: ModelSpec) -> Info:
    """Return the metadata by which Model API prepares images for an engine that stretches them."""
    info = {"resize_type": "standard", "reverse_input_channels": str(spec.preprocess.color_order == "RGB")}
    if spec.preprocess.dtype != "uint8":
        info["mean_values"] = _pixels(spec.preprocess.mean)
        info["scale_values"] = _pixels(spec.preprocess.std)
    return info


def describe(model: Any, info: Info) -> None:
    """Write metadata into an `openvino.Model`."""
    for name, value in info.items():
        model.set_rt_info(value, ["model_info", name])


def names(classes: Any) -> str:
    """Return names of classes as Model API splits them: spaces inside a name become `_`."""
    return " ".join("_".join(name.split()) for name in classes)


def _pixels(fractions: Any) -> str:
    """Return fractions of 255 as numbers between spaces."""
    return " ".join(f"{255 * value:.9g}" for value in fractions)
