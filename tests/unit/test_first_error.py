"""The first error of a run is printed first, whatever fails because of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd import api
from edgekd.cli import main as command_line
from edgekd.errors import GateError, UserError, add_note, notes_of
from tests.unit.core.small_recipe import small_recipe

FIRST = "step 7: the loss is not finite"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (UserError("out/report.json: No space left on device"), "out/report.json: No space left on device"),
        (
            PermissionError(13, "Permission denied", "out/report.json"),
            "[Errno 13] Permission denied: 'out/report.json'",
        ),
        (KeyError("metrics"), "KeyError: 'metrics'"),
    ],
    ids=["user", "disk", "bug"],
)
def test_an_error_of_the_report_is_a_note_on_the_one_that_ended_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: Exception, said: str
) -> None:
    def run_stages(recipe: Any, workspace: Any, stages: Any, on_stage: Any, *rest: Any, **named: Any) -> None:
        on_stage(SimpleNamespace(stage=stages[0]))
        raise GateError(FIRST)

    def report(*arguments: Any) -> None:
        raise second

    monkeypatch.setattr("edgekd.pipeline.run_stages", run_stages)
    monkeypatch.setattr("edgekd.pipeline.report.write", report)
    with pytest.raises(GateError, match=FIRST) as raised:
        api.run(small_recipe(tmp_path), tmp_path / "out")
    assert notes_of(raised.value) == [f"the report of what was finished could not be written: {said}"]


def test_notes_are_printed_after_their_error_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def invoke() -> None:
        error = GateError(FIRST)
        add_note(error, "the report\ncould not be written")
        raise error

    monkeypatch.setattr(command_line, "_invoke", invoke)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == GateError.exit_code
    assert capsys.readouterr().err == f"edgekd: {FIRST}\nedgekd: the report could not be written\n"
