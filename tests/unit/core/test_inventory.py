"""The inventory of boards: where it lies, what it refuses, and edits that keep the user's comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.core.inventory import Board, add_board, check_name, load_inventory, remove_board
from edgekd.errors import RecipeError, WorkspaceError
from tests.conftest import REPOSITORY

COMMENTED = """\
# boards of the lab
schema: edgekd.boards/1
boards:
    orin:  # under the desk
        ssh: orin
        chip: jetson-orin
        expects: {nvpmodel: 0, clocks: locked}
    # in the rack
    pi:
        ssh: me@10.0.0.7
        environment:
            LD_LIBRARY_PATH: /opt/lib
# the end
"""


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("EDGEKD_BOARDS", raising=False)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(COMMENTED)
    monkeypatch.setenv("EDGEKD_BOARDS", str(path))
    return path


def test_an_entry_needs_only_a_destination(lab: Path) -> None:
    pi = load_inventory().board("pi")
    assert (pi.name, pi.ssh, pi.folder, pi.python) == ("pi", "me@10.0.0.7", "~/.cache/edgekd", "python3")
    assert (pi.quiet.load, pi.quiet.celsius, pi.quiet.wait_s, pi.store_gb) == (0.3, 60, 120, 4)
    assert pi.environment == {"LD_LIBRARY_PATH": "/opt/lib"}
    assert load_inventory()["orin"].expects.clocks == "locked"


@pytest.mark.parametrize("folder", ["~/.cache/edgekd", "/mnt/ssd/edgekd", "/edgekd-2", "~/my-edgekd/"])
def test_a_folder_of_edgekds_own_is_taken(folder: str) -> None:
    assert Board(name="pi", ssh="pi", folder=folder).folder == folder


@pytest.mark.parametrize(
    ("folder", "proposed"),
    [
        ("/", "/edgekd"),
        ("/home/me", "/home/me/edgekd"),
        ("/mnt/ssd/", "/mnt/ssd/edgekd"),
        ("~", "~/.cache/edgekd"),
        ("~/", "~/edgekd"),
        ("/mnt/edgekd/..", "/mnt/edgekd/../edgekd"),
        ("cache/edgekd", "~/.cache/edgekd"),
        ("~other/edgekd", "~/.cache/edgekd"),
    ],
)
def test_a_folder_that_may_hold_files_of_the_user_is_refused(folder: str, proposed: str, lab: Path) -> None:
    lab.write_text(f"schema: edgekd.boards/1\nboards: {{pi: {{ssh: a, folder: '{folder}'}}}}\n")
    with pytest.raises(RecipeError, match="boards.pi.folder: expected a path from / or ~/ to a folder") as caught:
        load_inventory()
    assert f"got '{folder}'; try {proposed}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_variable_comes_before_the_recipes_folder_and_that_before_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load_inventory()) == 0
    for folder, name in ((tmp_path / "config" / "edgekd", "mine"), (tmp_path, "beside"), (tmp_path / "x", "given")):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "boards.yaml").write_text(f"schema: edgekd.boards/1\nboards: {{{name}: {{ssh: a}}}}\n")
    assert list(load_inventory()) == ["mine"]
    assert list(load_inventory(tmp_path)) == ["beside"]
    assert list(load_inventory(tmp_path / "elsewhere")) == ["mine"]
    monkeypatch.setenv("EDGEKD_BOARDS", str(tmp_path / "x" / "boards.yaml"))
    assert list(load_inventory(tmp_path)) == ["given"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("boards: {}", r"lab.yaml: schema: missing"),
        ("schema: edgekd.boards/2\nboards: {}", r"lab.yaml: schema: Input should be 'edgekd.boards/1'"),
        ("schema: edgekd.boards/1\nboards: {pi: {shs: a}}", r"boards.pi.ssh: missing; .*did you mean 'ssh'"),
        ("schema: edgekd.boards/1\nboards: {pi: {ssh: -oProxyCommand=x}}", r"boards.pi.ssh: expected a Host"),
        ("schema: edgekd.boards/1\nboards: {pi: {ssh: a b}}", r"boards.pi.ssh: expected a Host"),
        ("schema: edgekd.boards/1\nboards: {pi: {ssh: a, environment: {a b: c}}}", "'a b' is not the name of an env"),
        ("schema: edgekd.boards/1\nboards: {local: {ssh: a}}", "'local' is this machine"),
        ("schema: edgekd.boards/1\nboards: {a@b: {ssh: a}}", "board name 'a@b': expected letters"),
        ("schema: edgekd.boards/1\nboards: {pi: {ssh: a}, pi: {ssh: b}}", "key 'pi' is given twice"),
        ("- a", "an inventory of boards is a mapping of sections, got list"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_key(lab: Path, text: str, message: str) -> None:
    lab.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_inventory()
    assert str(lab) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKD_BOARDS", str(tmp_path / "none.yaml"))
    with pytest.raises(RecipeError, match=r"none.yaml: no such file; expected an inventory of boards"):
        load_inventory()


def test_an_unknown_board_is_an_error_with_the_nearest_name_or_the_command_that_adds_one(lab: Path) -> None:
    with pytest.raises(RecipeError, match="board 'orim' is not in .*lab.yaml; did you mean 'orin'"):
        load_inventory().board("orim")
    lab.write_text("schema: edgekd.boards/1\n")
    with pytest.raises(RecipeError, match="has no boards; add it: edgekd board add orin user@host"):
        load_inventory().board("orin")


def test_the_first_board_makes_the_file_in_the_users_configuration_folder(tmp_path: Path) -> None:
    path = add_board(Board(name="pi", ssh="me@pi", chip="raspberry-pi"))
    assert path == tmp_path / "config" / "edgekd" / "boards.yaml"
    assert path.read_text() == "schema: edgekd.boards/1\nboards:\n  pi:\n    ssh: me@pi\n    chip: raspberry-pi\n"
    assert remove_board("pi") == path
    assert len(load_inventory()) == 0


def test_adding_and_removing_keep_the_rest_of_the_file_as_it_was_written(lab: Path) -> None:
    add_board(Board(name="rock", ssh="rock"))
    assert lab.read_text() == COMMENTED.replace("    orin:", "    rock:\n      ssh: rock\n    orin:", 1)
    remove_board("rock")
    assert lab.read_text() == COMMENTED
    remove_board("orin")
    assert lab.read_text().splitlines()[:5] == [*COMMENTED.splitlines()[:3], "    # in the rack", "    pi:"]
    remove_board("pi")
    assert lab.read_text().splitlines() == [*COMMENTED.splitlines()[:3], "    # in the rack", "# the end"]
    add_board(Board(name="rock", ssh="rock"))
    assert list(load_inventory()) == ["rock"]


def test_a_file_in_flow_style_is_edited_too(lab: Path) -> None:
    lab.write_text("{schema: edgekd.boards/1, boards: {a: {ssh: a}}}")
    add_board(Board(name="b", ssh="b"))
    assert list(load_inventory()) == ["a", "b"]
    remove_board("a")
    assert list(load_inventory()) == ["b"]


def test_a_name_is_added_once_and_an_absent_one_is_not_removed(lab: Path) -> None:
    with pytest.raises(RecipeError, match="board 'pi' is in .*lab.yaml already.*edgekd board remove pi"):
        add_board(Board(name="pi", ssh="x"))
    with pytest.raises(RecipeError, match="board 'x' is not in"):
        remove_board("x")
    assert lab.read_text() == COMMENTED


def test_a_file_that_cannot_be_written_is_a_workspace_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEKD_BOARDS", str(tmp_path / "file" / "boards.yaml"))
    with pytest.raises(WorkspaceError, match="cannot be written"):
        add_board(Board(name="pi", ssh="x"))


@pytest.mark.parametrize("name", ["", "local", ".hidden", "a/b", "a b", "a@b", "-x", "x" * 64])
def test_names_that_cannot_stand_in_an_id_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="board"):
        check_name(name)


def test_the_example_shows_every_key_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    example = REPOSITORY / "deploy" / "boards.example.yaml"
    monkeypatch.setenv("EDGEKD_BOARDS", str(example))
    pi, orin = load_inventory()["pi"], load_inventory()["orin"]
    assert orin.model_fields_set == set(Board.model_fields)
    assert orin.quiet.model_fields_set == set(type(orin.quiet).model_fields)
    assert orin.expects.model_fields_set == set(type(orin.expects).model_fields)
    assert orin.deploy.model_fields_set == set(type(orin.deploy).model_fields)
    differing = {"name", "ssh", "chip", "environment", "expects"}
    assert orin.model_dump(exclude=differing) == pi.model_dump(exclude=differing)


@pytest.mark.parametrize(
    ("text", "is_allowed", "needs_signature"),
    [
        ("false", False, False),
        ("true", True, False),
        ("{require_signature: true}", True, True),
        ("{allowed: false}", False, False),
    ],
)
def test_deploy_is_a_section_or_yes_or_no(text: str, is_allowed: bool, needs_signature: bool, lab: Path) -> None:
    lab.write_text(f"schema: edgekd.boards/1\nboards:\n  pi:\n    ssh: pi\n    deploy: {text}\n")
    deploy = load_inventory()["pi"].deploy
    assert (deploy.allowed, deploy.require_signature) == (is_allowed, needs_signature)


@pytest.mark.parametrize("folder", ["releases", "/data/a b", "~", "/", "/data/%h", "/data/'x", "-x"])
def test_the_folder_of_releases_is_one_that_a_unit_can_name(folder: str, lab: Path) -> None:
    lab.write_text(f'schema: edgekd.boards/1\nboards:\n  pi:\n    ssh: pi\n    deploy: {{folder: "{folder}"}}\n')
    with pytest.raises(RecipeError, match="deploy.folder: .*expected a path from / or ~/"):
        load_inventory()
