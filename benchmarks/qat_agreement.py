"""Fake quantization in torch against the exported graph with Q/DQ pairs, and what engines make of that graph.

    python benchmarks/qat_agreement.py --images data/camvid/images/val --run edgeseg-m=runs/camvid/distilled --json qat.json

Each student trains a few steps with fake quantization, so that scales and weights are learned ones. Its logits on real images
are compared with those of the Q/DQ graph in ONNX Runtime without optimisation: the largest difference over the largest logit of
the image, the elements above 1e-6, and the places whose class (the largest channel) differs. Torch and ONNX Runtime add the
products of a convolution in different orders. Where the last bits of a sum decide to which level it rounds, both answers are
right, and one step of the grid lies between them: such flips are the elements above 1e-6. Later layers spread a flip. So each
quantizer and each operator is compared on its own as well, on the tensors that the runtime has there.

A student without `--run` starts from random weights, with batch norm statistics of the images and a few training steps; the
norms at the end of its residual branches start at 0. Engines are built from the learned scales: ONNX Runtime and OpenVINO from
the quantizer qdq, TensorRT for RTX from qdq_signed; none of them needs a GPU. Their convolutions in int8 are counted.

Exit code 1 when a quantizer differs in one value or an operator by more than 2e-6 on the same tensors, a class differs on an
image without a flip, a batch norm is left, or a convolution is not int8.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from brief_training import settle, train
from int8_convolutions import int8_convolutions
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.board.image_files import read_rgb
from edgekd.board.preprocess import prepare
from edgekd.core import plugins
from edgekd.core.artifact import open_artifact
from edgekd.core.recipe import Export
from edgekd.export.onnx_graph import deployed_spec, export_onnx
from edgekd.models.artifact import network_from_artifact
from edgekd.models.base import DenseModel
from edgekd.models.build import build_model
from edgekd.models.session import torch_spec
from edgekd.quantize.grids import Placement
from edgekd.quantize.qat import FakeQuantization, fake_quantized
from edgekd.quantize.qdq_graph import insert_qdq
from edgekd.quantize.ranges import calibrate
from edgekd.quantize.reference import runner
from edgekd.quantize.schemes import qdq
from edgekd.rewrites.graph import Graph

STUDENTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "edgeseg-n": ("edgeseg", "n", "semantic", {}),
    "edgeseg-m": ("edgeseg", "m", "semantic", {}),
    "fpn-lite0": ("smp", "fpn", "semantic", {"encoder": "tf_efficientnet_lite0"}),
    "lraspp": ("torchvision", "lraspp_mobilenet_v3_large", "semantic", {}),
    "edgedet-s": ("edgedet", "s", "detection", {}),
}
LIMIT = 1e-6
CLASSES = 11
SETTINGS = Export(upsampling="graph")


@dataclass
class Result:
    """What was found for one student; `engines` is int8 convolutions of all that the placement has, by engine."""

    student: str
    weights: str
    operators: int
    placed: int
    images: int = 0
    largest: float = 0.0
    flipped_images: int = 0
    largest_without_flip: float = 0.0
    elements_above: int = 0
    elements: int = 0
    classes_changed: int = 0
    classes_changed_without_flip: int = 0
    places: int = 0
    batch_norms: int = 0
    quantized_differently: int = 0
    quantized: int = 0
    largest_of_an_operator: float = 0.0
    channels: int = 0
    channels_to_the_end: int = 0
    engines: dict[str, str] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """Whether the student keeps what this page promises."""
        whole = all(count.split(" of ")[0] == count.split(" of ")[-1] for count in self.engines.values())
        is_equal = not (self.quantized_differently or self.classes_changed_without_flip or self.batch_norms)
        return is_equal and self.largest_of_an_operator < 2 * LIMIT and whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--count", type=int, default=100, help="images to compare")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 256], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--run", action="append", default=[], metavar="NAME=CHECKPOINT", help="a trained student")
    parser.add_argument("--only", nargs="*", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--steps", type=int, default=5, help="training steps with fake quantization")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-engines", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.disable(logging.WARNING)  # the quantizers talk
    runs = dict(one.split("=", 1) for one in args.run)
    files = sorted(p for p in args.images.iterdir() if p.suffix in (".jpg", ".png"))[: args.count]
    results = []
    for name in args.only:
        results.append(_measure(name, runs.get(name), files, args))
        _print(results[-1])
        if args.json:
            args.json.write_text(json.dumps([asdict(one) for one in results], indent=1))
    return 0 if all(one.is_right for one in results) else 1


def _measure(name: str, run: str | None, files: list[Path], args: argparse.Namespace) -> Result:
    size, task = tuple(args.size), STUDENTS[name][2]
    model = network_from_artifact(open_artifact(Path(run))) if run else _untrained(name)
    trained = torch_spec(model, task, tuple(str(i) for i in range(CLASSES)), size)
    images = [prepare(read_rgb(file), trained.preprocess) for file in files]
    if not run:
        settle(model, images[:16])
        train(model, images, 10)
    with TemporaryDirectory() as folder:
        start = Path(folder) / "start.onnx"
        spec, _ = export_onnx(model, deployed_spec(trained, model, SETTINGS), SETTINGS, start)
        placement = qdq.grids(start, spec, qdq.Options())
        batches = [{spec.inputs[0].name: image} for image in images]
        handle = fake_quantized(model, start, placement, calibrate(start, placement, batches[:16]))
        train(model, images, args.steps)
        expected = [_heads(model, image) for image in images]
        twin = copy.deepcopy(model)
        scales = handle.finish()
        final = Path(folder) / "trained.onnx"
        export_onnx(model, deployed_spec(trained, model, SETTINGS), SETTINGS, final)
        graph = insert_qdq(onnx.load(final), handle.placement, scales)
        result = Result(name, run or "random", len(placement.nodes), len(handle.placement.nodes))
        result.batch_norms = sum(node.op_type == "BatchNormalization" for node in graph.graph.node)
        _compare_alone(result, graph, batches[0], handle, twin, Path(folder))
        _count_channels(result, Graph(graph), handle.placement)
        _compare(result, graph, batches, expected, Path(folder))
        if not args.no_engines:
            result.engines = int8_convolutions(final, spec, batches[:16], scales, Path(folder))
    return result


def _untrained(name: str) -> DenseModel:
    family, variant, task, options = STUDENTS[name]
    torch.manual_seed(0)
    module = plugins.load("families", family)
    return build_model(family, variant, task, CLASSES, module.Options(**options))


def _heads(model: DenseModel, image: np.ndarray) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: value.numpy() for name, value in model.forward_normalized(torch.from_numpy(image)).heads.items()}


def _compare_alone(
    result: Result,
    graph: onnx.ModelProto,
    batch: dict[str, np.ndarray],
    handle: FakeQuantization,
    twin: DenseModel,
    folder: Path,
) -> None:
    """Compare quantizers and operators one by one, on the runtime's own tensors. `twin` has the quantizers still."""
    activations, outputs = (
        list(handle.placement.activations),
        {node.name: node.output[0] for node in Graph(graph).nodes},
    )
    wanted = [*activations, *(f"{name}_dequantized" for name in activations)]
    wanted += [outputs[node.name] for node in handle.placement.nodes]
    found = dict(zip(wanted, runner(graph, wanted, folder)(batch), strict=True))
    with torch.no_grad():
        for name, quantizer in zip(activations, twin.fake_quantization.tensors, strict=True):  # type: ignore[union-attr,arg-type]
            made = quantizer(torch.from_numpy(found[name])).numpy()
            result.quantized += made.size
            result.quantized_differently += int((made != found[f"{name}_dequantized"]).sum())
        for node in handle.placement.nodes:
            operator = handle.operators[node.name]
            read = torch.from_numpy(found[f"{node.activations[0]}_dequantized"])
            made = handle.student.get_submodule(operator.module)(read)
            if operator.norm:
                made = F.batch_norm(made, *_frozen(handle.student.get_submodule(operator.norm)))
            expected = found[outputs[node.name]]
            difference = float(np.abs(made.numpy() - expected).max() / np.abs(expected).max())
            result.largest_of_an_operator = max(result.largest_of_an_operator, difference)


def _frozen(norm: torch.nn.Module) -> tuple[Any, ...]:
    assert isinstance(norm, _BatchNorm)
    return norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps


def _count_channels(result: Result, graph: Graph, placement: Placement) -> None:
    """Count the channels of weights whose largest integer is the grid's: a tool that calibrates max|w| finds their scale."""
    for name, grid in placement.weights.items():
        whole = np.abs(graph.value(f"{name}_quantized").astype(int))
        largest = np.moveaxis(whole, grid.axis or 0, 0).reshape(whole.shape[grid.axis or 0], -1).max(axis=1)
        if grid.axis is None:
            largest = largest.max(keepdims=True)
        result.channels += len(largest)
        result.channels_to_the_end += int((largest == grid.levels[1]).sum())


def _compare(
    result: Result,
    graph: onnx.ModelProto,
    batches: list[dict[str, np.ndarray]],
    expected: list[dict[str, np.ndarray]],
    folder: Path,
) -> None:
    names = [output.name for output in graph.graph.output]
    run = runner(graph, names, folder)
    for batch, torchs in zip(batches, expected, strict=True):
        largest, above, changed = 0.0, 0, 0
        for name, value in zip(names, run(batch), strict=True):
            difference = np.abs(value - torchs[name]) / np.abs(torchs[name]).max()
            largest, above = max(largest, float(difference.max())), above + int((difference > LIMIT).sum())
            result.elements += difference.size
            if name.startswith(("logits", "scores")):
                changed += int((value.argmax(axis=1) != torchs[name].argmax(axis=1)).sum())
                result.places += value[:, 0].size
        result.images += 1
        result.largest = max(result.largest, largest)
        result.elements_above += above
        result.classes_changed += changed
        if above:
            result.flipped_images += 1
        else:
            result.largest_without_flip = max(result.largest_without_flip, largest)
            result.classes_changed_without_flip += changed


def _print(one: Result, write: Callable[[str], object] = sys.stdout.write) -> None:
    write(
        f"{one.student:<10} {one.weights}: {one.placed} of {one.operators} operators, {one.batch_norms} batch norms left\n"
        f"  on the same tensors: {one.quantized_differently} of {one.quantized} quantized values differ, operators by "
        f"{one.largest_of_an_operator:.1e} of their largest output\n"
        f"  {one.channels_to_the_end} of {one.channels} weight channels use the last level\n"
        f"  {one.images} images: largest difference {one.largest:.1e} of the largest logit; {one.largest_without_flip:.1e} on "
        f"{one.images - one.flipped_images} images without a flip\n"
        f"  {one.elements_above} of {one.elements} elements above {LIMIT:g}; classes changed: {one.classes_changed} of "
        f"{one.places}, {one.classes_changed_without_flip} without a flip\n"
        f"  int8 convolutions: {one.engines}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
