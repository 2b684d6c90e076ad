"""Recorded machines: a text file of paths and contents becomes a folder that readers of `/proc` and `/sys` take as root.

Format: `path: content` on one line, or `path:` and indented lines. `path (tool):` makes the file executable. `\\0` is a zero byte.
Lines that begin with `#` are remarks.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

RECORDINGS = Path(__file__).parent / "unit/board/recordings"
NAMES = sorted(path.stem for path in RECORDINGS.glob("*.txt"))


def make_tree(name: str, root: Path) -> str:
    """Write the recording `name` below an empty folder and return the folder."""
    for path, content in parsed((RECORDINGS / f"{name}.txt").read_text(encoding="utf-8")).items():
        is_tool = path.endswith(" (tool)")
        file = root / path.removesuffix(" (tool)").lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.replace("\\0", "\0") + "\n", encoding="utf-8")
        if is_tool:
            file.chmod(0o755)
    return str(root)


def parsed(text: str) -> dict[str, str]:
    """Return path -> content of a recording."""
    contents: dict[str, list[str]] = {}
    path = ""
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.startswith(" "):
            contents[path].append(line)
        else:
            path, _, value = line.partition(": ") if ": " in line else (line.rstrip(":"), "", "")
            assert path not in contents, f"{path} is there twice"
            contents[path] = [value] if value else []
    return {path: textwrap.dedent("\n".join(lines)) for path, lines in contents.items()}
