"""Writes a run's measured table into the docs, so that no number there is typed by hand.

python docs/write_results.py runs/quickstart                 # also fills the table in README.md
python docs/write_results.py runs/camvid...                  # writes docs/results/<recipe name>.md
python docs/write_results.py runs/scenes-study               # fills the part of docs/results/ that is marked for the study
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import yaml

from edgekd.core.recipe import Method
from edgekd.core.task_metrics import TASKS
from edgekd.report.line import stage_line
from edgekd.report.model import Report
from edgekd.report.stored import read_report
from edgekd.report.table import headers, table_rows
from edgekd.report.training import TrainedMethod
from edgekd.report.units import percent
from edgekd.study.model import Study
from edgekd.study.results import read_study

DOCS = Path(__file__).parent


def main() -> None:
    """Write the result page, and for the quickstart the README's table; of a study its part of a page."""
    folder = Path(sys.argv[1])
    if (folder / "study.json").is_file():
        write_study(folder)
        return
    report = read_report(folder)
    name = report.recipe_name
    page = DOCS / "results" / f"{name}.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(result_page(report), encoding="utf-8")
    print(page)
    if name == "quickstart":
        readme = DOCS.parent / "README.md"
        marked = re.compile(r"(<!-- quickstart-table -->).*?(<!-- /quickstart-table -->)", re.DOTALL)
        shown = "\n\n".join([table(report), *doubts(report)])
        text = marked.sub(lambda m: f"{m[1]}\n{shown}\n{m[2]}", readme.read_text(encoding="utf-8"))
        readme.write_text(text, encoding="utf-8")
        print(readme)


def write_study(folder: Path) -> None:
    """Fill the part of the page of docs/results that is marked with the study's name, and copy its picture and its table of runs."""
    study = read_study(folder)
    name = study.recipe_name
    marked = re.compile(rf"(<!-- study: {re.escape(name)} -->).*?(<!-- /study -->)", re.DOTALL)
    texts = {page: page.read_text(encoding="utf-8") for page in (DOCS / "results").glob("*.md")}
    page = next((page for page, text in texts.items() if marked.search(text)), None)
    if page is None:
        sys.exit(f"docs/results: no part is marked <!-- study: {name} --> ... <!-- /study -->; put it where it belongs")
    for kind in ("png", "csv"):
        shutil.copyfile(folder / f"study.{kind}", page.parent / f"study-{name}.{kind}")
    page.write_text(
        marked.sub(lambda m: f"{m[1]}\n\n{study_part(study, folder)}\n{m[2]}", texts[page]), encoding="utf-8"
    )
    print(page)


def study_part(study: Study, folder: Path) -> str:
    """Return command, table, arms, picture and environment of a study."""
    name, host = study.recipe_name, study.environment
    packages = ", ".join(f"{package} {version}" for package, version in host["packages"].items() if version)
    measured = [run for arm in study.arms for run in arm.runs if run.status == "measured"]
    hours = sum((run.steps or 0) * (run.seconds_per_step or 0.0) for run in measured) / 3600
    arms = yaml.safe_dump({arm.name: in_short(arm.methods) for arm in study.arms}, sort_keys=False)
    return "\n".join(
        [
            f"    edgekd study {recipe_path(name)} --out runs/{name}-study",
            "",
            (folder / "study.md").read_text(encoding="utf-8"),
            f"![Differences by arm and learning curves](study-{name}.png)",
            "",
            f"{len(measured)} students, {hours:.1f} hours of training; [what each gave](study-{name}.csv). The arms:",
            "",
            *(f"    {line}" for line in arms.splitlines()),
            "",
            f"Machine: {host.get('cpu_model')}, {host.get('usable_cores')} cores, {host.get('os')}. Packages: {packages}. "
            f"Recipe sha256 `{study.recipe_sha256[:16]}`.",
            "",
        ]
    )


def in_short(methods: dict[str, TrainedMethod]) -> dict[str, Any]:
    """Return an arm's methods with their weights and options, and with a warm-up or schedule that is not the default."""
    default = Method()
    short = {}
    for name, method in methods.items():
        warmup = {} if method.warmup == default.warmup else {"warmup": method.warmup}
        schedule = {} if method.schedule == default.schedule else {"schedule": method.schedule}
        short[name] = {"weight": method.weight, **warmup, **schedule, **method.options}
    return short


def result_page(report: Report) -> str:
    """Return the page of one run: command, tables, budgets, environment."""
    host = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in host["packages"].items())
    total = sum(stage.seconds for stage in report.stages)
    lines = [
        f"# {report.recipe_name}",
        "",
        "Written by `python docs/write_results.py` from the `report.json` of this command:",
        "",
        "```text",
        f"edgekd run {recipe_path(report.recipe_name)} --out runs/{report.recipe_name}",
        "```",
        "",
        f"One run, seed {report.seed}; scored on {report.rows[0].num_images} images of the split "
        f"`{report.recipe['data']['val']}`; a single seed cannot tell a small gain from chance.",
        "",
        table(report),
        "",
        *(line for doubt in doubts(report) for line in (doubt, "")),
        metric_table(report),
        "",
        stage_line(report.rows).sentence,
        "",
        "| trained | steps | batch | seconds per step | precision |",
        "|---|---:|---:|---:|---|",
        *(
            f"| {name} | {run.steps} | {run.batch_size} | {run.seconds_per_step:.2f} | {run.precision} |"
            for name, run in report.training.items()
            if run.steps is not None
        ),
        "",
        f"All stages together took {total:.0f} s. Machine: {host.get('cpu_model')}, {host.get('usable_cores')} cores, "
        f"{host.get('os')}; int8 instructions (VNNI): {'yes' if has_vnni(host) else 'no'}. Packages: {packages}. "
        f"Recipe sha256 `{report.recipe_sha256[:16]}`, {report.created}.",
        "",
    ]
    return "\n".join(lines)


def doubts(report: Report) -> list[str]:
    """Return a remark on the times: the rows whose latency has warnings of the bench; none for a quiet machine."""
    doubted = [row.id for row in report.rows if row.warnings]
    if not doubted:
        return []
    return [f"The machine was not quiet during the bench of {', '.join(doubted)}. Trust ratios more than milliseconds."]


def recipe_path(name: str) -> str:
    """Return the shipped recipe of that name, as `edgekd run` takes it."""
    from edgekd.core.recipe_loading import shipped_recipes

    return next(key for key in shipped_recipes() if key.split("/")[-1] == name)


def has_vnni(host: dict[str, Any]) -> bool:
    """Return whether the processor has int8 dot products."""
    return any("vnni" in flag for flag in host.get("cpu_flags") or ())


def table(report: Report) -> str:
    """Return the result table in Markdown."""
    titles = astuple(headers(report.task))[:-1]
    rows = [astuple(row)[:-1] for row in table_rows(report)]
    return "\n".join(
        [
            f"| {' | '.join(titles)} |",
            f"|---|---|{'---:|' * (len(titles) - 2)}",
            *(f"| {' | '.join(r)} |" for r in rows),
        ]
    )


def metric_table(report: Report) -> str:
    """Return the other metrics in Markdown, in percent."""
    task = TASKS[report.task]
    names = [name for name in report.definitions if name not in (task.metric, task.second)]
    titles = [report.definitions[name].title for name in names]
    rows = [
        f"| {row.id} | {' | '.join(percent(row.metrics.get(name)) for name in names)} |"
        for row in report.rows
        if row.is_measured
    ]
    head = f"| id | {' | '.join(f'{title} %' for title in titles)} |"
    return "\n".join([head, f"|---|{'---:|' * len(titles)}", *rows])


if __name__ == "__main__":
    main()
