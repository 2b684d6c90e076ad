"""README and docs are true: links lead somewhere, commands run, files on the pages work, references are complete.

Pages are run as a reader would, block after block, in a copy of the checkout whose quickstart recipe has tiny budgets:

    ```bash                               is run
    ```python                             is run as a script
    Save as `FILE`:     + a block         the file is written
    In `FILE`, set:     + ```yaml         its top-level sections are replaced
    ```yaml             otherwise         must fit the recipe

Only the lines in STAND_INS are not run as they stand.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import typer.core
import typer.main
import yaml

from edgekd.cli.main import app
from edgekd.core.recipe_loading import load_recipe
from edgekd.models.artifact import network_from_recipe
from edgekd.pipeline import checks
from tests import command
from tests.conftest import REPOSITORY
from tests.integration.conftest import TINY, TINY_OBJECTS

README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
# Line on a page -> what runs instead, and why.
STAND_INS = {
    "make demo": ":",  # installs from the network; .ci/run runs it. What it runs is in runs/quickstart already.
    "make test": ":",  # is what runs this test.
    "source .venv/bin/activate": ":",  # the interpreter of this test comes first on PATH.
    "pip install -e '.[all]'": ":",  # what the workflow installs is installed
    # Fewer steps than the tiny budget, as the page's 200 are fewer than the recipe's.
    "edgekd run quickstart --out runs/other --set student.train.steps=200": (
        "edgekd run quickstart --out runs/other --set student.train.steps=6"
    ),
    # Installs for this test only: not into the interpreter's packages, without the network.
    "pip install -e ./my-edgekd-plugins": (
        "python -m pip install -q --no-build-isolation --no-deps --target site ./my-edgekd-plugins"
    ),
}
PROGRAMS = {"edgekd": command.edgekd, "pytest": command.pytest}
COPIED = ("edgekd", "recipes", "docs", "tests/boards", "tests/contract", "tests/unit/distill")
COPIED_FILES = ("pyproject.toml", "README.md", "tests/__init__.py", "tests/conftest.py", "tests/small_nets.py")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page: where it starts, its language, its text, and what the line before asks for."""

    page: Path
    line: int
    language: str
    text: str
    save_as: str = ""
    set_in: str = ""

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    found, before = [], ""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        if line.startswith("```"):
            text = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                text.append(inner)
            save = re.fullmatch(r"Save as `(.+)`:", before)
            put = re.fullmatch(r"In `(.+)`, set:", before)
            asked = (save[1] if save else "", put[1] if put else "")
            found.append(Block(page, number, line[3:].strip(), "\n".join(text) + "\n", *asked))
        before = line or before
    return found


def follow(page: Path, folder: Path) -> None:
    """Do in `folder` what a page says, block after block; the first that fails fails the test."""
    for block in blocks(page):
        if block.save_as:
            write(folder / block.save_as, block.text)
        elif block.set_in:
            file = folder / block.set_in
            recipe = yaml.safe_load(file.read_text(encoding="utf-8")) | yaml.safe_load(block.text)
            write(file, yaml.safe_dump(recipe, sort_keys=False))
        elif block.language == "bash":
            for line in commands(block.text):
                if line.partition(" ")[0] in PROGRAMS:
                    run_program(line, folder, block.where)
                else:
                    run_shell(line, folder, block.where)
        elif block.language == "python":
            run_script(block, folder)


def commands(text: str) -> list[str]:
    """Split a block into lines that are one of PROGRAMS, and the shell scripts between them; STAND_INS replace lines."""
    lines = [STAND_INS.get(line.strip(), line) for line in text.replace("\\\n", " ").splitlines()]
    is_program = [line.partition(" ")[0] in PROGRAMS and not re.search("[|&;<>$]", line) for line in lines]
    found: list[str] = []
    for i, line in enumerate(lines):
        if i > 0 and not is_program[i] and not is_program[i - 1]:
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def run_program(line: str, folder: Path, where: str) -> None:
    """Run one line that needs no shell but its wildcards."""
    words = (
        sorted(map(str, folder.glob(word))) if "*" in word else [word] for word in shlex.split(line, comments=True)
    )
    program, *arguments = itertools.chain(*words)
    expect_success(PROGRAMS[program](*arguments, cwd=folder, path=[folder, folder / "site"]), where)


def run_script(block: Block, folder: Path) -> None:
    expect_success(command.script(block.text, cwd=folder, path=[folder, folder / "site"]), block.where)


def run_shell(script: str, folder: Path, where: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "site")])}
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    expect_success(done, where)


def expect_success(done: subprocess.CompletedProcess[str], where: str) -> None:
    assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def checkout(folder: Path, tiny_run: Path) -> Path:
    """Make a copy of the checkout after `make demo`, with tiny budgets in its quickstart recipe."""
    for name in COPIED:
        shutil.copytree(REPOSITORY / name, folder / name)  # with the bytecode: every page would compile it again
    for name in COPIED_FILES:
        shutil.copyfile(REPOSITORY / name, folder / name)
    tiny = {**TINY, "name": "quickstart", "study": {"seeds": [0]}}
    write(folder / "recipes/quickstart.yaml", "# The quickstart.\n" + yaml.safe_dump(tiny))
    for task in ("detection", "instance"):
        tiny = {**TINY_OBJECTS, "name": f"quickstart_{task}", "task": task}
        write(folder / f"recipes/quickstart_{task}.yaml", yaml.safe_dump(tiny))
    shutil.copytree(tiny_run, folder / "runs/quickstart")
    return folder


def read_tutorials(folder: Path) -> None:
    follow(README, folder)
    follow(DOCS / "tutorial.md", folder)
    assert (folder / "runs/my/report.html").stat().st_size > 10_000
    assert (folder / "predictions/street_overlay.png").is_file()
    assert (folder / "contact_sheet_train.png").is_file()
    checkpoint = json.loads((folder / "runs/checkpoint/teacher/manifest.json").read_text())["details"]
    assert checkpoint["training"] == {}


def make_package(folder: Path) -> None:
    method = next(b for b in blocks(DOCS / "howto/add-a-method.md") if b.save_as.endswith("methods/hint.py"))
    package = folder / "my-edgekd-plugins/my_plugins"
    write(package / "__init__.py", "")
    write(package / "hint.py", method.text)
    follow(DOCS / "howto/package-a-plugin.md", folder)


def gate_in_ci(folder: Path) -> None:
    """Follow the page, then run the steps of its workflow as the runner does: each in a shell of its own."""
    page = DOCS / "howto/gate-in-ci.md"
    follow(page, folder)
    workflow = yaml.safe_load((folder / ".github/workflows/edgekd.yml").read_text(encoding="utf-8"))
    steps = [step["run"] for step in workflow["jobs"]["gate"]["steps"] if "run" in step]
    assert len(steps) == 3
    for step in steps:
        run_shell(f"export GITHUB_STEP_SUMMARY=summary.md\n{STAND_INS.get(step, step)}", folder, page.name)
    assert "limits hold" in (folder / "summary.md").read_text(encoding="utf-8")
    kept = workflow["jobs"]["gate"]["steps"][-1]["with"]["path"].split()
    assert all((folder / path).exists() for path in kept)


def try_reference(folder: Path) -> None:
    for page in (*sorted((DOCS / "reference").glob("*.md")), DOCS / "architecture.md"):
        follow(page, folder)


PLUGIN_PAGES = sorted((DOCS / "howto").glob("add-*.md"))
READERS: dict[str, Callable[[Path], None]] = {
    "tutorials": read_tutorials,
    "package": make_package,
    "reference": try_reference,
    "compare-runs": partial(follow, DOCS / "howto/compare-runs.md"),
    "gate-in-ci": gate_in_ci,
    "compare-methods": partial(follow, DOCS / "howto/compare-methods.md"),
    "methods": partial(follow, DOCS / "reference/methods.md"),
    **{
        name: partial(follow, DOCS / f"howto/{name}.md")
        for name in ("build-for-rtx", "build-for-jetson", "build-for-intel", "run-on-a-board")
    },
    "keep-layers-in-float": partial(follow, DOCS / "howto/keep-layers-in-float.md"),
    "detect-objects": partial(follow, DOCS / "howto/detect-objects.md"),
    "use-your-network": partial(follow, DOCS / "howto/use-your-network.md"),
    "check-a-model": partial(follow, DOCS / "howto/check-a-model.md"),
    **{page.stem: partial(follow, page) for page in PLUGIN_PAGES},
}


@pytest.fixture(scope="module")
def readers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_run: Path
) -> Iterator[dict[str, Future[None]]]:
    """Return the selected readers at work, each in a checkout of its own; two at a time, since much of it is waiting."""
    chosen = [item.callspec.params["reader"] for item in request.session.items if "readers" in item.fixturenames]
    pool = ThreadPoolExecutor(2)
    folders = {name: checkout(tmp_path_factory.mktemp(name) / "checkout", tiny_run) for name in chosen}
    if "detect-objects" in chosen:  # what its first command makes; it finds every stage done
        made = request.getfixturevalue("tiny_objects_run")
        shutil.copytree(made, folders["detect-objects"] / "runs/instance")
    yield {name: pool.submit(READERS[name], folders[name]) for name in chosen}
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_pages_work_as_a_reader_types_them(reader: str, readers: dict[str, Future[None]]) -> None:
    readers[reader].result()


# The how-to pages name the plugins that they make; following them tries these.
@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "howto"], ids=lambda page: page.name)
def test_yaml_on_the_page_fits_the_recipe(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in blocks(page):
        if block.save_as:
            write(tmp_path / block.save_as, block.text)
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.language != "yaml":
            continue
        write(tmp_path / "recipe.yaml", yaml.safe_dump(TINY | yaml.safe_load(block.text)))
        recipe = load_recipe(str(tmp_path / "recipe.yaml"))
        checks.check_options(recipe)
        if recipe.teacher.family == "python":
            network_from_recipe(recipe.teacher, recipe.task, 9, block.where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_the_text_exist(page: Path) -> None:
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperGroup)
    named = set(re.findall(r"`edgekd ([a-z]+)", page.read_text(encoding="utf-8")))
    assert named <= set(command.commands)


def test_generated_references_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [page.name for page in PAGES if generate.rendered(text := page.read_text(encoding="utf-8")) != text]
    assert stale == [], "run: python docs/generate.py"


def test_every_key_of_a_report_is_documented(tiny_run: Path) -> None:
    report = json.loads((tiny_run / "report.json").read_text())
    text = (DOCS / "reference/report.md").read_text(encoding="utf-8")
    rows = {key for row in report["rows"] for key in row}
    latency = {key for row in report["rows"] for key in row.get("latency_ms", ())}
    assert undocumented({*report, *rows, *latency}, text) == []


def test_every_key_of_a_manifest_is_documented(tiny_run: Path) -> None:
    manifest = json.loads((tiny_run / "engine/openvino-int8/manifest.json").read_text())
    text = (DOCS / "reference/artifacts.md").read_text(encoding="utf-8")
    keys = {*manifest, *manifest["model_spec"], *manifest["model_spec"]["preprocess"]}
    assert undocumented(keys, text) == []


def undocumented(keys: set[str], text: str) -> list[str]:
    """Return the keys that a page does not show in backticks."""
    return sorted(key for key in keys if f"`{key}`" not in text)


def test_the_site_lists_every_page() -> None:
    site = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = {DOCS / name for name in re.findall(r"[\w/-]+\.md", json.dumps(site["nav"]))}
    assert all(page.is_file() for page in listed)
    assert {page for page in PAGES if page != README and page.parent.name != "results"} <= listed


def test_a_reason_is_given_for_every_dependency() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    listed = project.partition("\ndependencies = [")[2].partition("[project.scripts]")[0]  # and the extras
    names = set(re.findall(r'"([\w-]+)', listed)) - {"edgekd"}
    assert len(names) > 20
    section = (DOCS / "installation.md").read_text(encoding="utf-8").partition("## Dependencies")[2]
    assert names <= set(re.findall(r"[\w-]+", section))


def test_the_messages_under_troubleshooting_are_those_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.M)
    assert len(messages) > 15
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "edgekd").rglob("*.py"))
    parts = [part.strip() for message in messages for part in message.split("...") if part.strip()]
    assert [part for part in parts if part not in sources] == []
