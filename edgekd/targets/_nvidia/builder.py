"""Building with TensorRT's Python API, for the targets `tensorrt` and `tensorrt_rtx`: log, parser, plan, facts.

Every call here is run with TensorRT-RTX 1.7.1, whose API is the same.

Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from edgekd.errors import TargetError, one_line
from edgekd.targets._nvidia.versions import BuildFlags
from edgekd.targets.base import Probe, Refusal

if TYPE_CHECKING:
    import tensorrt


# A build that searches longest, on a small board; nobody has measured one.
BUILD_TIMEOUT_S = 6 * 3600.0
_log = logging.getLogger(__name__)


class Log:
    """Collects the messages of the vendor's library instead of printing them; all but verbose ones are logged at debug."""

    def __init__(self, trt: Any) -> None:
        self.lines: List[Tuple[Any, str]] = []
        lines, verbose = self.lines, trt.ILogger.Severity.VERBOSE
        self._severe = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)

        class Collect(trt.ILogger):  # type: ignore[misc] # TensorRT has no types
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                lines.append((severity, message))
                if severity != verbose:
                    _log.debug("%s", message)

        self.logger = Collect()

    def last_error(self) -> str:
        """Return the last line of an error, on one line."""
        errors = [text for severity, text in self.lines if severity in self._severe]
        return one_line(Exception(errors[-1])) if errors else "it gives no reason"


class Build:
    """One build: builder, parsed network and configuration of the module `trt`, TensorRT's or TensorRT-RTX's.

    Args:
        trt: the module.
        product: its name in messages.
        flags: see `versions.build_flags`.
    """

    def __init__(self, trt: Any, product: str, flags: BuildFlags) -> None:
        self.trt = trt
        self.product = product
        self.log = Log(trt)
        self.builder: tensorrt.Builder = trt.Builder(self.log.logger)
        bits = sum(1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in flags.network)
        self.network: tensorrt.INetworkDefinition = self.builder.create_network(bits)
        self.config: tensorrt.IBuilderConfig = self.builder.create_builder_config()
        self.config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
        for name in flags.builder:
            self.config.set_flag(getattr(trt.BuilderFlag, name))

    def parse(self, graph: bytes, path: Path) -> None:
        """Parse a serialized ONNX model; `path` is its file, beside which the parser finds weights in other files.

        Raises:
            TargetError: refused, with every operator that the parser names.
        """
        parser: tensorrt.OnnxParser = self.trt.OnnxParser(self.network, self.log.logger)
        if not parser.parse(graph, str(path)):
            errors = [_said(parser.get_error(i)) for i in range(parser.num_errors)]
            reason = "; ".join(errors) or self.log.last_error()
            raise TargetError(f"{path}: {self.product} cannot parse it: {reason}")

    def limit_workspace(self, mib: int) -> None:
        """Limit the scratch memory of layers; 0 leaves the runtime's own limit."""
        if mib:
            self.config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, mib << 20)

    def write(self, engine: Path, model: Path) -> None:
        """Build and write the engine; `model` is named in the message.

        Raises:
            TargetError: not built.
        """
        plan = self.builder.build_serialized_network(self.network, self.config)
        if plan is None:
            raise TargetError(f"{model}: {self.product} cannot build it: {self.log.last_error()}")
        engine.write_bytes(bytes(plan))

    def facts(self) -> Dict[str, int]:
        """Return how many layers and convolutions the parsed network has, and how many of these read quantized data."""
        kinds = self.trt.LayerType
        layers: List[tensorrt.ILayer] = [self.network.get_layer(i) for i in range(self.network.num_layers)]
        producers = {layer.get_output(k).name: layer.type for layer in layers for k in range(layer.num_outputs)}
        convolutions = [layer for layer in layers if layer.type in (kinds.CONVOLUTION, kinds.DECONVOLUTION)]
        quantized = [layer for layer in convolutions if producers.get(layer.get_input(0).name) == kinds.DEQUANTIZE]
        return {
            "layers": len(layers),
            "convolutions": len(convolutions),
            "quantized_convolutions": len(quantized),
            "tf32": False,
        }


def probe_model(trt: Any, product: str, model: Path) -> Probe:
    """Ask the parser of `trt` which nodes of an ONNX file it takes; nothing is built and no GPU is needed.

    The parser reads weights in other files by itself, from the model's folder.
    """
    build = Build(trt, product, BuildFlags((), (), False))
    parser: tensorrt.OnnxParser = trt.OnnxParser(build.network, build.log.logger)
    if parser.supports_model_v2(model.read_bytes(), str(model)):
        return Probe(f"{product} {trt.__version__}, parser", ())
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    found = [Refusal(e.node_name(), e.node_operator(), one_line(Exception(e.desc()))) for e in errors]
    return Probe(f"{product} {trt.__version__}, parser", tuple(found) or (Refusal("", "", build.log.last_error()),))


def _said(error: Any) -> str:
    """Return one error of the parser on one line, with the node where the version names it (10.0 and later)."""
    text = one_line(Exception(error.desc()))
    if hasattr(error, "node_name"):
        return f"{error.node_operator()} {error.node_name()!r}: {text}"
    return f"node {error.node()}: {text}"
