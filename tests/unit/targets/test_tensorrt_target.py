"""TensorRT: it cannot run here. Its calls against the published stubs and bindings; its options in TensorRT-RTX."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekd.board.specs import TensorSpec
from edgekd.errors import ImageError, TargetError
from edgekd.targets._nvidia.builder import Build
from edgekd.targets._nvidia.session import check_array, check_device, write_device
from edgekd.targets._nvidia.versions import build_flags
from edgekd.targets.base import CompileRequest
from edgekd.targets.tensorrt import target as tensorrt
from tests.conftest import REPOSITORY
from tests.small_nets import segmenter

SOURCES = [
    REPOSITORY / "edgekd/targets" / name for name in ("tensorrt/target.py", "_nvidia/builder.py", "_nvidia/session.py")
]


def files_of(distribution: str, suffix: str) -> list[Path]:
    """Return the files of a package that `make test` puts beside the virtualenv's own; skip where it is not there."""
    found = [*distributions(name=distribution, path=[f"{sys.prefix}/.tensorrt-types"])]
    if not found:
        pytest.skip(f"{distribution} is not in {sys.prefix}/.tensorrt-types, where `make test` puts it")
    return [Path(str(one.locate())) for one in found[0].files or () if str(one).endswith(suffix)]


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """Return a folder from which mypy takes TensorRT's types; the lines of 10.13 that are no Python are mended."""
    for file in files_of("tensorrt-stubs", ".pyi"):
        place = tmp_path / "stubs" / file.parent.name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(mended(file.read_text(encoding="utf-8")), encoding="utf-8")
    return tmp_path / "stubs"


def mended(text: str) -> str:
    """Return generated stubs with the signatures that do not parse replaced by ones that take anything."""
    lines = text.splitlines()
    while True:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as exc:
            assert exc.lineno is not None
            head = lines[exc.lineno - 1].partition("(")[0]
            assert head.strip().startswith("def "), lines[exc.lineno - 1]
            lines[exc.lineno - 1] = f"{head}(self, *arguments: typing.Any) -> typing.Any:"
        else:
            return "\n".join(lines)


def mypy(stubs: Path, cache: Path, *sources: Path) -> str:
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", f"--cache-dir={cache}", "--config-file="]
    path = os.pathsep.join([str(stubs), str(REPOSITORY)])
    done = subprocess.run(
        [*command, "--ignore-missing-imports", *map(str, sources)],
        env={**os.environ, "MYPYPATH": path}, capture_output=True, text=True, cwd=cache,
    )  # fmt: skip
    return done.stdout


def test_the_calls_fit_the_published_types(stubs: Path, tmp_path: Path) -> None:
    """Errors inside the stubs, which the vendor generated, are not ours."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import tensorrt\ndef f(config: tensorrt.IBuilderConfig, engine: tensorrt.ICudaEngine) -> None:\n"
        "    config.set_timing_cache(3)\n    engine.num_bindings\n"
    )
    said = mypy(stubs, tmp_path, wrong, *SOURCES).splitlines()
    ours = [line for line in said if "error:" in line and not line.startswith(("stubs", "../"))]
    found_in = {line.partition(":")[0].rpartition("/")[2] for line in ours}
    assert found_in == {"wrong.py"}, ours  # the deliberate errors are seen, so the types are
    assert len(ours) >= 2


def test_every_name_is_in_the_bindings_of_tensorrt_11(stubs: Path) -> None:
    (library,) = [one for one in files_of("tensorrt-cu12-bindings", ".so") if one.name == "tensorrt.so"]
    symbols = library.read_bytes()
    known = {
        getattr(node, "name", None) or getattr(getattr(node, "target", None), "id", None)
        for file in stubs.rglob("tensorrt.pyi")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AnnAssign)
    }
    used = {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    ours = used & known
    assert len(ours) > 40
    assert [name for name in sorted(ours) if name.encode() not in symbols] == []


def test_its_options_reach_a_real_builder() -> None:
    """TensorRT-RTX has the same API; what it has no use for, the DLA and the timing cache, is left out."""
    rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 is not installed")
    build = Build(rtx, "TensorRT-RTX", build_flags((11, 0), "fp32", "fp32"))
    options = tensorrt.Options(workspace_mib=64, optimization_level=1, version_compatible=True)
    build.parse(segmenter()[0].SerializeToString(), Path("model.onnx"))
    tensorrt.configure(build, options)
    config: Any = build.config
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 64 * 2**20
    assert config.builder_optimization_level == 1
    assert config.get_flag(rtx.BuilderFlag.VERSION_COMPATIBLE)
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    assert config.profiling_verbosity == rtx.ProfilingVerbosity.DETAILED


def test_without_tensorrt_the_line_says_where_it_comes_from(tmp_path: Path) -> None:
    try:
        tensorrt.runtime_version()
    except TargetError:
        pass
    else:
        pytest.skip("TensorRT is installed")
    net, spec = segmenter()
    onnx.save(net, tmp_path / "model.onnx")
    request = CompileRequest(tmp_path / "model.onnx", spec, "fp16", tmp_path, tensorrt.Options())
    with pytest.raises(TargetError, match="tensorrt is not installed; it comes with JetPack"):
        tensorrt.build_engine(request)


def test_an_engine_built_on_another_gpu_is_refused_in_our_words(tmp_path: Path) -> None:
    engine = tmp_path / "engine.plan"
    write_device(engine, {"device": "Orin", "compute_capability": "8.7"})
    check_device(engine, {"device": "Orin Nano", "compute_capability": "8.7"})
    with pytest.raises(TargetError, match=r"built on Orin \(compute capability 8.7\), and here is Thor \(11.0\)"):
        check_device(engine, {"device": "Thor", "compute_capability": "11.0"})


@pytest.mark.parametrize("damage", ["", "{", "[1]", "3", '{"device": "Orin"}', '{"compute_capability": "8.7"}', "\xff"])
def test_a_damaged_file_beside_the_engine_is_told_in_one_line(damage: str, tmp_path: Path) -> None:
    engine = tmp_path / "engine.plan"
    engine.with_suffix(".json").write_text(damage, encoding="latin-1")
    with pytest.raises(
        TargetError, match=r"expected engine.json beside it with the GPU that it was built on"
    ) as caught:
        check_device(engine, {"device": "Orin", "compute_capability": "8.7"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        None,
        np.zeros((1, 3, 4, 5), np.float64),
        np.zeros((1, 3, 5, 4), np.float32),
        np.zeros((1, 3, 5, 4), np.float32).T,
    ],
)
def test_an_input_that_does_not_fit_its_buffer_never_reaches_the_device(array: np.ndarray | None) -> None:
    tensor = TensorSpec("image", "float32", (1, 3, 4, 5), "image")
    check_array(Path("engine.plan"), tensor, np.zeros((1, 3, 4, 5), np.float32))
    with pytest.raises(ImageError, match=r"expected image float32 \[1, 3, 4, 5\], C-contiguous, got"):
        check_array(Path("engine.plan"), tensor, array)
