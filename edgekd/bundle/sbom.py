"""`sbom.cdx.json`: content and inputs of a bundle as a CycloneDX 1.6 ML-BOM.

Source: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/. The library has no model card yet, so the card is added to what it
writes; a test validates the whole against the schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgekd.board.specs import ModelSpec, TensorSpec
from edgekd.core.plugins import packages_of
from edgekd.runner.manifest import Manifest

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_NAMESPACE = uuid.UUID("5f1c2a52-6f0e-5a5a-9d3c-0a4f0e2f7a11")  # of the serial numbers, made once for edgekd
_TASKS = {"semantic": "semantic segmentation", "detection": "object detection", "instance": "instance segmentation"}


def sbom(manifest: Manifest, spec: ModelSpec, engine_files: Mapping[str, str]) -> str:
    """Return the SBOM's text; the same bundle gives the same text.

    Args:
        manifest: manifest of the bundle.
        spec: contract of the engine.
        engine_files: name in the bundle -> SHA-256 (hex) of the engine's files.

    Raises:
        PackageError: the extra `deploy` is not installed.
    """
    with packages_of("the SBOM of a bundle"):
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.output.json import JsonV1Dot6

    model = _model(manifest, engine_files)
    needed, built_with, data = _needed(manifest), _built_with(manifest), _data(manifest)
    bom = Bom(
        components=[*needed, *built_with, *data],
        serial_number=uuid.uuid5(_NAMESPACE, json.dumps(dict(engine_files), sort_keys=True) + manifest.to_json()),
        metadata=BomMetaData(component=model, timestamp=datetime.fromisoformat(manifest.made_by["created"])),
    )
    bom.register_dependency(model, needed)
    content = json.loads(JsonV1Dot6(bom).output_as_string())
    content["metadata"]["component"]["modelCard"] = _model_card(manifest, spec)
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _model(manifest: Manifest, engine_files: Mapping[str, str]) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    def file(name: str, digest: str) -> Component:
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
        return Component(type=ComponentType.FILE, name=name, bom_ref=f"file:{name}", hashes=hashes)

    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest.name,
        version=str(manifest.version),
        bom_ref="engine",
        description=f"{_TASKS[manifest.task]}, {manifest.target} {manifest.precision}",
        components=[file(name, digest) for name, digest in engine_files.items()],
    )


def _needed(manifest: Manifest) -> list[Component]:
    """Return the runtime packages that the engine needs on the board."""
    from cyclonedx.model.component import ComponentScope
    from cyclonedx.model.license import DisjunctiveLicense

    edgekd = _package("edgekd", manifest.made_by.get("bundled_by"), "runtime", ComponentScope.REQUIRED)
    edgekd.licenses.add(DisjunctiveLicense(id="Apache-2.0"))
    others = {"numpy": None, **manifest.runtime}
    return [edgekd, *(_package(name, version, "runtime", ComponentScope.REQUIRED) for name, version in others.items())]


def _built_with(manifest: Manifest) -> list[Component]:
    """Return the packages that made the engine and that the board does not need."""
    from cyclonedx.model.component import ComponentScope

    tools = {"edgekd": manifest.made_by.get("edgekd"), **(manifest.made_by.get("tools") or {})}
    return [_package(name, version, "tool", ComponentScope.EXCLUDED) for name, version in tools.items()]


def _package(name: str, version: str | None, use: str, scope: Any) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"{use}:{name}",
        scope=scope,
        purl=PackageURL("pypi", name=name, version=version),
    )


def _data(manifest: Manifest) -> list[Component]:
    """Return the splits of the data set, by the fingerprint of their images and labels."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentScope, ComponentType

    splits = manifest.made_by.get("data", {}).get("splits") or {}
    return [
        Component(
            type=ComponentType.DATA,
            name=split,
            bom_ref=f"data:{split}",
            scope=ComponentScope.EXCLUDED,
            properties=[Property(name=f"edgekd:{name}", value=str(value)) for name, value in facts.items()],
        )
        for split, facts in splits.items()
    ]


def _model_card(manifest: Manifest, spec: ModelSpec) -> dict[str, Any]:
    network = manifest.made_by.get("network", {}).get("network") or {}
    splits = manifest.made_by.get("data", {}).get("splits") or {}
    parameters: dict[str, Any] = {
        "approach": {"type": "supervised"},
        "task": _TASKS[manifest.task],
        "inputs": [{"format": _text(one)} for one in spec.inputs],
        "outputs": [{"format": _text(one)} for one in spec.outputs],
        "datasets": [{"ref": f"data:{split}"} for split in splits],
    }
    if network:
        parameters |= {
            "architectureFamily": str(network.get("family")),
            "modelArchitecture": str(network.get("variant")),
        }
    metrics = [{"type": name, "value": f"{value:.6g}"} for name, value in sorted(manifest.accuracy.items())]
    return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": metrics}}


def _text(tensor: TensorSpec) -> str:
    return f"{tensor.name}: {tensor.dtype} {list(tensor.shape)} ({tensor.role})"
