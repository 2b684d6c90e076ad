"""Time between two runs of a study: `python benchmarks/study_gap.py`.

Prints, for each two runs after each other of the smallest study, the seconds from the end of the first run's last stage to the
first training step of the second. The student notes the time of each training step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

STEPS = 4
NETWORK = """
import os, time, torch
from torch import nn

class Timed(nn.Sequential):
    def forward(self, images):
        if self.training:
            with open(os.environ["STEP_TIMES"], "a") as file:
                file.write(f"{os.getpid()} {time.time()}\\n")
        return super().forward(images)

def student(num_classes):
    return Timed(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, num_classes, 1))
"""
TRAIN = {"steps": STEPS, "batch_size": 4}
RECIPE = {
    "name": "gap",
    "data": {"format": "scenes", "options": {"height": 64, "width": 96, "train": 24, "val": 6}, "size": [64, 96]},
    "teacher": {"family": "edgeseg", "variant": "n", "train": TRAIN},
    "student": {"family": "python", "variant": "timed:student", "train": TRAIN},
    "engines": [],
    "study": {"seeds": [0, 1, 2], "arms": {"kd": {"kd": {}}}},
}


def main() -> None:
    """Run the study and print the gaps."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "timed.py").write_text(NETWORK)
        (here / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        times = here / "times.txt"
        environment = {**os.environ, "STEP_TIMES": str(times)}
        command = [sys.executable, "-m", "edgekd.cli.main", "study", "recipe.yaml", "--out", "study"]
        subprocess.run(command, cwd=here, env=environment, check=True, stdout=sys.stderr)
        for one, gap in gaps(here / "study", times):
            print(f"{one}: {gap:.2f} s")


def gaps(study: Path, times: Path) -> list[tuple[str, float]]:
    """Return the seconds before each run but the first, in the order in which they ran."""
    steps: dict[str, list[float]] = {}  # of each process, those of its trial before the training included
    for line in times.read_text().splitlines():
        process, time = line.split()
        steps.setdefault(process, []).append(float(time))
    begun = sorted(of_one[-STEPS] for of_one in steps.values() if len(of_one) >= STEPS)
    ended = sorted(
        (max(file.stat().st_mtime for file in run.glob("evaluate/*/manifest.json")), run.name)
        for run in study.glob("runs/*")
    )
    return [(name, begin - end) for (end, _), begin, (_, name) in zip(ended, begun[1:], ended[1:], strict=False)]


if __name__ == "__main__":
    main()
