"""The jinja2 environment of edgekd's pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.board.installation import install
from edgekd.errors import PackageError

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE = Path(__file__).parent / "page"


def page_environment(folder: Path) -> Environment:
    """Return an environment for the templates of a folder: all values are escaped, and an unknown name is an error.

    Raises:
        PackageError: jinja2 or matplotlib, which draws the charts, is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401 - the charts import it where they draw
    except ImportError as exc:
        raise PackageError(f"the page needs {exc.name}, which is not installed; {install('report')}") from exc
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
