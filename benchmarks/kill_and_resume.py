"""Kills a quickstart run with SIGKILL at random moments, restarts it, and proves that nothing was lost or repeated.

    python benchmarks/kill_and_resume.py --kills 10 --seed 0

An undisturbed run is made first. Then the same recipe is run again and killed `--kills` times, each time after a wait
drawn uniformly up to a third of the undisturbed run's length: a restart pays for its imports and for the steps since the
last checkpoint, so shorter waits would never leave the first stage. After every kill each artifact folder must
be complete; in the end the report must be complete, every training record must hold steps 1..N exactly once, and the
weights must be those of the undisturbed run, bit for bit. `--set` shortens the budget; the claims stay the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgekd.board.files import sha256_of
from edgekd.core.artifact import MANIFEST, open_artifact

TRAININGS = ("teacher", "student", "distilled")


def main() -> int:
    """Run the experiment and print its findings; return 1 when a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to edgekd run")
    parser.add_argument("--work", type=Path, help="folder for both runs; default a temporary one")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="edgekd-kill-"))
    command = [sys.executable, "-m", "edgekd.cli.main", "run", arguments.recipe]
    command += [part for override in arguments.set for part in ("--set", override)]
    calm, killed = work / "calm", work / "killed"

    started = time.monotonic()
    finish(command, calm)
    length = time.monotonic() - started
    print(f"undisturbed run: {length:.0f} s")

    moments = random.Random(arguments.seed)
    for number in range(1, arguments.kills + 1):
        wait = moments.uniform(0.0, length / 3)
        ended = kill_after(command, killed, wait)
        complete = check_artifacts(killed)
        state = "had already ended" if ended else "killed"
        print(f"kill {number}: {state} after {wait:.1f} s; {len(complete)} artifacts, all complete")
    finish(command, killed)

    failures = compare(calm, killed)
    for failure in failures:
        print(f"FAILS  {failure}")
    if not failures:
        print(f"holds  {arguments.kills} kills: complete report, no partial artifact, every step once, equal weights")
    return 1 if failures else 0


def finish(command: list[str], out: Path) -> None:
    """Run to the end."""
    subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(command: list[str], out: Path, seconds: float) -> bool:
    """Start a run, kill its process group after some seconds; return whether it had ended before."""
    process = subprocess.Popen(
        [*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(timeout=seconds)
        if process.returncode != 0:
            raise SystemExit(f"the restarted run failed with exit code {process.returncode}; its folder: {out}")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False
    return True


def check_artifacts(out: Path) -> list[str]:
    """Open every published artifact, hash every file; ArtifactError or AssertionError when one is partial."""
    found = []
    for manifest in sorted(out.rglob(MANIFEST)) if out.exists() else []:
        if ".work" in manifest.parts:
            continue
        artifact = open_artifact(manifest.parent)
        for entry in artifact.manifest["files"]:
            assert sha256_of(artifact.path / entry["name"]) == entry["sha256"], f"{artifact.path}/{entry['name']}"
        found.append(str(manifest.parent.relative_to(out)))
    return found


def compare(calm: Path, killed: Path) -> list[str]:
    """Return what differs between the undisturbed and the killed run, one line each."""
    failures = []
    reports = [json.loads((out / "report.json").read_text()) for out in (calm, killed)]
    if any(row["status"] != "measured" for row in reports[1]["rows"]):
        failures.append("the report has rows that are not measured")
    if set(check_artifacts(calm)) != set(check_artifacts(killed)):
        failures.append("the runs have different artifacts")
    if list((killed / ".work").iterdir()):
        failures.append("unfinished work is left")
    for name in TRAININGS:
        with open(killed / name / "steps.csv", newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file)]
        if steps != list(range(1, len(steps) + 1)):
            failures.append(f"{name}: a step was lost or repeated")
        records = [(out / name / "steps.csv").read_bytes() for out in (calm, killed)]
        if records[0] != records[1]:
            failures.append(f"{name}: the losses per step differ from the undisturbed run")
        weights = [sha256_of(out / name / "weights.safetensors") for out in (calm, killed)]
        if weights[0] != weights[1]:
            failures.append(f"{name}: the weights differ from the undisturbed run")
    return failures


if __name__ == "__main__":
    sys.exit(main())
