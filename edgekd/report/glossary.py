"""Definitions of every number on the page: the metrics of the report, then the other numbers of the page."""

from __future__ import annotations

from collections.abc import Mapping

from edgekd.report.model import Definition
from edgekd.report.pictures import BAND_PX

_HIGHER, _LOWER = True, False
# Name -> title, text, whether higher is better (None: neither).
_PAGE: dict[str, tuple[str, str, bool | None]] = {
    "points": (
        "points", "Percentage points: the difference of two percentages. From 60.0 % to 61.5 % is +1.5 points.", None,
    ),
    "latency_ms": (
        "engine time",
        "Time of one synchronous inference of one image: input tensor in, output tensors out. Pre- and post-processing "
        "are outside. Measured after warm-up, one inference at a time; p50 is the median.", _LOWER,
    ),
    "wall_ms": (
        "wall time",
        "Time from an image array in memory to the class map, or the objects, at image size: pre-processing, inference and "
        "post-processing together. Decoding the image file is outside.", _LOWER,
    ),
    "stages_ms": (
        "time by stage",
        "Parts of the wall time: “prepare” makes the network's input from an image array, “engine” runs it, and the last stage "
        "makes the class map, boxes or masks from its outputs. “decode” reads the image file first, where the data set has "
        "files. “array in” is the wall time without decoding, “file in” includes it.", _LOWER,
    ),
    "footprint": (
        "load time, memory",
        "In a process that opens one engine and runs it: time from the file to a session that is ready, first run, highest "
        "resident memory, and resident memory before loading. Memory of a GPU or an NPU is not in it.", _LOWER,
    ),
    "same_share": (
        "as ONNX",
        "Share of the pixels that an engine gives the same class as its float ONNX graph, or of the detections that have a "
        "counterpart in it, on training images. The graph is evaluated without optimisation.", _HIGHER,
    ),
    "max_error": (
        "max error",
        "Largest difference between an engine's output and the ONNX graph's, relative to the spread (max - min) of the "
        "graph's output: of the worst output, on training images.", _LOWER,
    ),
    "rms_error": (
        "RMS error",
        "RMS of the differences between an engine's output and the ONNX graph's, relative to the standard deviation of the "
        "graph's output: of the worst output, on training images.", _LOWER,
    ),
    "percentiles": (
        "p50, p90, p99",
        "Half, 90 % and 99 % of the runs are at most this long. A percentile that needs more runs "
        "than were made is withheld and shown as –.", _LOWER,
    ),
    "throughput_fps": ("throughput", "Images per second as the benchmark measured it, for the same engine.", _HIGHER),
    "speed": (
        "speed",
        "Time of the engine that is compared with over the time of this one, 1.5× is 1.5 times as fast: the median over the "
        "rounds of one interleaved bench, with its 95 % interval. It is not decided where the interval shows no difference, the "
        "engine times do not confirm it, or the machine was not quiet.", _HIGHER,
    ),
    "energy": (
        "energy per frame",
        "Energy of the meter while the engine ran back to back, over the frames. Gross is all of it, net is without the idle "
        "power, which is measured with the engine open before and after. A figure that cannot be told from noise is withheld.",
        _LOWER,
    ),
    "sustained": (
        "sustained latency",
        "Median engine time of the last minute of a run back to back, and its ratio to that of the bench's short bursts. Heat "
        "and power limits show here, and not in bursts.", _LOWER,
    ),
    "layers": (
        "error layer by layer",
        "Signal to noise in dB: 6 dB are one bit, 3 dB halve the noise power. “alone” is the error of the outputs when only this "
        "layer is quantized. “accumulated” is the error of its tensor when all are quantized, with the errors of "
        "earlier layers. “engine” compares its tensor in the engine with the Q/DQ graph's. “own” does so from the engine's own "
        "inputs: the error of this layer. “rounding” is the lowest “own” that rounding can explain.", _HIGHER,
    ),
    "size_bytes": ("size", "Bytes of the deployed file, or files, on disk. 1 MB is 1 000 000 bytes.", _LOWER),
    "params": ("parameters", "Trained numbers of the network.", _LOWER),
    "macs": ("multiply-adds", "Multiply-add operations of one image at the network's input size.", _LOWER),
    "boundary_band": (
        "boundary band, boundary errors",
        f"In the pictures: labelled pixels that have a pixel of another true class at most {BAND_PX} px away in both "
        "directions. A boundary error is a wrong pixel in this band. Contours against ignored pixels do not count.", _LOWER,
    ),
    "difference": (
        "won, lost",
        "In the layer Difference: pixels or objects that this network gets right and the other one wrong are won, the "
        "opposite is lost.", None,
    ),
    "loss": (
        "task loss",
        "The training loss against the labels, without distillation terms, averaged since the point before.", _LOWER,
    ),
    "sha256": (
        "sha256", "Fingerprint of the measured file: the same fingerprint means the same bytes.", None,
    ),
}  # fmt: skip


def glossary(definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    """Return all definitions by name. Those of the report come first and replace those of the page."""
    page = {name: Definition(title=one[0], text=one[1], higher_is_better=one[2]) for name, one in _PAGE.items()}
    return {**definitions, **{name: entry for name, entry in page.items() if name not in definitions}}
