"""Errors in third-party code (a user's network, a plugin), reported on one line with the code line that failed."""

from __future__ import annotations

import linecache
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from edgekd.errors import EdgekdError, RecipeError, UserError, one_line

_OWN = Path(__file__).resolve().parents[1]
_INSTALLED = {"site-packages", "dist-packages"}
_packages: set[str] = set()
# A loader's worker puts the traceback of its error into the message of another error of the same type.
_IN_A_WORKER = re.compile(r"Original Traceback .*", re.DOTALL)
_FRAME = re.compile(r'File "(.+)", line (\d+)')


def remember(module: str) -> None:
    """Count the package of a module that will be imported as the user's code, also where it is installed beside the
    libraries. One that is loaded already is a library of edgekd's, or was counted before."""
    package = module.partition(".")[0]
    if package not in sys.modules:
        _packages.add(package)


def error_of(error: BaseException) -> UserError | None:
    """Return an error of the user's code on one line, None if no line of the user's code is in its traceback."""
    if isinstance(error, EdgekdError) or not _where(error):
        return None
    return UserError(f"an error in code that is not edgekd's: {described(error)}; `edgekd -v` shows its traceback")


def described(error: BaseException) -> str:
    """Return the failing line of the user's code, if any, and the error's type and text, on one line.

    For example ``nets.py:12, `x = self.head(x)`: KeyError: 'head'``.
    """
    found = _where(error)
    if found is None:
        return f"{type(error).__name__}: {one_line(error)}"
    (file, line), said = found
    source = linecache.getline(file, line).strip()
    return f"{_shown(file)}:{line}{f', `{source}`' if source else ''}: {said}"


@contextmanager
def blamed(what: str, hint: str = "", kind: type[UserError] = RecipeError) -> Iterator[None]:
    """Turn any exception inside the block into one line: what, the user's line, the error, and the hint.

    Raises:
        UserError: of the given kind, for any exception that is not edgekd's, and for `sys.exit`.
    """
    try:
        yield
    except EdgekdError:
        raise
    except (Exception, SystemExit) as exc:
        raise kind(f"{what}: {described(exc)}{f'; {hint}' if hint else ''}") from exc


def _where(error: BaseException) -> tuple[tuple[str, int], str] | None:
    """Return the last line of the user's code in a chain of errors, and the text of its error."""
    one: BaseException | None = error
    while one is not None:
        said = f"{type(one).__name__}: {one_line(one)}"
        if isinstance(one, SyntaxError) and one.filename and is_theirs(one.filename):
            return (one.filename, one.lineno or 0), f"{type(one).__name__}: {one.msg}"
        if in_worker := _IN_A_WORKER.search(str(one)):
            frames = [(file, int(line)) for file, line in _FRAME.findall(in_worker[0])]
            said = in_worker[0].strip().splitlines()[-1].strip()
        else:
            frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(one.__traceback__)]
        if theirs := [frame for frame in frames if is_theirs(frame[0])]:
            return theirs[-1], said
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return None


def is_theirs(file: str) -> bool:
    """Return whether a source file is the user's: not edgekd's, not Python's, not an installed library's."""
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    if any(path.is_relative_to(root) for root in _roots()):
        return True
    return not (path.is_relative_to(_OWN) or path.is_relative_to(_standard_library()) or _INSTALLED & set(path.parts))


def _roots() -> list[Path]:
    """Return the folders and files of the packages given to `remember`."""
    files = [getattr(sys.modules.get(name), "__file__", None) for name in sorted(_packages - {"edgekd"})]
    paths = [Path(file).resolve() for file in files if file]
    return [path.parent if path.name == "__init__.py" else path for path in paths]


@cache
def _standard_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"]).resolve()


def _shown(file: str) -> str:
    """Return a path relative to the current folder where it lies in it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
