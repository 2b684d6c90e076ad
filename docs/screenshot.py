"""Takes the picture of a report's first screen for the README: python docs/screenshot.py runs/quickstart docs/report.png

Needs Chromium on the PATH.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1400, 880  # the first screen of a laptop
COLORS = 128  # a third of the bytes, and no difference to see


def main() -> None:
    """Draw report.html of a run folder, and write the picture."""
    run, out = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={shot}", (run / "report.html").resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(out, optimize=True)
    print(out)


if __name__ == "__main__":
    main()
