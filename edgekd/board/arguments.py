"""The arguments of a job's tasks (JSON), see `edgekd/worker_tasks.py`.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict

from edgekd.board.job import Json
from edgekd.board.specs import SpecJson


class CompileArguments(TypedDict):
    """Arguments of the task `compile`; `model` and `calibration` are file names in the job's folder."""

    model: str
    spec: SpecJson
    precision: str
    options: Json
    calibration: Optional[str]


class EngineArguments(TypedDict):
    """An engine and its inputs; `engine` and `inputs` are file names."""

    engine: str
    spec: SpecJson
    options: Json
    inputs: List[str]


class InferArguments(EngineArguments):
    """Arguments of the task `infer`. `is_simulated`: run in the vendor's simulator."""

    is_simulated: bool


class TapArguments(EngineArguments):
    """Arguments of the task `tap`: the names of inner tensors."""

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
    """Arguments of the task `measure`: engines by id, .npy images (H, W, 3) uint8 RGB by file name, `BenchSettings`.

    decode: None where the images are arrays only.
    long_runs: fields of `LongRunSettings`.
    """

    engines: Dict[str, MeasuredEngine]
    images: List[str]
    settings: Json
    decode: Optional[DecodeArguments]
    long_runs: Json


class DuelArguments(TypedDict):
    """Arguments of the task `duel`: engines by name, the first is the reference; the rest as in `MeasureArguments`."""

    engines: Dict[str, MeasuredEngine]
    images: List[str]
    rounds: int
    seed: int


class FootprintArguments(TypedDict):
    """Arguments of the task `footprint`; `image` is the name of a .npy file, (H, W, 3) uint8 RGB."""

    engine: MeasuredEngine
    image: str


class PredictArguments(TypedDict):
    """Arguments of the task `predict`; `engine` and `images` (see `board/prediction_files.py`) are file names.

    selection: fields of `Selection`; None for the default one, and for segmenters.
    """

    engine: str
    spec: SpecJson
    options: Json
    images: List[str]
    selection: Optional[Json]


class ProbeArguments(TypedDict):
    """Arguments of the task `probe`; `model` is a file name."""

    model: str
    options: Json


class FactsArguments(TypedDict):
    """Arguments of the task `facts`: modules of targets to describe. Modules that are not installed are left out."""

    modules: List[str]


class AskedEngine(TypedDict):
    """An engine among the `WhyNotHereArguments`: module of its target, and its options; None asks for any options."""

    module: str
    options: Optional[Json]


class WhyNotHereArguments(TypedDict):
    """Arguments of the task `why_not_here`. `needs_runtime`: whether a missing runtime is a reason."""

    engines: List[AskedEngine]
    needs_runtime: bool


class InstallArguments(TypedDict):
    """Arguments of the task `install`; `bundle` is a file name, the rest as in `edgekd.release.install.Wanted`.

    root: folder of releases on the board, which may begin with ~/.
    name: name of the service.
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
    """Arguments of the tasks `releases`, `roll_back` and `remove_releases`, as in `InstallArguments`. `name`: "" for all."""

    root: str
    name: str
    health_s: float
