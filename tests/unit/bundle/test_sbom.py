"""The SBOM of a bundle: valid after CycloneDX's own schema, and the same for the same bundle."""

from __future__ import annotations

import json

import pytest

from edgekd.board.specs import ModelSpec, Preprocess, TensorSpec
from edgekd.bundle.sbom import sbom
from edgekd.runner.manifest import Manifest, Tolerance

cyclonedx = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib[json-validation] is not here")

SPEC = ModelSpec(
    task="instance",
    classes=("cat", "dog"),
    ignore_index=255,
    inputs=(TensorSpec("image", "float32", (1, 3, 64, 96), "image"),),
    outputs=(TensorSpec("scores", "float32", (1, 2, 8, 12), "scores"),),
    preprocess=Preprocess((64, 96)),
)
MANIFEST = Manifest(
    name="small",
    version=1_790_000_000,
    task="instance",
    target="onnxruntime",
    precision="int8",
    engine="engine/engine.onnx",
    tolerance=Tolerance(0.05, 0.02),
    golden=2,
    runtime={"onnxruntime": "1.32.0"},
    accuracy={"map": 0.123456789, "ap50": 0.5},
    made_by={
        "edgekd": "0.1.0",
        "bundled_by": "0.1.0",
        "created": "2026-11-30T02:18:59+00:00",
        "tools": {"torch": "2.15.0", "onnxruntime": "1.32.0"},
        "data": {"format": "scenes", "splits": {"train": {"images": 24, "fingerprint": "ab"}, "val": {"images": 6}}},
        "network": {"network": {"family": "edgedet", "variant": "n"}, "params": 5},
    },
)
FILES = {"engine/engine.onnx": "0" * 64}


def content() -> dict[str, object]:
    return json.loads(sbom(MANIFEST, SPEC, FILES))


def test_it_is_valid_after_the_schema_of_cyclonedx_1_6() -> None:
    from cyclonedx.schema import SchemaVersion

    validator = cyclonedx.JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(sbom(MANIFEST, SPEC, FILES)) is None
    broken = sbom(MANIFEST, SPEC, FILES).replace('"supervised"', '"by hand"')
    assert validator.validate_str(broken) is not None  # the schema covers the model card


def test_it_is_valid_for_an_engine_of_which_little_is_known() -> None:
    from dataclasses import replace

    from cyclonedx.schema import SchemaVersion

    bare = replace(MANIFEST, runtime={}, accuracy={}, made_by={"created": "2026-11-30T02:18:59+00:00"})
    assert cyclonedx.JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom(bare, SPEC, FILES)) is None


def test_the_same_bundle_has_the_same_sbom_and_another_has_another_serial_number() -> None:
    assert sbom(MANIFEST, SPEC, FILES) == sbom(MANIFEST, SPEC, FILES)
    other = json.loads(sbom(MANIFEST, SPEC, {"engine/engine.onnx": "1" * 64}))
    assert other["serialNumber"] != content()["serialNumber"]


def test_it_is_an_ml_bom_of_the_engine() -> None:
    model = json.loads(sbom(MANIFEST, SPEC, FILES))["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "small", "1790000000")
    assert model["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    card = model["modelCard"]
    assert card["modelParameters"]["architectureFamily"] == "edgedet"
    assert card["modelParameters"]["inputs"] == [{"format": "image: float32 [1, 3, 64, 96] (image)"}]
    assert card["modelParameters"]["datasets"] == [{"ref": "data:train"}, {"ref": "data:val"}]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"type": "ap50", "value": "0.5"},
        {"type": "map", "value": "0.123457"},
    ]


def test_the_board_needs_the_runtime_and_not_what_made_the_engine() -> None:
    found = json.loads(sbom(MANIFEST, SPEC, FILES))
    scopes = {one["bom-ref"]: one["scope"] for one in found["components"]}
    needed = {"runtime:edgekd", "runtime:numpy", "runtime:onnxruntime"}
    assert {ref for ref, scope in scopes.items() if scope == "required"} == needed
    assert {"tool:torch", "tool:onnxruntime", "data:train"} <= set(scopes)
    (engine,) = (one for one in found["dependencies"] if one["ref"] == "engine")
    assert set(engine["dependsOn"]) == needed
