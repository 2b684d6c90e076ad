"""`edgekd tune` on a tiny run: graphs are built and compared, the fragment is one that `edgekd run` takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgekd.core.recipe_loading import load_recipe
from tests.command import edgekd


@pytest.fixture(scope="module")
def tuned(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    run = tmp_path_factory.mktemp("tune") / "run"
    shutil.copytree(tiny_run, run)
    done = edgekd("tune", str(run), "--engine", "onnxruntime-fp32", "--rounds", "6", "--json")
    return run, json.loads(done.stdout)


def test_every_choice_of_the_target_was_tried(tuned: tuple[Path, dict]) -> None:
    (engine,) = tuned[1]["engines"]
    tried = {one["name"]: one for one in engine["trials"]}
    assert {"no spinning", "no memory arena", "uint8 NHWC input", "argmax in the graph"} <= set(tried)
    for one in tried.values():
        assert one["different"] <= 1e-3  # fp32, and images have the network's size: each graph gives the same class map
        assert one["wall"]["low"] <= one["wall"]["median"] <= one["wall"]["high"]
    assert tried["uint8 NHWC input"]["choice"]["export"] == {"input": "uint8_nhwc"}


def test_the_graphs_are_kept_and_the_run_is_as_it_was(tuned: tuple[Path, dict], tiny_run: Path) -> None:
    run = tuned[0]
    assert (run / "tune" / "input-uint8_nhwc" / "engine" / "onnxruntime-fp32" / "manifest.json").exists()
    for name in ("export", "engine/onnxruntime-fp32"):
        assert (run / name / "manifest.json").read_bytes() == (tiny_run / name / "manifest.json").read_bytes()


def test_the_fragment_is_taken_by_a_recipe(tuned: tuple[Path, dict], tiny_recipe: Path) -> None:
    run, result = tuned
    recipe = load_recipe(str(tiny_recipe), [f"@{run / 'tune.yaml'}"])
    for key, value in result["export"].items():
        assert getattr(recipe.export, key) == value
    options = {engine.id: dict(engine.options) for engine in recipe.engines}
    assert options["onnxruntime-fp32"] == (result["engines"][0]["options"] or {})
    assert options["openvino-fp32"] == {}


def test_an_unknown_engine_is_refused(tuned: tuple[Path, dict]) -> None:
    done = edgekd("tune", str(tuned[0]), "--engine", "onnxruntime-fp23")
    assert done.returncode == 2
    assert "has no engine 'onnxruntime-fp23'; did you mean" in done.stderr
