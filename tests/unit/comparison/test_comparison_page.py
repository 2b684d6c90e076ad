"""The page of a comparison: pictures, refusals, and nothing that a stranger's report can make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_run import changed, report, write

from edgekd.comparison.compare import compare
from edgekd.comparison.page import render, write_page
from edgekd.errors import WorkspaceError


def page_of(folder: Path, **more: object) -> str:
    new = changed(report(**more), "openvino-int8", sha256="b", size_bytes=2000, rounds_ms=[12.0] * 10)
    return render(compare([write(folder / "old", report()), write(folder / "new", new, openvino_int8=6)]))


def test_the_page_shows_the_differences_of_score_time_and_size(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert page.count("<svg") == 2 * 3  # each for desktop and phone
    assert "mIoU, B minus A, percentage points: " in page
    assert "openvino-int8 −22.5 worse" in page
    assert '<td class="left worse">worse</td>' in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page


def test_a_figure_that_is_refused_has_no_picture(tmp_path: Path) -> None:
    page = page_of(tmp_path, classes=["road", "sign"])
    assert page.count("<svg") == 2 * 2
    assert "score of all rows: other classes: class 1 is &#39;pole&#39; and &#39;sign&#39;" in page


def test_runs_without_a_difference_have_no_picture(tmp_path: Path) -> None:
    page = render(compare([write(tmp_path / name, report()) for name in ("a", "b")]))
    assert "<svg" not in page
    assert "Recipe, versions and machine are the same." in page


def test_a_stranger_s_names_stay_text(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    content = report(title=name, recipe={"<b>": name})
    content["rows"][-1]["id"] = name
    new = changed(content, name, size_bytes=2000)
    page = render(compare([write(tmp_path / "a", content), write(tmp_path / "b", {**new, "recipe": {}})]))
    assert "<script" not in page
    assert "<b>" not in page


def test_the_page_is_written_into_a_new_folder_or_the_reason_is_said(tmp_path: Path) -> None:
    comparison = compare([write(tmp_path / name, report()) for name in ("a", "b")])
    write_page(comparison, tmp_path / "new/page.html")
    assert (tmp_path / "new/page.html").read_text(encoding="utf-8") == render(comparison)
    with pytest.raises(WorkspaceError, match="is a folder, expected a file"):
        write_page(comparison, tmp_path / "new")


def test_no_text_of_a_narrow_chart_crosses_its_axis(tmp_path: Path) -> None:
    narrow = re.findall(r'<svg class="chart narrow".*?</svg>', page_of(tmp_path), re.DOTALL)
    assert len(narrow) == 3
    for chart in narrow:
        rows = [float(x) for x in re.findall(r'text-anchor: end;[^>]*? x="([\d.]+)"', chart)]
        changes = re.findall(r'font-size: 8px;[^>]*?text-anchor: (\w+);[^>]*? x="([\d.]+)"', chart)
        assert len(changes) == len(rows) > 0
        assert all(anchor == "start" and float(x) > max(rows) for anchor, x in changes)
