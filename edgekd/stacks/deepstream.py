"""DeepStream: a configuration of nvinfer, the labels, and the source of a parser for the engine's outputs.

nvinfer feeds float pixels, `scale * (pixel - offset[channel])`, with one scale for all channels. So an engine fits whose `std` is
the same for all channels, or that normalises float pixels by itself (`export.input: pixels_nchw`).

Source: NVIDIA/DeepStream (2026), includes/nvdsinfer_custom_impl.h, src/gst-plugins/gst-nvinfer and src/utils/nvdsinfer.
Checked: the keys against that parser's; the C++ source compiles against the interface that it declares, and gives what
`board/detection.py` gives. Not run with DeepStream, nor on its hardware.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from edgekd.board.detection import MIN_SCORE, Selection
from edgekd.board.specs import ModelSpec
from edgekd.stacks._nvinfer_contract import DTYPES, header
from edgekd.stacks.base import LABELS, Engine, write_contract, write_readme

TITLE = "DeepStream (nvinfer)"
TARGETS = ("tensorrt", "onnxruntime")
CONFIG, PARSER, LIBRARY = "config_infer.txt", "parser.cpp", "libedgekd_parser.so"
_SOURCE = Path(__file__).with_name("_nvinfer_parser.cpp")
# Task -> nvinfer's network-type, the key that names a parser, the parser, and cluster-mode for outputs that are not suppressed.
_TASKS = {
    "semantic": (2, "parse-segmentation-func-name", "EdgekdParseSegmentation", None),
    "detection": (0, "parse-bbox-func-name", "EdgekdParseObjects", 2),
    "instance": (3, "parse-bbox-instance-mask-func-name", "EdgekdParseInstances", 4),
}
_NOT_CLUSTERED = 4
_MODES = {"fp32": 0, "int8": 1, "mixed": 1, "fp16": 2}
_FOLD = "set export.input: pixels_nchw, which normalises in the graph, and build the engine again"


def why_not(engine: Engine) -> str:
    """Return why nvinfer does not take an engine, "" when it does."""
    preprocess = engine.spec.preprocess
    if preprocess.dtype != "float32" or preprocess.layout != "NCHW":
        return f"nvinfer feeds float32 NCHW, the engine takes {preprocess.dtype} {preprocess.layout}; {_FOLD}"
    if len(set(preprocess.std)) > 1:
        std = ", ".join(f"{value:g}" for value in preprocess.std)
        return f"nvinfer has one scale for all channels, the engine's std is {std}; {_FOLD}"
    if others := [one for one in engine.spec.outputs if one.dtype not in DTYPES]:
        return f"the parser reads outputs of {' and '.join(DTYPES)}, {others[0].name} is {others[0].dtype}; export it as one of them"
    if engine.spec.all_outputs("found_masks"):
        return "there is no parser for `found_masks`; give a network with prototypes, e.g. edgeseg"
    return ""


def write(engine: Engine, folder: Path) -> list[str]:
    """Write the configuration, the parser's source, the labels and the engine; return the steps that remain."""
    file = engine.copy_to(folder, "model")
    write_contract(engine, folder, separator=";")
    shutil.copyfile(_SOURCE, folder / PARSER)
    (folder / "contract.h").write_text(header(engine.spec), encoding="utf-8")
    (folder / CONFIG).write_text(_config(engine, file), encoding="utf-8")
    sdk = "/opt/nvidia/deepstream/deepstream/sources/includes"
    steps = [
        f"g++ -O2 -shared -fPIC {PARSER} -o {LIBRARY} -I{sdk} -I/usr/local/cuda/include",
        f"gst-launch-1.0 ... ! nvinfer config-file-path={CONFIG} ! ...",
    ]
    write_readme(folder, TITLE, steps, _facts(engine))
    return steps


def _facts(engine: Engine) -> list[str]:
    facts = [
        "Not run with DeepStream. The keys are those of its public source (2026); the parser compiles against its interface and "
        "was compared with edgekd's own results.",
        "nvinfer resizes frames without antialiasing: where a frame is much larger than the network, results differ from edgekd's.",
    ]
    if engine.target == "tensorrt":
        facts.append(
            "The plan runs only in the TensorRT version and on the GPU that built it: DeepStream's own, on that machine."
        )
    else:
        facts.append(
            "TensorRT builds an engine from model.onnx at the first start. It is not the engine that edgekd measured."
        )
    if engine.spec.task == "semantic" and engine.spec.preprocess.resize == "letterbox":
        facts.append("The class map covers the network's input, with the bars of the letterbox. Cut them off.")
    if engine.spec.task != "semantic":
        facts.append(f"Scores below {MIN_SCORE:g} are left out; see class-attrs-all in {CONFIG}.")
    return facts


def _config(engine: Engine, file: str) -> str:
    preprocess, spec = engine.spec.preprocess, engine.spec
    network_type, parser_key, parser, clusters = _TASKS[spec.task]
    is_letterbox = int(preprocess.resize == "letterbox")
    values = {
        "gpu-id": 0,
        "gie-unique-id": 1,
        "process-mode": 1,
        **_model(engine, file),
        "batch-size": 1,
        "network-type": network_type,
        "num-detected-classes": len(spec.classes),
        "labelfile-path": LABELS,
        "infer-dims": _list((3, *preprocess.size)),
        "network-input-order": 0,
        "model-color-format": int(preprocess.color_order == "BGR"),
        "net-scale-factor": f"{1 / (255 * preprocess.std[0]):.9g}",
        "offsets": _list(f"{255 * value:.9g}" for value in preprocess.mean),
        "maintain-aspect-ratio": is_letterbox,
        "symmetric-padding": is_letterbox,
        "scaling-filter": 1,
        "output-blob-names": _list(tensor.name for tensor in spec.outputs),
        "custom-lib-path": LIBRARY,
        parser_key: parser,
    }
    if clusters is None:
        values["segmentation-threshold"] = 0
    else:
        values["cluster-mode"] = _NOT_CLUSTERED if spec.all_outputs("found_boxes") else clusters
        values["crop-objects-to-roi-boundary"] = 1
    if spec.task == "instance":
        values |= {"output-instance-mask": 1, "segmentation-threshold": 0.5}
    groups = {"property": values, **_class_attributes(spec)}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in group.items()) for name, group in groups.items()
    )


def _model(engine: Engine, file: str) -> dict[str, object]:
    if engine.target == "tensorrt":
        return {"model-engine-file": file, "network-mode": _MODES[engine.precision]}
    if engine.is_quantized:
        # network-mode 1 asks for a calibration file, and is FP16 without one. The graph has its own scales.
        return {"onnx-file": file, "network-mode": 0, "strongly-typed": 1}
    return {"onnx-file": file, "network-mode": _MODES[engine.precision]}


def _class_attributes(spec: ModelSpec) -> dict[str, dict[str, object]]:
    if spec.task == "semantic":
        return {}
    chosen = Selection()
    return {
        "class-attrs-all": {"pre-cluster-threshold": MIN_SCORE, "nms-iou-threshold": chosen.iou, "topk": chosen.most}
    }


def _list(values: Iterable[object]) -> str:
    return ";".join(str(value) for value in values)
