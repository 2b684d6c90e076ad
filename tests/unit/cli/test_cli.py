"""The command line, as a child process: exit codes, one line per error, light start-up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import edgekd
from edgekd import errors
from edgekd.cli import main
from edgekd.cli.stages import COMMANDS
from edgekd.core.artifact import StageResult, publish
from edgekd.core.recipe_loading import shipped_recipes
from tests import command
from tests.conftest import REPOSITORY
from tests.unit.core.small_recipe import write_recipe

HEAVY = ("torch", "torchvision", "lightning", "timm", "onnx", "onnxruntime", "openvino", "nncf", "cv2", "plotly")


def run(*arguments: str, cwd: Path | None = None, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `edgekd` with one more folder on the module path."""
    return command.edgekd(*arguments, cwd=cwd, path=[folder for folder in (site, REPOSITORY) if folder])


def refused(*arguments: str, cwd: Path | None = None, site: Path | None = None, code: int = 2) -> str:
    """Run `edgekd`, expect an exit code and exactly one line, on stderr, and return it."""
    done = run(*arguments, cwd=cwd, site=site)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("edgekd: ")
    return line


def all_subclasses(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(child for direct in base.__subclasses__() for child in all_subclasses(direct))]


# --- errors -----------------------------------------------------------------------------------------------------------


def register(site: Path, source: str) -> None:
    """Install a data format `thirdparty` into a folder, by an entry point."""
    info = site / "thirdparty-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgekd.formats]\nthirdparty = thirdparty_format\n")
    (site / "thirdparty_format.py").write_text(source)


RAISING = """
from dataclasses import dataclass
import edgekd.errors, builtins

TASKS = ("semantic",)

@dataclass(frozen=True)
class Options:
    error: str

def open_dataset(options, split):
    kind = getattr(edgekd.errors, options.error, None) or getattr(builtins, options.error)
    raise kind("first line\\nsecond line")
"""


@pytest.fixture
def raising(tmp_path: Path) -> tuple[Path, Path]:
    """Return a site folder with a format that raises what its options say, and a recipe that uses it."""
    register(tmp_path / "site", RAISING)
    return tmp_path / "site", write_recipe(tmp_path, data={"format": "thirdparty", "size": [64, 96]})


@pytest.mark.parametrize("kind", all_subclasses(errors.EdgekdError), ids=lambda kind: kind.__name__)
def test_every_error_of_edgekd_is_one_line_and_its_exit_code(
    raising: tuple[Path, Path], kind: type[errors.EdgekdError]
) -> None:
    site, recipe = raising
    arguments = ("distill", str(recipe), "--plan", "--set", f"data.options.error={kind.__name__}")
    assert refused(*arguments, site=site, code=kind.exit_code) == "edgekd: first line second line"
    assert kind.exit_code == (1 if issubclass(kind, errors.GateError | errors.DeployError) else 2)


@pytest.mark.parametrize("kind", ["RuntimeError", "KeyError", "AssertionError"])
def test_any_other_error_in_a_users_code_is_one_line_with_theirs(raising: tuple[Path, Path], kind: str) -> None:
    site, recipe = raising
    arguments = ("data", "check", str(recipe), "--set", f"data.options.error={kind}")
    line = refused(*arguments, site=site)
    assert line.startswith("edgekd: an error in code that is not edgekd's: ")
    assert f'thirdparty_format.py:13, `raise kind("first line\\nsecond line")`: {kind}: ' in line
    done = run("-v", *arguments, site=site)
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1] == line


def test_any_other_error_of_edgekds_own_is_a_bug_with_traceback_and_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own: dict[str, Any] = {}
    exec(compile("def fails(): {}['no such key']", edgekd.__file__, "exec"), own)
    monkeypatch.setattr(main, "_invoke", own["fails"])
    with pytest.raises(SystemExit, match="70"):
        main.main()
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.splitlines()[-1] == "edgekd: this is a bug of edgekd; please report it with the lines above"


def test_an_interrupt_says_how_to_go_on(raising: tuple[Path, Path]) -> None:
    site, recipe = raising
    arguments = ("data", "check", str(recipe), "--set", "data.options.error=KeyboardInterrupt")
    done = run(*arguments, site=site)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "edgekd: interrupted; run the same command again to go on"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "quickstrat"), "did you mean 'quickstart'?"),
        (("run", "quickstart", "--set", "sead=1"), "sead: unknown key; did you mean 'seed'?"),
        (("run", "quickstart", "--set", "seed"), "expected key.path=value"),
        (("run", "quickstart", "--until", "distiled"), "did you mean 'distilled'?"),
        (("run", "quickstart", "--set", "data.format=vox"), "did you mean 'voc'?"),
        (("bench", "quickstart", "--set", "engines=[]"), "no stage of this recipe is called 'bench'"),
        (("data", "check", "absent.yaml"), "absent.yaml: no such file, and no shipped recipe has this name"),
        (("predict", ".", "a.png"), "no manifest.json"),
        (("report", "."), "report.json: no such file; give the folder of an edgekd run"),
        (("report", "absent"), "absent"),
        (("recipes", "show", "quickstrat"), "did you mean 'quickstart'?"),
        (("recipes", "show", "."), "recipe '.' is a folder; expected a YAML file"),
        (("recipes", "show", sys.executable), "not readable as a recipe"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused(*arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frobnicate",), "No such command 'frobnicate'"),
        (("rnu", "quickstart"), "No such command 'rnu'"),
        (("run",), "Missing argument"),
        (("run", "quickstart", "--outt", "x"), "No such option: --outt"),
        (("recipes", "frobnicate"), "No such command 'frobnicate'"),
        (("run", "quickstart", "another"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_the_help(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    line = refused(*arguments, cwd=tmp_path)
    assert words in line
    command = re.search(r"see `(edgekd.*) --help`$", line)
    assert command is not None, line
    assert run(*command[1].split()[1:], "--help").returncode == 0


def test_a_report_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"schema": "other/1"}))
    assert "expected a report with schema edgekd.report/1" in refused("report", str(tmp_path))


def test_predict_refuses_an_artifact_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    publish(tmp_path / "work", tmp_path / "data", {"kind": "dataset", "stage": "data", "key": "k"}, StageResult())
    line = refused("predict", str(tmp_path / "data"), "a.png", "--out", str(tmp_path / "p"))
    assert "expected an artifact of kind checkpoint, onnx, engine, got dataset" in line


def test_predict_refuses_results_of_one_name_before_any_is_written(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    line = refused("predict", "engine", "a/x.png", "b/x.png", cwd=tmp_path)
    assert "a/x.png and b/x.png would both be written as predictions/x_overlay.png; rename one" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m edgekd.cli.main recipes show quickstart | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr
    assert done.stderr == ""


# --- help, version, recipes -------------------------------------------------------------------------------------------


def test_version_is_the_packages() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{edgekd.__version__}\n")


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("run", "--help"), ("recipes", "-h")])
def test_help_is_on_stdout_with_exit_code_0(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: edgekd" in done.stdout


def test_help_lists_every_verb() -> None:
    words = run("--help").stdout.split()
    for verb in ("doctor", "recipes", "data", "run", "distill", "predict", "report", *COMMANDS):
        assert verb in words


def test_a_plan_of_a_distillation_trains_nothing(tmp_path: Path) -> None:
    recipe = str(write_recipe(tmp_path, distill={"methods": {"fitnets": {"weight": 0.5}}}))
    shown = run("distill", recipe, "--plan", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "fitnets: weight 0.5, warm-up 10% of the steps, constant" in shown.stdout
    assert "fitnets.features: decoder of the teacher, decoder of the student" in shown.stdout
    plan = json.loads(run("distill", recipe, "--plan", "--json", cwd=tmp_path).stdout)
    adapters = plan["methods"][0]["adapters"]
    assert f"adapters: {sum(one['params'] for one in adapters)} parameters" in shown.stdout
    assert [one["name"] for one in adapters] == ["adapter.weight", "adapter.bias"]
    assert not (tmp_path / "runs").exists()


def test_no_arguments_show_the_help() -> None:
    done = run()
    assert "Usage: edgekd" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_recipes_list_names_every_shipped_recipe() -> None:
    found = json.loads(run("recipes", "list", "--json").stdout)
    assert set(found) == set(shipped_recipes())
    assert all(facts["title"] and facts["needs"] for facts in found.values())
    lines = run("recipes", "list").stdout.splitlines()
    assert {line.strip() for line in lines if re.match("  [^ ]", line)} == set(shipped_recipes())
    assert max(map(len, lines)) <= 120
    assert lines[0] == "semantic segmentation:"


def test_recipes_show_prints_the_file_as_it_is() -> None:
    assert run("recipes", "show", "quickstart").stdout == shipped_recipes()["quickstart"].read_text(encoding="utf-8")


def test_recipes_copy_writes_the_file_and_never_over_another(tmp_path: Path) -> None:
    done = run("recipes", "copy", "quickstart", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    copied = tmp_path / "quickstart.yaml"
    assert copied.read_bytes() == shipped_recipes()["quickstart"].read_bytes()
    copied.write_text("edited")
    assert "quickstart.yaml exists" in refused("recipes", "copy", "quickstart", cwd=tmp_path)
    assert copied.read_text() == "edited"
    assert run("recipes", "copy", "quickstart", "mine.yaml", cwd=tmp_path).returncode == 0
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["name"] == "quickstart"


def test_recipes_copy_into_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "no such folder" in refused("recipes", "copy", "quickstart", "absent/mine.yaml", cwd=tmp_path)


# --- start-up ---------------------------------------------------------------------------------------------------------

IMPORTED = """
import sys
from edgekd.cli.main import main
sys.argv = ["edgekd", *sys.argv[1:]]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that went as far as the data."""
    folder = tmp_path_factory.mktemp("finished")
    write_recipe(folder)
    sizes = [
        f"data.options.{name}={value}" for name, value in (("train", 4), ("val", 2), ("height", 64), ("width", 96))
    ]
    overrides = [part for size in sizes for part in ("--set", size)]
    done = run("run", "recipe.yaml", "--out", "out", "--until", "data", *overrides, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("run", "--help"),
        ("recipes", "list"),
        ("recipes", "show", "quickstart"),
        ("report", "RUN"),
        ("report", "RUN", "--json"),
    ],
)
def test_light_commands_import_no_framework(finished_run: Path, arguments: tuple[str, ...]) -> None:
    command = [str(finished_run) if word == "RUN" else word for word in arguments]
    done = subprocess.run([sys.executable, "-c", IMPORTED, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = {name.partition(".")[0] for name in done.stderr.splitlines()[-1].split()}
    assert "edgekd" in modules
    assert not modules & set(HEAVY)


def test_a_run_until_the_data_reports_what_was_not_measured(finished_run: Path) -> None:
    report = json.loads(run("report", str(finished_run), "--json").stdout)
    assert report["schema"] == "edgekd.report/1"
    assert {row["status"] for row in report["rows"]} == {"not measured"}
    assert [row["id"] for row in report["rows"]] == [
        "teacher", "student", "distilled", "onnx-fp32", "onnxruntime-fp32", "openvino-int8"
    ]  # fmt: skip


def test_import_edgekd_imports_nothing_heavy_and_not_even_numpy() -> None:
    program = "import sys, edgekd; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in done.stdout.split()} & {*HEAVY, "numpy", "pydantic", "yaml"}
