"""Every error that edgekd raises on purpose, with its exit code.

EdgekdError                     something went wrong that the user can read about in one line
├── UserError            (2)    the input is wrong: fix it and run again, nothing was lost
│   ├── RecipeError             a recipe key, value or override
│   ├── DataError               an image, a mask, a list file, a data folder
│   ├── CheckpointError         weights that do not fit, are damaged, or would run code
│   ├── ArtifactError           a folder that is not the artifact that was asked for, or is incomplete
│   ├── TargetError             a runtime that is missing, or refuses the model
│   │   └── ToolchainError      a toolchain that is not installed, or whose job gave no trustworthy result
│   │       ├── ToolchainCrashError    the process died by a signal, or ended without a result
│   │       ├── ToolchainTimeoutError  it did not end in time, and was killed
│   │       └── ToolchainLogError      it reported success, and its log says otherwise
│   ├── BoardError              a board that cannot be reached, was lost, is in use, or lacks what every job needs
│   │   ├── BoardAnswerError    its answer does not have the form that edgekd expects; also an ArtifactError
│   │   └── BoardDiskError      its disk is full or not writable; also a WorkspaceError
│   ├── BundleError             a bundle that is damaged, false, not trusted, or made for another board
│   ├── PackageError            a package that is not installed
│   ├── ImageError              an array handed to an engine
│   ├── FrameError              an image, camera or video that the runner cannot read
│   └── WorkspaceError          an output folder that is locked, full or unwritable
├── GateError            (1)    the work ran and the result misses a limit: teacher floor, parity, watchdog, gate
├── StreamLostError      (1)    a camera or stream that ended while the runner read it
└── DeployError          (1)    a release did not become current, or was rolled back; the previous release serves
Anything else is a bug of edgekd: traceback, exit code 70.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import difflib
from typing import Iterable, List, Optional, Tuple


class EdgekdError(Exception):
    """Base of all errors that are shown as one line without a traceback."""

    exit_code = 2


class UserError(EdgekdError):
    """The input is wrong. The message says what is wrong, what was expected, what was found, and what to do."""


class RecipeError(UserError):
    """A recipe or board inventory cannot be read, has an unknown key, or has an invalid value."""


class DataError(UserError):
    """A data folder, image, mask or list file is missing, damaged or contradicts another.

    lines: every fault found, where there is more than one; the message holds the first.
    """

    def __init__(self, message: str, lines: Tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class CheckpointError(UserError):
    """A checkpoint is damaged, belongs to another network, or can only be loaded by running code in it."""


class ArtifactError(UserError):
    """A folder is not a complete artifact of the expected kind."""


class TargetError(UserError):
    """A target's runtime is not installed or refuses the model."""


class ToolchainError(TargetError):
    """A vendor toolchain is not installed, is damaged, or its job gave no result that can be trusted."""


class ToolchainCrashError(ToolchainError):
    """A toolchain's process died by a signal, or ended without a result."""


class ToolchainTimeoutError(ToolchainError):
    """A toolchain's process did not end in time; it and its children were killed."""


class ToolchainLogError(ToolchainError):
    """A toolchain reported success, but its log holds errors."""


class BoardError(UserError):
    """A board cannot be reached, was lost or restarted, is in use, or lacks a command that every job needs."""


class BundleError(UserError):
    """A bundle is damaged, hostile, not signed by a trusted key, or made for another board."""


class PackageError(UserError):
    """A required package is not installed; the message has the command that installs it."""


class ImageError(UserError):
    """An image array handed to an engine has the wrong shape or dtype."""


class FrameError(UserError):
    """An image, camera or video that the runner cannot read; the message says what is missing."""


class WorkspaceError(UserError):
    """An output folder is in use by another run, full, or cannot be written."""


class BoardAnswerError(BoardError, ArtifactError):
    """A board's answer does not have the expected form. edgekd uses no part of it; work on other boards goes on."""


class BoardDiskError(BoardError, WorkspaceError):
    """The disk of a board is full, or its folder cannot be written; the work on other boards goes on."""


class GateError(EdgekdError):
    """The work ran to its end and a stated limit was not met."""

    exit_code = 1


class StreamLostError(EdgekdError):
    """A camera was unplugged or a stream ended. The runner exits, and its supervisor (systemd) restarts it."""

    exit_code = 1


class DeployError(EdgekdError):
    """A release did not become a board's current release; the previous release serves."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str], list_command: str = "") -> str:
    """Return `; did you mean 'x'?` for the closest known word, else `; known: ` and all known words.

    list_command: lists the known words; it is named instead of them.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?" + (f" `{list_command}` lists all" if list_command else "")
    if list_command:
        return f"; `{list_command}` lists all"
    return f"; known: {', '.join(names) or 'none'}"


def add_note(exc: BaseException, line: str) -> None:
    """Add a line that is printed below the error, e.g. what else failed because of it (Python 3.11's `add_note`)."""
    exc.__notes__ = [*notes_of(exc), line]


def notes_of(exc: BaseException) -> List[str]:
    """Return the lines that `add_note` added to an error, in order."""
    return list(getattr(exc, "__notes__", ()))


def one_line(exc: BaseException, limit: Optional[int] = 300) -> str:
    """Return an exception's text on one line, at most `limit` characters (None: all); its type if it has no text."""
    return shortened(str(exc), limit) or type(exc).__name__


def shortened(text: str, limit: Optional[int] = 80) -> str:
    """Return a text on one line, at most `limit` characters (None: all)."""
    line = " ".join(text.split())
    return line if limit is None or len(line) <= limit else line[: limit - 3] + "..."
