"""The float graph behind a quantized model, and the engine of a run that is asked for by its folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.errors import ArtifactError
from edgekd.layers import work
from edgekd.quantize.schemes import qdq


def artifact(**details: Any) -> Any:
    return SimpleNamespace(details=details, file=lambda name: Path("export") / name)


def test_the_float_graph_is_the_export_where_nothing_was_adjusted() -> None:
    quantized = artifact(adjusted={}, quantizer={"quantizer": "qdq"})
    for one in (None, quantized, artifact(quantizer={"quantizer": "qdq"})):
        with work.float_graph(SimpleNamespace(), artifact(), one) as model:  # type: ignore[arg-type]
            assert model == Path("export/model.onnx")


def test_adjustments_are_made_again_with_the_options_of_the_quantizer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def adjusted(*given: Any, is_exact: bool) -> tuple[Path, dict[str, int]]:
        assert is_exact
        seen.append(given)
        return given[4] / "adjusted.onnx", {"equalize": 3}

    monkeypatch.setattr(work, "adjusted_graph", adjusted)
    monkeypatch.setattr(work, "options_of", lambda settings, name: (settings, name))
    recipe: Any = SimpleNamespace(quantize="settings")
    export = artifact()
    with work.float_graph(recipe, export, artifact(adjusted={"equalize": 3}, quantizer={"quantizer": "qdq"})) as model:
        assert model.name == "adjusted.onnx"
    ((asked, onnx, name, options, _),) = seen
    assert (asked, onnx, name, options) == (recipe, export, "qdq", ("settings", "qdq"))


def test_the_layers_that_a_mixed_engine_keeps_in_float_are_kept_when_adjustments_are_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def adjusted(
        recipe: Any, export: Any, name: str, options: Any, folder: Path, is_exact: bool
    ) -> tuple[Path, dict[str, int]]:
        seen.append(options)
        return folder / "adjusted.onnx", {}

    monkeypatch.setattr(work, "adjusted_graph", adjusted)
    monkeypatch.setattr(work, "options_of", lambda settings, name: qdq.Options(weight_bits=8, keep_float=("stem",)))
    made = {"quantizer": "qdq", "options": {"keep_float": ["stem", "block.a"]}}
    with work.float_graph(
        SimpleNamespace(quantize=None), artifact(), artifact(adjusted={"equalize": 3}, quantizer=made)
    ):  # type: ignore[arg-type]
        assert seen == [qdq.Options(weight_bits=8, keep_float=("stem", "block.a"))]


def test_an_engine_of_rounded_weights_is_compared_with_the_graph_as_it_was_exported() -> None:
    """Its weights are on the grid already: against them, rounding would cost nothing."""
    export, made = artifact(), {"quantizer": "qdq"}
    with work.float_graph(
        SimpleNamespace(), export, artifact(adjusted={"round": 3, "bias": 3}, quantizer=made)
    ) as model:  # type: ignore[arg-type]
        assert model == export.file("model.onnx")


def test_a_folder_that_is_no_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        work.errors_in_run(tmp_path)
