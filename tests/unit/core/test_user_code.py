"""Errors of code that is not edgekd's: the user's last line that failed, on one line, with exit code 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.core import user_code
from edgekd.core.user_code import blamed, described, error_of
from edgekd.errors import DataError, RecipeError, UserError


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as exc:  # noqa: BLE001 - it is what the tests are about
        return exc
    raise AssertionError("nothing was raised")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Return a function that imports a module `theirs` with the given text."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)

    def made(text: str) -> object:
        (tmp_path / "theirs.py").write_text(text)
        importlib.invalidate_caches()
        return importlib.import_module("theirs")

    return made


THEIRS = """import json

def outer():
    return inner()

def inner():
    return json.loads("{")

def explained():
    try:
        inner()
    except ValueError as exc:
        raise RuntimeError("no settings") from exc
"""


def test_the_last_line_of_the_users_code_is_named_and_not_the_librarys(module: Callable[[str], object]) -> None:
    theirs = module(THEIRS)
    said = described(raised(theirs.outer))
    assert said.startswith('theirs.py:7, `return json.loads("{")`: JSONDecodeError: Expecting property name')
    assert "\n" not in said


def test_of_an_error_with_a_cause_it_is_the_users_last_word(module: Callable[[str], object]) -> None:
    said = described(raised(module(THEIRS).explained))
    assert said == 'theirs.py:13, `raise RuntimeError("no settings") from exc`: RuntimeError: no settings'


def test_an_error_that_a_library_wraps_is_followed_to_the_users_line(module: Callable[[str], object]) -> None:
    cause = raised(module(THEIRS).outer)
    wrapped = RuntimeError("export failed")
    wrapped.__cause__ = cause
    assert described(wrapped).startswith('theirs.py:7, `return json.loads("{")`: JSONDecodeError: ')


def test_a_syntax_error_names_its_line(module: Callable[[str], object]) -> None:
    said = described(raised(lambda: module("def net(num_classes)\n    return 1\n")))
    assert said == "theirs.py:1, `def net(num_classes)`: SyntaxError: expected ':'"


def test_an_error_in_a_loaders_worker_is_read_from_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text("\n\nraise OSError('mask')\n")
    frame = f'  File "{tmp_path}/theirs.py", line 3, in load\n'
    text = f"Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n{frame}"
    error = OSError(text + "OSError: mask\n")
    assert described(error).endswith("theirs.py:3, `raise OSError('mask')`: OSError: mask")


def test_an_error_without_a_line_of_the_users_is_no_error_of_theirs() -> None:
    from edgekd.board.boxes import box_iou

    error = raised(lambda: box_iou(None, None))
    # This file is not edgekd's, so that the frame of the test itself is left out.
    error.__traceback__ = error.__traceback__.tb_next.tb_next
    assert error_of(error) is None
    assert described(error).startswith(f"{type(error).__name__}: ")


def test_edgekds_own_errors_pass_and_others_get_what_failed_and_a_hint() -> None:
    with pytest.raises(DataError, match=r"^as it is$"), blamed("never said"):
        raise DataError("as it is")
    line = r"^python a:b: .*test_user_code.py:\d+, `.*`: OSError: gone; do this$"
    with pytest.raises(RecipeError, match=line), blamed("python a:b", "do this"):
        raise OSError("gone")
    with pytest.raises(UserError, match="SystemExit: 3"), blamed("python a:b", kind=UserError):
        sys.exit(3)


def test_libraries_are_not_the_users_but_a_package_of_theirs_beside_them_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages/their_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("")
    assert not user_code.is_theirs(str(package / "nets.py"))
    assert not user_code.is_theirs(pytest.__file__)
    assert not user_code.is_theirs(importlib.__file__)
    assert not user_code.is_theirs(user_code.__file__)
    assert not user_code.is_theirs("<frozen importlib._bootstrap>")
    assert user_code.is_theirs(str(tmp_path / "nets.py"))
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(user_code, "_packages", set())
    user_code.remember("their_package.nets")
    user_code.remember("pytest")  # loaded before: a library
    importlib.import_module("their_package.nets")
    assert user_code.is_theirs(str(package / "nets.py"))
    assert not user_code.is_theirs(pytest.__file__)
