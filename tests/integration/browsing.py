"""Headless Chromium for tests: the document after its scripts, and what a script in the page measures."""

from __future__ import annotations

import html
import json
import subprocess
from pathlib import Path
from typing import Any

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--virtual-time-budget=4000",
]
DARK = "--blink-settings=preferredColorScheme=0"
# A page in a frame of any width: a window of headless Chromium is at least 500 px wide. The page tells the frame what it measured.
_FRAME = """<body style="margin:0"><iframe src="page.html" width="{width}" height="{height}" style="border:0"></iframe>
<pre id="told"></pre><script>
addEventListener("message", (m) => {{ document.getElementById("told").textContent = JSON.stringify(m.data); }});</script>"""
_PROBE = """<script>addEventListener("load", async () => {{
  let told;
  try {{ told = await (async () => {{ {script} }})(); }} catch (error) {{ told = {{error: String(error)}}; }}
  parent.postMessage(told, "*");
}});</script></body>"""


def browse(chromium: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Chromium with a profile in `folder`."""
    command = [chromium, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def dom(chromium: str, folder: Path, page: Path) -> str:
    """Return the document after its scripts ran without an error."""
    done = browse(chromium, folder, "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri())
    assert done.returncode == 0, done.stderr
    assert "Uncaught" not in done.stderr
    assert "Content Security Policy" not in done.stderr  # nothing was asked for that the page forbids itself
    return done.stdout


def measured(chromium: str, folder: Path, text: str, script: str, size: tuple[int, int], *flags: str) -> Any:
    """Return what a script returns in a page.

    Args:
        chromium: the browser.
        folder: for the page and the browser's profile.
        text: the page.
        script: body of an async JavaScript function, run after loading.
        size: width and height of the window in pixels.
        flags: further flags of the browser.
    """
    (folder / "page.html").write_text(text.replace("</body>", _PROBE.format(script=script)), encoding="utf-8")
    (folder / "frame.html").write_text(_FRAME.format(width=size[0], height=size[1]), encoding="utf-8")
    done = browse(chromium, folder, *flags, "--window-size=1500,1000", "--dump-dom", (folder / "frame.html").as_uri())
    told = json.loads(html.unescape(done.stdout.partition('<pre id="told">')[2].partition("</pre>")[0]))
    assert not (isinstance(told, dict) and "error" in told), told
    return told
