"""The overrides that a tuning writes: what `edgekd run --set @tune.yaml` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.board.choices import Choice
from edgekd.core.recipe_loading import load_recipe
from edgekd.errors import RecipeError
from edgekd.tuning.result import Tuned, Tuning, fragment, options_of, rows
from edgekd.tuning.verdicts import Ratio, Trial

SPIN = {"session_config": {"session.intra_op.allow_spinning": "0"}}
TUNING = Tuning(
    "quickstart",
    (
        Tuned("onnxruntime-int8", 1.0, (), (), {"intra_op_threads": 1, **SPIN}),
        Tuned("openvino-int8", 1.0, (), (), {"performance_hint": "LATENCY", "num_threads": 2}),
        Tuned("openvino-fp32", 1.0, ()),
    ),
    {"input": "uint8_nhwc", "argmax": True},
    {},
)


def test_the_written_overrides_reach_the_engines_that_they_are_of(tmp_path: Path) -> None:
    file = tmp_path / "tune.yaml"
    file.write_text(fragment(TUNING, "runs/quickstart"))
    recipe = load_recipe("quickstart", ["seed=3", f"@{file}"])
    engines = {engine.id: dict(engine.options) for engine in recipe.engines}
    assert engines["onnxruntime-int8"] == {"intra_op_threads": 1, **SPIN}
    assert engines["openvino-int8"] == {"performance_hint": "LATENCY", "num_threads": 2}
    assert engines["openvino-fp32"] == engines["onnxruntime-fp32"] == {}
    assert (recipe.export.input, recipe.export.argmax, recipe.seed) == ("uint8_nhwc", True, 3)


def test_each_override_also_works_by_itself() -> None:
    recipe = load_recipe("quickstart", TUNING.overrides())
    assert recipe.engines[1].options["session_config"] == SPIN["session_config"]


def test_without_winners_the_file_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tune.yaml"
    file.write_text(fragment(Tuning("quickstart", (Tuned("a", 1.0, ()),), {}, {}), "runs/quickstart"))
    assert load_recipe("quickstart", [f"@{file}"]).sha256() == load_recipe("quickstart").sha256()


@pytest.mark.parametrize(
    ("content", "words"),
    [("export: {input: uint8_nhwc}\n", "expected a list of overrides"), ("- [1\n", "not readable as overrides")],
)
def test_a_file_that_is_no_list_of_overrides_is_refused(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "tune.yaml"
    file.write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_recipe("quickstart", [f"@{file}"])


def test_an_unknown_engine_is_told_with_the_ids_that_there_are() -> None:
    with pytest.raises(
        RecipeError, match="no id among onnxruntime-fp32, onnxruntime-int8, openvino-fp32, openvino-int8"
    ):
        load_recipe("quickstart", ["engines.openvino-fp16.options.num_threads=1"])


def test_a_mapping_is_merged_with_the_one_that_the_recipe_gives() -> None:
    choice = Choice("no spinning", options={**SPIN, "intra_op_threads": 1})
    given = {"session_config": {"session.set_denormal_as_zero": "1"}, "intra_op_threads": 2}
    assert options_of(choice, given) == {
        "session_config": {"session.set_denormal_as_zero": "1", "session.intra_op.allow_spinning": "0"},
        "intra_op_threads": 1,
    }


def test_the_table_has_the_present_settings_first_and_dashes_for_what_was_not_measured() -> None:
    choice = Choice("1 thread", options={"num_threads": 1})
    measured = Trial("1 thread", choice, "faster", 0.5, Ratio(0.5, 0.4, 0.6), Ratio(0.45, 0.4, 0.5), 0.0)
    absent = Trial("argmax", choice, "refused", reason="no torch")
    found = rows(Tuned("a", 1.0, (measured, absent)))
    assert [row[0] for row in found] == ["present settings", "1 thread", "argmax"]
    assert found[1][1:] == ("0.500", "0.500 [0.400, 0.600]", "0.450 [0.400, 0.500]", "0.00%", "faster")
    assert found[2][1:] == ("–", "–", "–", "–", "refused: no torch")
