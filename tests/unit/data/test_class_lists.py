"""Class lists as labelling tools write them. Expected values are read from the tools' own descriptions by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.data.class_lists import listed_names, named_classes, stored_colors, stored_values
from edgekd.errors import DataError

LABELME = "__ignore__\n_background_\ncat\ndog\n"
CVAT = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:200,0,0::\ndog:0,200,0:head,tail:running\n"
ROBOFLOW = "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"


def written(tmp_path: Path, text: str, name: str = "list.txt") -> Path:
    (tmp_path / name).write_bytes(text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    "text",
    [
        ROBOFLOW,
        ROBOFLOW.replace("\n", "\r\n"),
        "\ufeff" + ROBOFLOW,
        "id;name\n0;background\n1;cat\n2;dog\n",
        "name,id\nbackground,0\ncat,1\ndog,2\n",
        "0 background\n1 cat\n2 dog\n",
        "0: background\n1: cat\n2: dog\n",
        "0\tbackground\n1\tcat\n2\tdog",
        "background = 0\ncat = 1\ndog = 2",
        "# three classes\n\n0,background\n1,cat\n2,dog\n",
        "background\ncat\ndog\n",
        '{"0": "background", "1": "cat", "2": "dog"}',
        '{"background": 0, "cat": 1, "dog": 2}',
        '{"background": [0, 0, 0], "cat": [1, 1, 1], "dog": [2, 2, 2]}',
        '["background", "cat", "dog"]',
        '{"categories": [{"id": 0, "name": "background"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}',
        '[{"png_index": 2, "class_name": "dog"}, {"png_index": 0, "class_name": "background"}, '
        '{"png_index": 1, "class_name": "cat"}]',
        "index,name,r,g,b\n0,background,0,0,0\n1,cat,9,0,0\n2,dog,0,9,0\n",
    ],
)
def test_values_are_read_whatever_the_file_looks_like(tmp_path: Path, text: str) -> None:
    assert stored_values(written(tmp_path, text)) == {0: "background", 1: "cat", 2: "dog"}


def test_labelmes_first_line_is_the_index_minus_one(tmp_path: Path) -> None:
    assert stored_values(written(tmp_path, LABELME)) == {-1: None, 0: "_background_", 1: "cat", 2: "dog"}


@pytest.mark.parametrize(
    "text",
    [
        CVAT,
        CVAT.replace("\n", "\r\n"),
        "0 0 0 background\n200 0 0\tcat\n0 200 0 dog\n",
        "name,r,g,b\nbackground,0,0,0\ncat,200,0,0\ndog,0,200,0\n",
        " name, r, g, b\nbackground, 0, 0, 0\ncat, 200, 0, 0\ndog, 0, 200, 0\n",
        "background,0,0,0\ncat,200,0,0\ndog,0,200,0\n",
        "class;color\nbackground;#000000\ncat;#c80000\ndog;#00C800\n",
        "background #000000\ncat #c80000\ndog #00c800\n",
        "#000000 background\n#c80000 cat\n#00c800 dog\n",
        '{"background": [0, 0, 0], "cat": [200, 0, 0], "dog": [0, 200, 0]}',
        '{"classes": [{"title": "background", "color": "#000000"}, {"title": "cat", "color": "#C80000"}, '
        '{"title": "dog", "color": "#00C800"}]}',
        '[{"class_name": "background", "color": "#000000ff", "png_index": 0}, '
        '{"class_name": "cat", "color": "#c80000ff", "png_index": 1}, {"class_name": "dog", "color": "#00c800ff", "png_index": 2}]',
    ],
)
def test_colours_are_read_whatever_the_file_looks_like(tmp_path: Path, text: str) -> None:
    colors = stored_colors(written(tmp_path, text))
    assert list(colors.items()) == [("#000000", "background"), ("#c80000", "cat"), ("#00c800", "dog")]


@pytest.mark.parametrize(
    "text",
    [
        "background\ncat\ndog\n",
        "\ufeffbackground\r\ncat\r\ndog\r\n\r\n",
        "background\ncat\ndog",
        '["background", "cat", "dog"]',
    ],
)
def test_names_are_read_line_by_line(tmp_path: Path, text: str) -> None:
    written(tmp_path, text)
    assert named_classes(tmp_path, "list.txt") == ("background", "cat", "dog")


@pytest.mark.parametrize(
    "names",
    [
        ["Caption", "Footnote", "Formula", "Title"],
        ["title", "text", "list", "table"],
        ["2 wheeler", "4 wheeler"],
        ["0", "1", "2"],
        ["wall, building", "door; double door"],
        ["road", "C#", "F#"],
        ["_background_", "cat"],
        ["person:adult", "person:child"],
    ],
)
def test_unusual_names_are_names(tmp_path: Path, names: list[str]) -> None:
    written(tmp_path, "\n".join(names) + "\n")
    assert named_classes(tmp_path, "list.txt") == tuple(names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LABELME, "write `data.options.labels: list.txt` or data.options.classes: [_background_, cat, dog]"),
        (CVAT, "write `data.options.colors: list.txt` or data.options.classes: [background, cat, dog]"),
        (ROBOFLOW, "write `data.options.labels: list.txt` or data.options.classes: [background, cat, dog]"),
        ("0 background\n1 cat\n", "a numbered list, expected one class name per line"),
        ('{"background": 0, "cat": 1}', "write `data.options.labels: list.txt`"),
        ("# my classes\nbackground\ncat\n", "line 1: '# my classes' is a comment"),
        ("background\ncat  # the animal\n", "line 2: 'cat  # the animal' is a comment"),
        ("// mine\nbackground\ncat\n", "is a comment"),
        ("class\nbackground\ncat\n", "line 1: 'class' is a header"),
        ("Classes\nbackground\ncat\n", "is a header"),
        ("background, cat, dog\n", "is several names"),
        ("names:\n- background\n- cat\n", "line 1: 'names:' is a line of another file format"),
        ("- background\n- cat\n", "is a line of another file format"),
        ("'background'\n'cat'\n", "is a line of another file format"),
        ("item {\n  id: 1\n  name: 'cat'\n}\n", "line 1: 'item {' is a line of another file format"),
        ("background\n\ncat\n", "class 1 has an empty name"),
        ("background\n1,cat\n", "line 2: '1,cat' is a line of another file format"),
        ("background\ncat:200,0,0::\n", "line 2: 'cat:200,0,0::' is a line of another file format"),
        ("background\ncat 200, 0, 0, x\n", "is a line of another file format"),
        ("background\n__ignore__\n", "is labelme's name of ignored pixels"),
        ('{"background": {"id": 0}}', "not understood as classes"),
        ('{"a"', "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[1, 2]", "not understood as classes"),
        ("[]", "no class names"),
    ],
)
def test_what_is_no_list_of_names_is_refused_with_what_to_write(tmp_path: Path, text: str, expected: str) -> None:
    written(tmp_path, text)
    with pytest.raises(DataError) as caught:
        named_classes(tmp_path, "list.txt", ("labels", "colors"))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("background:0,0,0::\nother:0,0,0::\n", "'background' and 'other' have one colour, #000000"),
        ("background:0,0,300::\n", "expected a colour of three numbers 0..255"),
        ("background\ncat\n", "a plain list of names: class 'background' has no colour"),
        (ROBOFLOW, "class 'background' has no colour"),
    ],
)
def test_colours_that_cannot_be_told_apart_or_are_missing_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        stored_colors(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,background\n0,cat\n", "value 0 is listed twice, for 'background' and 'cat'"),
        (CVAT, "class 'background' has no value; write data.options.colors"),
        ("id,name\n0,a,b\n1,c\n", "line 1: 'id,name' is a header"),
        ('id,name\n0,"a\n1,b\n2,c\n', "line 1: 'id,name' is a header"),
        ("0,a,b\n1,c\nd\n", "line 1: '0,a,b' is a line of another file format"),
    ],
)
def test_values_listed_twice_or_missing_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        stored_values(written(tmp_path, text))


def test_a_missing_list_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    written(tmp_path / "train", ROBOFLOW, "_classes.csv")
    written(tmp_path, CVAT, "labelmap.txt")
    with pytest.raises(DataError) as caught:
        named_classes(tmp_path, "classes.txt")
    assert "data.options.classes: [background, car]" in str(caught.value)
    assert str(caught.value).endswith("holds labelmap.txt, train/_classes.csv")


def test_supervisely_lists_colours_that_are_values(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"chipping": [1, 1, 1], "holes": [3, 3, 3]}))
    assert stored_values(path) == {1: "chipping", 3: "holes"}
    assert stored_colors(path) == {"#010101": "chipping", "#030303": "holes"}


@pytest.mark.parametrize(
    "text", [LABELME.replace("_background_", "background"), CVAT, ROBOFLOW, "background\ncat\ndog\n"]
)
def test_labels_that_name_their_class_take_the_names_of_any_list(tmp_path: Path, text: str) -> None:
    written(tmp_path, text)
    assert listed_names(tmp_path, "list.txt") == ("background", "cat", "dog")
