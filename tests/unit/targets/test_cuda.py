"""The CUDA runtime where pip puts it; none of it is run here."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.errors import TargetError
from edgekd.targets import _cuda


@pytest.mark.parametrize("package", ["cu13", "cuda_runtime"])
def test_the_runtime_of_nvidias_wheels_is_found(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "nvidia" / package / "lib" / "libcudart.so.13"

    def load(name: str) -> str:
        if name != str(library):
            raise OSError(name)
        return "the library"

    monkeypatch.setattr(_cuda.ctypes, "CDLL", load)
    monkeypatch.setattr("sys.path", [str(tmp_path), str(tmp_path / "none")])
    with pytest.raises(TargetError, match="libcudart, the CUDA runtime, is not there"):
        _cuda._cudart()
    library.parent.mkdir(parents=True)
    library.touch()
    assert _cuda._cudart() == "the library"
