"""The few calls of NVIDIA's driver library that a run needs, by ctypes.

Every call's status is checked; what is allocated belongs to a ``Driver`` and goes with it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from edgevit.errors import ArtifactError, InternalError

__all__ = ["Driver", "device_name", "missing"]

Array = np.ndarray[Any, Any]
_LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # attributes of a device: its compute capability
_THREAD_LOCAL = 1  # of a recording: calls of other threads do not end it


@cache
def _api() -> Any:
    return ctypes.CDLL(_LIBRARY)


@cache
def missing() -> str:
    """Why no code can run; empty if it can."""
    try:
        api = _api()
    except OSError:
        return f"no NVIDIA driver: {_LIBRARY} is not found"
    count = ctypes.c_int()
    if api.cuInit(0) or api.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU"
    return ""


def device_name() -> str:
    """The first GPU's name with its architecture."""
    api, name = _api(), ctypes.create_string_buffer(128)
    numbers = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        api.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        numbers.append(value.value)
    api.cuDeviceGetName(name, 128, 0)
    return f"{name.value.decode()} (sm_{numbers[0]}{numbers[1]})"


def _check(status: int, what: str) -> None:
    if not status:
        return
    text = ctypes.c_char_p()
    _api().cuGetErrorString(status, ctypes.byref(text))
    said = (text.value or b"unknown").decode()
    raise InternalError(f"CUDA: {what}: {said} ({status})")


class Launch:
    """A function with its grid and its arguments, whose memory lives as long."""

    def __init__(self, function: Any, blocks: int, threads: int, pointers: Sequence[int]):
        self.function, self.blocks, self.threads = function, blocks, threads
        self._values = [ctypes.c_uint64(p) for p in pointers]
        addresses = [ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in self._values]
        self.arguments = (ctypes.c_void_p * len(addresses))(*addresses)


class Driver:
    """A context on the first GPU with one queue of work."""

    def __init__(self) -> None:
        self._api = _api()
        self._context, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._memory: list[int] = []
        self._pinned: list[Any] = []
        self._modules: list[Any] = []
        self._graphs: list[Any] = []
        _check(
            self._api.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), 0), "no context"
        )
        self.enter()
        _check(self._api.cuStreamCreate(ctypes.byref(self._stream), 1), "no stream")

    def enter(self) -> None:
        """Make this thread's calls speak of this GPU."""
        _check(self._api.cuCtxSetCurrent(self._context), "no context")

    def module(self, code: bytes) -> Any:
        """Load PTX, compiled by the driver for this GPU.

        Raises:
            ArtifactError: The driver refuses it.
        """
        module = ctypes.c_void_p()
        status = self._api.cuModuleLoadData(ctypes.byref(module), code + b"\0")
        if status:
            raise ArtifactError(
                f"the driver refuses the code (error {status}) on {device_name()}",
                hint="compile for an older GPU (mcpu=), or update the driver",
            )
        self._modules.append(module)
        return module

    def memory(self, size: int) -> int:
        """An address of ``size`` zeroed bytes on the GPU."""
        pointer = ctypes.c_uint64()
        _check(
            self._api.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(max(1, size))),
            f"no memory for {size} bytes",
        )
        self._memory.append(pointer.value)
        _check(
            self._api.cuMemsetD8Async(
                ctypes.c_uint64(pointer.value),
                ctypes.c_ubyte(0),
                ctypes.c_size_t(max(1, size)),
                self._stream,
            ),
            "memory cannot be cleared",
        )
        return pointer.value

    def pinned(self, size: int) -> Array:
        """Bytes of this process that the GPU copies from and to directly."""
        pointer = ctypes.c_void_p()
        status = self._api.cuMemHostAlloc(
            ctypes.byref(pointer), ctypes.c_size_t(max(1, size)), 0
        )
        _check(status, f"no memory for {size} bytes")
        self._pinned.append(pointer)
        raw = (ctypes.c_uint8 * max(1, size)).from_address(pointer.value or 0)
        return np.ctypeslib.as_array(raw)

    def upload(self, at: int, array: Array) -> None:
        """Copy to the GPU, in the order of the queue."""
        self._copied(
            self._api.cuMemcpyHtoDAsync_v2, ctypes.c_uint64(at), _address(array), array
        )
        self.wait()

    def download(self, array: Array, at: int, *, wait: bool = True) -> None:
        """Copy from the GPU, in the order of the queue."""
        self._copied(
            self._api.cuMemcpyDtoHAsync_v2, _address(array), ctypes.c_uint64(at), array
        )
        if wait:
            self.wait()

    def _copied(self, call: Any, to: Any, of: Any, array: Array) -> None:
        _check(call(to, of, ctypes.c_size_t(array.nbytes), self._stream), "copy fails")

    def launch(
        self, module: Any, name: str, blocks: int, threads: int, pointers: Sequence[int]
    ) -> Launch:
        """A launch that can be started.

        Raises:
            ArtifactError: The code has no such function.
        """
        function = ctypes.c_void_p()
        status = self._api.cuModuleGetFunction(ctypes.byref(function), module, name.encode())
        if status:
            raise ArtifactError(f"the code has no function {name!r}")
        return Launch(function, blocks, threads, pointers)

    def start(self, one: Launch) -> None:
        """Put a launch into the queue."""
        status = self._api.cuLaunchKernel(
            one.function, one.blocks, 1, 1, one.threads, 1, 1, 0, self._stream, one.arguments,
            None,
        )  # fmt: skip
        _check(status, "launch fails")

    def recorded(self, launches: Sequence[Launch]) -> Any:
        """Launches as one graph."""
        api, graph, ready = self._api, ctypes.c_void_p(), ctypes.c_void_p()
        _check(api.cuStreamBeginCapture_v2(self._stream, _THREAD_LOCAL), "no recording")
        for one in launches:
            self.start(one)
        _check(api.cuStreamEndCapture(self._stream, ctypes.byref(graph)), "no recording")
        status = api.cuGraphInstantiateWithFlags(
            ctypes.byref(ready), graph, ctypes.c_uint64(0)
        )
        api.cuGraphDestroy(graph)
        _check(status, "no graph")
        self._graphs.append(ready)
        return ready

    def replay(self, graph: Any) -> None:
        """Put a graph into the queue."""
        _check(self._api.cuGraphLaunch(graph, self._stream), "graph cannot be started")

    def wait(self) -> None:
        """Wait until the queue is empty."""
        _check(self._api.cuStreamSynchronize(self._stream), "a kernel fails")

    def close(self) -> None:
        """Give everything back; statuses no longer matter."""
        api = self._api
        self.enter()
        api.cuStreamSynchronize(self._stream)
        for graph in self._graphs:
            api.cuGraphExecDestroy(graph)
        for module in self._modules:
            api.cuModuleUnload(module)
        for memory in self._memory:
            api.cuMemFree_v2(ctypes.c_uint64(memory))
        for pinned in self._pinned:
            api.cuMemFreeHost(pinned)
        api.cuStreamDestroy_v2(self._stream)
        api.cuDevicePrimaryCtxRelease_v2(0)


def _address(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
