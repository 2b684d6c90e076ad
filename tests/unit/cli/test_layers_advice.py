"""What `edgekd layers` says to do next."""

from __future__ import annotations

from pathlib import Path

from edgekd.cli.layers import _next
from edgekd.layers.analysis import analysed
from tests.unit.core.small_recipe import small_recipe
from tests.unit.report.sample_report import sample_report


def test_an_engine_that_its_toolchain_analysed_without_a_finding_leads_to_the_report(tmp_path: Path) -> None:
    chip = {"target": "rknn", "precision": "int8", "options": {"chip": "rk3588"}}
    recipe = small_recipe(tmp_path, engines=[chip])
    report = sample_report().model_copy(update={"recipe": recipe.model_dump(mode="json")})
    (tmp_path / "report.json").write_text(report.to_json())
    rows = [{"op": "Conv", "tensor": name, "single_cosine": 0.9999, "entire_cosine": 0.99} for name in "ab"]
    assert _next(analysed("rknn-int8", rows, ()), tmp_path / "engine/rknn-int8") == f"edgekd report {tmp_path}"
