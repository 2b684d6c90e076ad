"""RKNN-Toolkit2 in calls that raise: every step's return code is checked, and its scratch files stay in one folder.

Return code 0 is not success, the log has to be scanned as well (`Toolchain.log_errors` of the target).

Source: rknn-toolkit2 2.5.0, `rknn.api.RKNN`; RKNN SDK API reference 2.3.2 for the meaning of the arguments.
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, TypedDict

import numpy as np

from edgekd.board.specs import ModelSpec
from edgekd.board.sysinfo import Facts
from edgekd.errors import TargetError
from edgekd.rewrites import max_pool_pads
from edgekd.rewrites.graph import Graph, import_onnx, read_onnx
from edgekd.targets.rknn.hybrid import check_kept, keep_float16, resolved

if TYPE_CHECKING:
    from edgekd.targets.rknn.target import Options

DISTRIBUTION = "rknn-toolkit2"
# In this order, before every build: without them 2.5.0 crashes, or builds an engine that is wrong.
REWRITES = ("adaptive_pool", "stack_sum", "max_pool_pads")


class LayerError(TypedDict):
    """Distance of a layer's output to the float result (JSON); None for nan and inf.

    `entire_*` with the errors of all layers before it, `single_*` of this layer alone on float inputs.
    """

    op: str
    tensor: str
    entire_cosine: Optional[float]
    entire_euclidean: Optional[float]
    single_cosine: Optional[float]
    single_euclidean: Optional[float]


def toolkit_version() -> str:
    """Return the toolkit's version; TargetError when it is not installed in this Python."""
    return _import()[1]


def started_version() -> str:
    """Return the toolkit's version after starting it, which imports what it forgets to require.

    Raises:
        TargetError: not installed in this Python, or one of those packages is missing.
    """
    toolkit, version = _import()
    try:
        toolkit(verbose=False).release()
    except ImportError as exc:
        raise TargetError(f"{DISTRIBUTION} {version} does not start: {exc}; edgekd toolchain doctor rknn") from exc
    return version


class Toolkit:
    """One model in the toolkit: `build`, then `export`, `analyse` or `run`; a context manager.

    Args:
        options: the target's own.
        spec: contract of the exported network, float32 NCHW; its mean and std are folded into the engine.
    """

    def __init__(self, options: "Options", spec: ModelSpec) -> None:
        self._options, self._spec = options, spec
        self._rknn = _import()[0](verbose=False)
        self._folder = TemporaryDirectory(prefix="rknn-")

    def __enter__(self) -> "Toolkit":
        return self

    def __exit__(self, *exc: Optional[object]) -> None:
        self.close()

    def close(self) -> None:
        """Release the toolkit's memory and remove its scratch files."""
        self._rknn.release()
        self._folder.cleanup()

    def build(self, model: Path, calibration: Optional[Path]) -> Facts:
        """Configure, load and build; int8 when there is a calibration file, else fp16. Return what was configured.

        Args:
            model: float ONNX file.
            calibration: .npy of uint8 pixels (N, H, W, 3), in the network's colour order.
        """
        settings = self._settings(is_int8=calibration is not None)
        given = Path(self._folder.name) / model.name
        details: Facts = {"toolkit": toolkit_version(), "config": settings, "rewritten": rewritten(model, given)}
        _done(self._rknn.config(**settings), "config")
        _done(self._rknn.load_onnx(model=str(given)), "load_onnx")
        if calibration is None:
            _done(self._rknn.build(do_quantization=False), "build")
            return details
        images = np.load(str(calibration))
        dataset = self._dataset(images)
        if self._options.keep_float16:
            self._build_hybrid(model, dataset)
        else:
            hybrid = self._options.auto_hybrid
            _done(self._rknn.build(do_quantization=True, dataset=dataset, auto_hybrid=hybrid), "build")
        return {**details, "calibration_images": len(images)}

    def export(self, engine: Path) -> None:
        """Write the engine."""
        _done(self._rknn.export_rknn(str(engine)), "export_rknn")

    def analyse(self, images: np.ndarray) -> List[LayerError]:
        """Return, for each layer in graph order, how close the simulated engine is to float.

        Args:
            images: uint8 pixels (N, H, W, 3); each layer gets the value of its worst image.
        """
        found = []
        for number, path in enumerate(self._files(images, "analysed")):
            out = Path(self._folder.name) / f"analysis{number}"
            _done(self._rknn.accuracy_analysis(inputs=[path], output_dir=str(out)), "accuracy_analysis")
            found.append(parse_analysis((out / "error_analysis.txt").read_text(encoding="utf-8")))
        return worst_of(found)

    def start_simulator(self) -> None:
        """Make `run` possible, on this CPU."""
        _done(self._rknn.init_runtime(), "init_runtime")

    def run(self, arrays: Sequence[np.ndarray]) -> Any:
        """Return the outputs (a list of arrays, or None) for uint8 NHWC inputs; the toolkit normalises."""
        return self._rknn.inference(inputs=list(arrays), data_format=["nhwc"] * len(arrays))

    def _settings(self, is_int8: bool) -> Facts:
        """Return the arguments of `config`; mean and std are of pixels 0 to 255, one list per input."""
        before = self._spec.preprocess
        settings: Facts = {
            "mean_values": [[255 * value for value in before.mean]],
            "std_values": [[255 * value for value in before.std]],
            "target_platform": self._options.chip,
            "optimization_level": self._options.optimization_level,
        }
        if is_int8:
            settings["quantized_dtype"] = "w8a8"
            settings["quantized_algorithm"] = self._options.algorithm
            settings["quantized_method"] = self._options.weights
        return settings

    def _dataset(self, images: np.ndarray) -> str:
        """Return a text file with the path of one NCHW array per line, what the toolkit takes as calibration set."""
        path = os.path.join(self._folder.name, "dataset.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in self._files(images, "calibration"))
        return path

    def _files(self, images: np.ndarray, name: str) -> List[str]:
        paths = []
        for number, image in enumerate(images):
            paths.append(os.path.join(self._folder.name, f"{name}{number:05}.npy"))
            np.save(paths[-1], np.ascontiguousarray(image.transpose(2, 0, 1)[None]))  # (1, 3, H, W)
        return paths

    def _build_hybrid(self, model: Path, dataset: str) -> None:
        """Quantize in the toolkit's two steps, with the named tensors in float16 in between."""
        here = os.getcwd()
        os.chdir(self._folder.name)  # step 1 writes into the working folder
        try:
            _done(self._rknn.hybrid_quantization_step1(dataset=dataset), "hybrid_quantization_step1")
            stem = os.path.join(self._folder.name, model.stem)
            cfg = Path(f"{stem}.quantization.cfg")
            text = cfg.read_text(encoding="utf-8")
            graph = Graph(read_onnx(Path(self._folder.name) / model.name, has_weights=False))
            kept = resolved(text, self._options.keep_float16, graph)
            cfg.write_text(keep_float16(text, kept), encoding="utf-8")
            step2 = self._rknn.hybrid_quantization_step2(
                model_input=f"{stem}.model", data_input=f"{stem}.data", model_quantization_cfg=str(cfg)
            )
            _done(step2, "hybrid_quantization_step2")
            check_kept(
                cfg.read_text(encoding="utf-8"), kept
            )  # the toolkit writes the file again where it changes a layer
        finally:
            os.chdir(here)


def rewritten(model: Path, out: Path) -> List[str]:
    """Write the model in a form that the toolkit reads correctly; return the names of the rewritten nodes.

    Raises:
        ArtifactError: the file is not a readable ONNX model.
        TargetError: a graph with Q/DQ pairs, or a pool that the toolkit would misread and that cannot be rewritten, because its
            values may be negative.
    """
    net = read_onnx(model)
    if Graph(net).is_quantized:
        raise TargetError(
            f"{model}: RKNN-Toolkit2 quantizes the float model by itself, expected a graph without Q/DQ pairs, got one with "
            "them; give the float model"
        )
    found = [node for name in REWRITES for node in import_module(f"edgekd.rewrites.{name}").rewrite(net)]
    graph = Graph(net)
    for node in max_pool_pads.misread(graph):
        height, width = (graph.shape(node.input[0]) or ())[2:]
        raise TargetError(
            f"{model}: {node.name}: RKNN-Toolkit2 takes a MaxPool that is larger than its input ({height}x{width}) for "
            "the maximum of the whole input; use a larger input or a smaller kernel, or a ReLU before it"
        )
    import_onnx().save(net, str(out))
    return found


def parse_analysis(text: str) -> List[LayerError]:
    """Return the layers of an `error_analysis.txt` in graph order.

    Raises:
        TargetError: no line of the text is a layer.
    """
    number = r"([-+.\w]+)"  # also nan and inf
    row = re.compile(rf"^\[(\w+)\]\s+(\S+)\s+{number}\s*\|\s*{number}\s+{number}\s*\|\s*{number}", re.M)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    rows = [_layer_error(*found) for found in row.findall(plain)]
    if not rows:
        raise TargetError(f"rknn: no layer in the accuracy analysis; it begins with {plain[:80]!r}")
    return rows


def _layer_error(op: str, tensor: str, *numbers: str) -> LayerError:
    entire_cosine, entire_euclidean, single_cosine, single_euclidean = map(_finite, numbers)
    return {
        "op": op,
        "tensor": tensor,
        "entire_cosine": entire_cosine,
        "entire_euclidean": entire_euclidean,
        "single_cosine": single_cosine,
        "single_euclidean": single_euclidean,
    }


def worst_of(analyses: Sequence[List[LayerError]]) -> List[LayerError]:
    """Return for each layer the row with the smallest accumulated cosine; NaN is the smallest."""

    def cosine(row: LayerError) -> float:
        return -2.0 if row["entire_cosine"] is None else row["entire_cosine"]

    return [min(rows, key=cosine) for rows in zip(*analyses)]  # noqa: B905


def _finite(text: str) -> Optional[float]:
    """Return a number; None for nan and inf, which JSON does not have."""
    value = float(text)
    return value if np.isfinite(value) else None


def _import() -> Tuple[Any, str]:
    """Return the class RKNN and the version of the distribution."""
    from importlib.metadata import version

    try:
        from rknn.api import RKNN
    except ImportError as exc:
        raise TargetError(f"{DISTRIBUTION} is not installed in this Python; edgekd toolchain install rknn") from exc
    return RKNN, version(DISTRIBUTION)


def _done(code: Any, step: str) -> None:
    if code != 0:
        raise TargetError(f"rknn: {DISTRIBUTION} {toolkit_version()} failed in {step} with return code {code!r}")
