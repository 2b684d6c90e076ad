"""OpenVINO's Model API: an IR that takes any image and gives what the wrapper for the task reads, with its metadata.

The IR is the engine's, with edgekd's preprocessing before it and the decoding behind it, so that Model API's result is that of
`edgekd predict`. The engine's own IR has metadata, too, where a wrapper reads it (`targets/openvino/model_api.py`); there Model API
prepares images and class maps in its own way.

    semantic    wrapper Segmentation: logits at the image's size
    detection   wrapper SSD: boxes with scores, and labels, after suppression in the graph
    instance    wrapper DETRInstSeg: the same with masks of the whole image; its labels start at 1

Source: Model API 0.4.7 (PyPI: openvino-model-api). Checked with it, on the CPU.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.board.detection import MIN_SCORE
from edgekd.board.specs import ModelSpec
from edgekd.stacks.base import Engine, write_contract, write_readme
from edgekd.targets.openvino.model_api import Info, names, preparation
from edgekd.targets.openvino.runtime import IR

TITLE = "OpenVINO Model API"
TARGETS = ("openvino",)
MODEL = "model.xml"
_WRAPPERS = {"semantic": "Segmentation", "detection": "SSD", "instance": "DETRInstSeg"}
_DETECTION = {"confidence_threshold": f"{MIN_SCORE:g}", "nms_execute": "False"}
_BACKGROUND = "background"  # DETRInstSeg adds 1 to every label


def why_not(engine: Engine) -> str:
    """Return why there is no IR for Model API, "" when there is."""
    spec = engine.spec
    if engine.file.suffix != IR:
        return f"Model API reads {IR} files, got {engine.file.name}; build the engine with options.format: ir"
    if spec.all_outputs("decoded_boxes"):
        return "the graph ends in boxes that are not suppressed; set export.detections: heads or nms"
    if spec.all_outputs("found_masks"):
        return "there is no decoding for `found_masks`; give a network with prototypes, e.g. edgeseg"
    if spec.task == "instance" and spec.preprocess.resize == "letterbox":
        return "masks of letterboxed images cannot be cut in the graph; set data.resize: stretch"
    return ""


def write(engine: Engine, folder: Path) -> list[str]:
    """Write `model.xml`, `model.bin` and the contract; return the steps that remain."""
    from edgekd.stacks._model_api_graph import write_ir

    write_ir(engine, _info(engine.spec), folder / MODEL)
    write_contract(engine, folder)
    steps = [
        "pip install openvino-model-api",
        f'Model.create_model("{MODEL}", device="CPU")(cv2.imread("image.jpg"))',
    ]
    facts = [
        "Checked with Model API 0.4.7 on the CPU: the results are those of `edgekd predict`, boxes rounded to whole pixels.",
        "Model API leaves the precision to OpenVINO, which is bf16 on CPUs that have it. For the engine's f32, give "
        'OpenvinoAdapter(create_core(), path, plugin_config={"INFERENCE_PRECISION_HINT": "f32"}).',
    ]
    if engine.spec.task != "semantic":
        facts.append(
            f"confidence_threshold in the IR's metadata is {MIN_SCORE:g}; give another one in `configuration`."
        )
    write_readme(folder, TITLE, steps, facts)
    return steps


def _info(spec: ModelSpec) -> Info:
    """Return the metadata of the IR, whose graph prepares images for all wrappers but the one of masks."""
    if spec.task == "instance":
        return {
            "model_type": _WRAPPERS[spec.task],
            "labels": names((_BACKGROUND, *spec.classes)),
            **preparation(spec),
            **_DETECTION,
        }
    height, width = spec.preprocess.size
    info = {
        "model_type": _WRAPPERS[spec.task],
        "labels": names(spec.classes),
        "embedded_processing": "True",
        "orig_height": str(height),
        "orig_width": str(width),
        "resize_type": "standard",
    }
    return info if spec.task == "semantic" else {**info, **_DETECTION}
