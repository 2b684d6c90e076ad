"""The tasks of a worker on a board that `edgekd deploy` starts. Portable: standard library + numpy, Python 3.8."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Iterator, cast

from edgekd.board.arguments import InstallArguments, ReleasesArguments
from edgekd.board.job import Job, Json
from edgekd.errors import DeployError
from edgekd.release import install as installer
from edgekd.release import overview
from edgekd.release.install import STEPS, Step, Wanted
from edgekd.release.releases import Releases

Progress = Callable[[str, float], None]  # called with the current step and the fraction done


def install(job: Job, progress: Progress) -> Json:
    """Install a bundle, with `InstallArguments`; the value is `steps`, a `Step` each."""
    given = cast(InstallArguments, job.arguments)
    wanted = Wanted(
        bundle=Path(job.files[given["bundle"]]),
        chip=given["chip"],
        needs_signature=given["needs_signature"],
        may_be_older=given["may_be_older"],
        is_dry=given["is_dry"],
        variables=given["variables"],
        health_s=given["health_s"],
    )
    return _steps(installer.install(Releases(_root(given["root"]), given["name"]), wanted), progress)


def roll_back(job: Job, progress: Progress) -> Json:
    """Go back to the release before, with `ReleasesArguments`; the value as that of `install`."""
    health_s = cast(ReleasesArguments, job.arguments)["health_s"]
    return _steps(installer.roll_back(_releases(job), health_s), progress)


def list_releases(job: Job, progress: Progress) -> Json:
    """Return as `names` the releases of all names, or of one, a `NameRow` each, with `ReleasesArguments`."""
    given = cast(ReleasesArguments, job.arguments)
    rows = overview.overview(_root(given["root"]))
    return {"names": [asdict(row) for row in rows if given["name"] in ("", row.name)]}


def remove(job: Job, progress: Progress) -> Json:
    """Stop a service and delete its releases, with `ReleasesArguments`; the value is empty."""
    overview.remove(_releases(job))
    return {}


def _steps(steps: Iterator[Step], progress: Progress) -> Json:
    done = []
    for step in steps:
        done.append(asdict(step))
        progress(step.name, (STEPS.index(step.name) + 1) / len(STEPS))
    return {"steps": done}


def _releases(job: Job) -> Releases:
    given = cast(ReleasesArguments, job.arguments)
    return Releases(_root(given["root"]), given["name"])


def _root(text: str) -> Path:
    folder = os.path.expanduser(text)
    if folder.startswith("~"):
        raise DeployError(f"{text}: this user has no home folder; set `deploy: {{folder: /...}}` in the inventory")
    return Path(os.path.abspath(folder))
