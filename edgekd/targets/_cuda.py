"""The few functions of the CUDA runtime that a session needs, through ctypes: nothing but the vendor's runtime library.

Not run on hardware. Source: NVIDIA CUDA Runtime API 12, sections 6.2 (errors), 6.4 (streams) and 6.9 (memory).
Portable: standard library + numpy, Python 3.8.
"""

from __future__ import annotations

import ctypes
from typing import Any, List

import numpy as np

from edgekd.errors import TargetError


class Cuda:
    """One stream on the current device, and its memory."""

    _TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind

    def __init__(self) -> None:
        self._library = _cudart()
        stream = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(stream))
        self.stream = int(stream.value or 0)

    def allocate(self, size: int) -> int:
        """Return the device address of `size` bytes."""
        address = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size))
        return int(address.value or 0)

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Start copying a C-contiguous array to the device."""
        self._copy(address, array.ctypes.data, array.nbytes, self._TO_DEVICE)

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Start copying from the device into a C-contiguous array."""
        self._copy(array.ctypes.data, address, array.nbytes, self._TO_HOST)

    def synchronize(self) -> None:
        """Wait until everything that was started is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(self.stream))

    def free(self, addresses: List[int]) -> None:
        """Give buffers and stream back."""
        for address in addresses:
            self._call("cudaFree", ctypes.c_void_p(address))
        self._call("cudaStreamDestroy", ctypes.c_void_p(self.stream))

    def _copy(self, target: int, source: int, size: int, kind: int) -> None:
        addresses = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self._call(
            "cudaMemcpyAsync", *addresses, ctypes.c_size_t(size), ctypes.c_int(kind), ctypes.c_void_p(self.stream)
        )

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code != 0:
            raise TargetError(
                f"CUDA: {name} failed with error {code}; see cudaError_t in the CUDA runtime's documentation"
            )


def _cudart() -> Any:
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise TargetError("libcudart, the CUDA runtime, is not there; install the CUDA toolkit's runtime package")
