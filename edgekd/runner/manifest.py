"""`manifest.json` of a bundle: its engine, the hardware and runtime it needs, and the limits of its golden outputs.

A bundle can come from anybody, so type and bounds of every value are checked before use.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Optional

from edgekd.errors import BundleError

SCHEMA = "edgekd.bundle/1"
MANIFEST = "manifest.json"
SPEC = "spec.json"
_MOST_BYTES = 4 << 20
_MOST_GOLDEN = 16
_MOST_VERSION = 1 << 53  # the integers that every reader of JSON keeps

Json = Dict[str, Any]


@dataclass(frozen=True)
class Tolerance:
    """Largest difference between the engine's answers here and those in the bundle.

    error: root mean square of the differences of an output, in units of its standard deviation.
    different: share of pixels, or of boxes, whose result is another one.
    """

    error: float
    different: float


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    name: name of the service on a board; by default the engine's id without its board, e.g. `openvino-int8`.
    version: seconds since 1970 when the engine was made; a board refuses a lower one without `--older`.
    task: semantic, detection or instance.
    target, precision, options: as in the recipe.
    engine: path of the engine in the bundle, e.g. `engine/engine.xml`.
    chip: the chip that the engine was made for; None for any.
    machine: hardware that the engine is bound to; {} for any.
    runtime: distribution -> version of the runtime that made it, or that it needs.
    tolerance: tolerance of the golden outputs.
    golden: number of images with golden outputs.
    accuracy, latency: figures of the report's row, to read.
    made_by: versions and hashes of what made the engine: edgekd, git_commit, recipe_sha256, data, calibration, tools ...
    module: module of a target of another package, which `runtime/` holds; "" for edgekd's own targets.
    """

    name: str
    version: int
    task: str
    target: str
    precision: str
    engine: str
    tolerance: Tolerance
    golden: int
    options: Json = field(default_factory=dict)
    chip: Optional[str] = None
    machine: Json = field(default_factory=dict)
    runtime: Dict[str, str] = field(default_factory=dict)
    accuracy: Json = field(default_factory=dict)
    latency: Json = field(default_factory=dict)
    made_by: Json = field(default_factory=dict)
    module: str = ""

    def to_json(self) -> str:
        """Return the text of the file; equal manifests give equal bytes."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an unpacked bundle.

    Raises:
        BundleError: it is missing, too large, not JSON, of another schema, or a value is invalid.
    """
    path = folder / MANIFEST
    try:
        data = read_json(path)
    except (OSError, ValueError, RecursionError) as exc:
        raise BundleError(f"{path}: cannot be read ({exc}); this is no bundle of edgekd, or a damaged one") from exc
    return parse_manifest(data, str(path))


def read_json(path: Path) -> Any:
    """Return the JSON of a file that anybody may have written.

    Raises:
        OSError, ValueError, RecursionError: it cannot be read, is larger than 4 MiB, or is no JSON.
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"expected at most {_MOST_BYTES >> 20} MiB")
    return json.loads(path.read_text(encoding="utf-8"))


def parse_manifest(data: object, where: str) -> Manifest:
    """Return a manifest from JSON data; BundleError, which begins with `where`, for what is not one."""
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        got = data.get("schema") if isinstance(data, dict) else type(data).__name__
        raise BundleError(f"{where}: expected schema {SCHEMA}, got {got!r}; use the edgekd that wrote it")
    values = {name: _checked({"module": "", **data}, name, kind, where) for name, kind in _KINDS.items()}
    if not (0 <= values["version"] <= _MOST_VERSION and 0 <= values["golden"] <= _MOST_GOLDEN):
        raise BundleError(f"{where}: `version` or `golden` is out of range")
    for name, pattern in _PATTERNS.items():
        if not pattern.fullmatch(values[name]):
            raise BundleError(f"{where}: `{name}`: expected {pattern.pattern}, got {values[name]!r:.100}")
    for name, version in values["runtime"].items():
        if not isinstance(version, str):
            raise BundleError(f"{where}: runtime.{name}: expected a version as text, got {version!r}")
    path = PurePosixPath(values["engine"])
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != ("engine",):
        raise BundleError(f"{where}: expected `engine` to be a file in engine/, got {values['engine']!r}")
    limits = {name: _checked(values["tolerance"], name, (int, float), where) for name in ("error", "different")}
    if not all(0 <= value < float("inf") for value in limits.values()):
        raise BundleError(f"{where}: expected finite tolerances of 0 or more, got {limits}")
    return Manifest(**{**values, "tolerance": Tolerance(**limits)})


_KINDS: Dict[str, Any] = {
    "name": str,
    "version": int,
    "task": str,
    "target": str,
    "precision": str,
    "engine": str,
    "tolerance": dict,
    "golden": int,
    "options": dict,
    "chip": (str, type(None)),
    "machine": dict,
    "runtime": dict,
    "accuracy": dict,
    "latency": dict,
    "made_by": dict,
    "module": str,
}
# Names become folders, units and imports.
_PATTERNS = {
    "name": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}"),
    "target": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"),
    "module": re.compile(r"([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?"),
}


def _checked(data: Json, name: str, kind: Any, where: str) -> Any:
    value = data.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BundleError(f"{where}: `{name}` is missing or of another type, got {value!r:.80}")
    return value
