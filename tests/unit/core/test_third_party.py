"""Code that a recipe brings along: an edit of it makes anew what was made with it, its absence does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekd.board.files import sha256_of
from edgekd.core.stage import Stage
from edgekd.core.third_party import code_hashes
from edgekd.core.workspace import Workspace
from edgekd.pipeline.keys import key_content_of
from edgekd.planning import plan
from tests.unit.core.small_recipe import small_recipe
from tests.unit.core.test_plugins import register

READS = ("data", "teacher", "student", "distill", "trainer")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an importable folder with a method `mine` in module `losses.mine` and a network in `nets`."""
    folder = tmp_path / "site"
    register(folder, "methods", "mine", "losses.mine")
    (folder / "losses").mkdir()
    for name in ("losses/__init__.py", "losses/mine.py", "nets.py"):
        (folder / name).write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_only_what_is_not_edgekds_own_is_named_and_nothing_is_imported(tmp_path: Path, site: Path) -> None:
    assert code_hashes(small_recipe(tmp_path), READS) == {}
    recipe = small_recipe(
        tmp_path,
        student={"family": "python", "variant": "nets:make", "train": {"steps": 1}},
        teacher={"family": "python", "variant": "gone.nets:make", "train": {"steps": 1}},
        distill={"methods": {"kd": {}, "mine": {}}},
    )
    found = {"losses.mine": sha256_of(site / "losses/mine.py"), "nets": sha256_of(site / "nets.py"), "gone.nets": None}
    assert code_hashes(recipe, READS) == found
    assert code_hashes(recipe, ("data", "student")) == {"nets": found["nets"]}
    assert not {"losses", "nets"} & set(sys.modules)


@pytest.mark.parametrize(
    ("kind", "sections"),
    [("quantizers", ("data", "quantize:ptq/own")), ("rewrites", ("data", "export")), ("targets", ("data", "engines"))],
)
def test_a_plugin_that_a_stage_uses_without_options_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, sections: tuple[str, ...]
) -> None:
    register(tmp_path / "site", kind, "own", "its_module")
    (tmp_path / "site/its_module.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    recipe = small_recipe(tmp_path, "export.rewrite=[own]")
    engine = recipe.engines[0].model_copy(update={"target": "own" if kind == "targets" else "openvino"})
    recipe = recipe.model_copy(update={"engines": (engine,)})
    assert code_hashes(recipe, sections) == {"its_module": sha256_of(tmp_path / "site/its_module.py")}
    assert code_hashes(recipe, ("data", "quantize:ptq/nncf", "engines:other")) == {}


def test_an_edit_changes_the_key_and_absence_does_not(tmp_path: Path, site: Path) -> None:
    recipe = small_recipe(tmp_path, distill={"methods": {"mine": {}}})
    stage = Stage("distilled", "checkpoint", "a:b", (), ("distill",))
    workspace = Workspace(tmp_path / "run")
    before = key_content_of(recipe, workspace, stage, {})
    manifest = tmp_path / "run/distilled/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(
        '{"schema": "edgekd.artifact/1", "kind": "checkpoint", "stage": "distilled", "key": "k", "files": [], "model_spec": null,'
        f' "details": {{"network": {{}}}}, "code": {{"losses.mine": "{sha256_of(site / "losses/mine.py")}"}}}}'
    )
    (site / "losses/mine.py").write_text("edited\n")
    assert key_content_of(recipe, workspace, stage, {}) != before
    (site / "losses/mine.py").unlink()
    assert key_content_of(recipe, workspace, stage, {}) == before


def test_a_ranking_is_code_of_the_stages_that_hold_a_budget_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(tmp_path / "site", "rankings", "own", "its_ranking")
    (tmp_path / "site/its_ranking.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    recipe = small_recipe(
        tmp_path,
        "quantize.budget.rank=own",
        "qat={train: {steps: 1}}",
        engines=[{"target": "onnxruntime", "precision": one} for one in ("int8", "mixed")],
    )
    named = {stage.name for stage in plan(recipe) if "its_ranking" in code_hashes(recipe, stage.sections)}
    assert named == {"sensitivity/qdq-ptq", "mixed/onnxruntime-mixed"}
