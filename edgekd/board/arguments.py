"""The arguments of a job's tasks (JSON), see `edgekd/worker_tasks.py`.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict

from edgekd.board.job import Json
from edgekd.board.specs import SpecJson


class CompileArguments(TypedDict):
    """Of the task `compile`; `model` and `calibration` are names of files."""

    model: str
    spec: SpecJson
    precision: str
    options: Json
    calibration: Optional[str]


class InferArguments(TypedDict):
    """Of the task `infer`; `engine` and `inputs` are names of files. `is_simulated`: the simulator computes, not the chip."""

    engine: str
    spec: SpecJson
    options: Json
    is_simulated: bool
    inputs: List[str]


class TapArguments(TypedDict):
    """Of the task `tap`: as `InferArguments`, and the names of inner tensors."""

    engine: str
    spec: SpecJson
    options: Json
    inputs: List[str]
    tensors: List[str]


class MeasuredEngine(TypedDict):
    """An engine among the `MeasureArguments`; `engine` is the name of a file."""

    module: str
    engine: str
    spec: SpecJson
    options: Json


class DecodeArguments(TypedDict):
    """Image files by name, and the function that reads one into an array, `module:function`: boards need not have it."""

    function: str
    images: List[str]


class MeasureArguments(TypedDict):
    """Of the task `measure`: engines by id, names of .npy files, (H, W, 3) uint8 RGB, and the fields of `BenchSettings`.

    decode: None where the images are arrays only.
    long_runs: fields of `LongRunSettings`.
    """

    engines: Dict[str, MeasuredEngine]
    images: List[str]
    settings: Json
    decode: Optional[DecodeArguments]
    long_runs: Json


class DuelArguments(TypedDict):
    """Of the task `duel`: engines by name, the first is what the others are compared with; the rest as `MeasureArguments`."""

    engines: Dict[str, MeasuredEngine]
    images: List[str]
    rounds: int
    seed: int


class FootprintArguments(TypedDict):
    """Of the task `footprint`; `image` is the name of a .npy file, (H, W, 3) uint8 RGB."""

    engine: MeasuredEngine
    image: str


class PredictArguments(TypedDict):
    """Of the task `predict`; `engine` and `images` (files of images, see `board/prediction_files.py`) are names of files.

    selection: fields of `Selection`; None for the default one, and for segmenters.
    """

    engine: str
    spec: SpecJson
    options: Json
    images: List[str]
    selection: Optional[Json]


class ProbeArguments(TypedDict):
    """Of the task `probe`; `model` is the name of a file."""

    model: str
    options: Json


class FactsArguments(TypedDict):
    """Of the task `facts`: modules of the targets whose facts are asked; one that is not there is left out."""

    modules: List[str]


class AskedEngine(TypedDict):
    """An engine among the `WhyNotHereArguments`: module of its target, and its options; None asks for any options."""

    module: str
    options: Optional[Json]


class WhyNotHereArguments(TypedDict):
    """Of the task `why_not_here`. `needs_runtime`: whether a runtime that is not installed is a reason."""

    engines: List[AskedEngine]
    needs_runtime: bool


class InstallArguments(TypedDict):
    """Of the task `install`; `bundle` is the name of a file, the rest as `edgekd.release.install.Wanted`.

    root: folder of releases on the board, which may begin with ~/.
    name: of the service.
    call: differs for each call, so that no earlier answer is taken for this one's.
    """

    root: str
    name: str
    bundle: str
    chip: Optional[str]
    needs_signature: bool
    may_be_older: bool
    is_dry: bool
    variables: Dict[str, str]
    health_s: float
    call: str


class ReleasesArguments(TypedDict):
    """Of the tasks `releases`, `roll_back` and `remove_releases`; as in `InstallArguments`. `name`: "" for all."""

    root: str
    name: str
    health_s: float
