"""Commands that install or update this installation of edgekd, for messages.

`pip install 'edgekd[export]'` takes another edgekd, or none, where this one runs from a checkout or came as a file.

Portable: standard library only, Python 3.8.
"""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Dict

_HERE = Path(__file__).resolve().parents[2]  # the checkout, or site-packages


def install(extra: str) -> str:
    """Return the `pip install` command that adds an extra to the edgekd that is running, or its package where edgekd is a copy."""
    if _is_checkout(_HERE):
        return f"pip install -e {_quoted(_HERE, extra)}"
    if not _is_installed():  # the portable part, copied to a board or for a vendor's virtualenv
        return f"pip install {extra}"  # extras of runtimes have the names of their packages
    found = _direct_url()
    url, folder = found.get("url", ""), Path(found.get("url", "").partition("file://")[2])
    if url and "dir_info" in found and _is_checkout(folder):
        return f"pip install {_quoted(folder, extra)}"
    if url and "vcs_info" in found:
        url = f"{found['vcs_info']['vcs']}+{url}"
    return f"pip install 'edgekd[{extra}]{f' @ {url}' if url else ''}'"


def update() -> str:
    """Return the command that updates the edgekd that is running."""
    if (_HERE / ".git").exists():
        return f"git -C {shlex.quote(str(_HERE))} pull"
    return "pip install --upgrade edgekd, from where this one came"


def _is_checkout(folder: Path) -> bool:
    return (folder / "pyproject.toml").is_file() and (folder / "edgekd").is_dir()


def _quoted(folder: Path, extra: str) -> str:
    place = "." if folder == Path.cwd() else str(folder)
    return f"'{place}[{extra}]'"


def _is_installed() -> bool:
    try:
        return bool(distribution("edgekd").version)
    except PackageNotFoundError:
        return False


def _direct_url() -> Dict[str, Any]:
    """Return where pip took edgekd from (PEP 610), {} from an index."""
    return dict(json.loads(distribution("edgekd").read_text("direct_url.json") or "{}"))
