"""The few functions of the CUDA runtime that a session needs, through ctypes: nothing but the vendor's libraries.

Not run on hardware. Source: NVIDIA CUDA Runtime API 12, sections 6.2 (errors), 6.4 (streams) and 6.9 (memory); CUDA
Driver API 12, section 6.5 (devices).
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np

from edgekd.errors import TargetError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


class Cuda:
    """One stream on the current device, and its memory."""

    _TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind

    def __init__(self) -> None:
        self._library = _cudart()
        self._addresses: List[int] = []
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def allocate(self, size: int) -> int:
        """Return the device address of `size` bytes."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        self._addresses.append(int(address.value or 0))
        return self._addresses[-1]

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Start copying a C-contiguous array to the device."""
        self._copy(address, array.ctypes.data, array.nbytes, self._TO_DEVICE)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Start copying from the device into a C-contiguous array."""
        self._copy(array.ctypes.data, address, array.nbytes, self._TO_HOST)

    def synchronize(self) -> None:
        """Wait until everything that was started is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def close(self) -> None:
        """Give memory and stream back; the first error is raised when all of them have been tried."""
        codes = [("cudaFree", self._library.cudaFree(ctypes.c_void_p(address))) for address in self._addresses]
        codes.append(("cudaStreamDestroy", self._library.cudaStreamDestroy(ctypes.c_void_p(self.stream))))
        for name, code in codes:
            _check(name, code)

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        addresses = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call(
            "cudaMemcpyAsync", *addresses, ctypes.c_size_t(size), ctypes.c_int(kind), ctypes.c_void_p(self.stream)
        )

    def _call(self, name: str, *arguments: Any) -> None:
        _check(name, getattr(self._library, name)(*arguments))


def why_no_gpu(options: Optional[Any] = None) -> str:
    """Return why this machine cannot run an engine for a GPU, "" when its driver can use one; options do not matter."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "no NVIDIA GPU that the driver of this machine can use"
    return ""


def device_facts() -> Dict[str, str]:
    """Return `device` (its name) and `compute_capability` (e.g. `8.7`) of the first GPU, from the driver.

    Raises:
        TargetError: the driver does not answer.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as exc:
        raise TargetError("libcuda, NVIDIA's driver, is not there; install the driver, or JetPack on a Jetson") from exc
    device, numbers, name = ctypes.c_int(), [], ctypes.create_string_buffer(256)
    _check("cuInit", driver.cuInit(0))
    _check("cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    _check("cuDeviceGetName", driver.cuDeviceGetName(name, len(name), device))
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        _check("cuDeviceGetAttribute", driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device))
        numbers.append(value.value)
    return {"device": name.value.decode(errors="replace"), "compute_capability": f"{numbers[0]}.{numbers[1]}"}


def _check(name: str, code: int) -> None:
    if code != 0:
        raise TargetError(f"CUDA: {name} failed with error {code}; see the error codes in CUDA's documentation")


def _cudart() -> Any:
    # NVIDIA's wheels put theirs where the loader does not look: nvidia/cu13/lib, nvidia/cuda_runtime/lib (CUDA 12).
    of_pip = (str(found) for folder in sys.path for found in Path(folder).glob("nvidia/*/lib/libcudart.so.*"))
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", *of_pip):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise TargetError(
        "libcudart, the CUDA runtime, is not there; install the CUDA toolkit's runtime or pip's nvidia-cuda-runtime"
    )
