"""Runs the TVM backend's shared objects with TVM's small runtime library.

Needs ``apache-tvm-ffi`` and ``libtvm_runtime.so`` (3.4 MB), and neither the compiler library
nor TVM's Python package: code is generated before it ships. The library is in ``apache-tvm``,
and alone in the wheel ``edgevit-tvm-runtime`` that ``make tvm-runtime-wheel`` builds of it.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError, probe_package
from edgevit.runtimes.engine import Arrays, Closing
from edgevit.runtimes.tvm_plan import check_names, check_size, read_plan

__all__ = ["TVMEngine", "TVMExecutor"]

ALIGNMENT = 64
# Other versions of the pair have another interface between code and library.
VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
# Where the library may be: package, folder in it, distribution. The compiler's own comes
# first: its process has loaded it, and a second copy would register all names again.
PLACES = (
    ("tvm", "lib", "apache-tvm"),
    ("edgevit_tvm_runtime", "", "edgevit-tvm-runtime"),
)
Array = np.ndarray[Any, Any]


def _aligned(size: int) -> Array:
    """Zeroed bytes that begin at a multiple of a cache line."""
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class _Place:
    """A tensor inside a block: read and written through its strides."""

    def __init__(self, entry: Mapping[str, Any], blocks: Mapping[str, Array]) -> None:
        block = blocks[entry["block"]]
        dtype = np.dtype(entry["dtype"])
        factors = [tuple(f) for axis in entry["axes"] for f in axis]
        sizes = [size for size, _ in factors]
        reach = 1 + sum((size - 1) * stride for size, stride in factors)
        begin = entry["offset"]
        flat = block[begin : begin + reach * dtype.itemsize].view(dtype)
        strides = [stride * dtype.itemsize for _, stride in factors]
        self.name: str = entry["name"]
        self._view = np.lib.stride_tricks.as_strided(flat, sizes, strides)

    def write(self, array: Array) -> None:
        """Copy a logical array in."""
        np.copyto(self._view, array.reshape(self._view.shape), casting="no")

    def read(self, shape: tuple[int, ...]) -> Array:
        """A copy in logical order."""
        return np.array(self._view, order="C").reshape(shape)


class TVMExecutor(Closing):
    """One opened shared object with its parameters and memory."""

    def __init__(
        self, run: Any, plan: Mapping[str, Any], params: Array, part: Part, threads: int
    ) -> None:
        import tvm_ffi

        self._run, self._plan, self._threads = run, plan, threads
        arena = _aligned(max(1, plan["arena"]))
        self._blocks = {"arena": arena, "params": params}
        self._args: tuple[Any, ...] = (tvm_ffi.from_dlpack(arena), tvm_ffi.from_dlpack(params))
        self._inputs = [_Place(e, self._blocks) for e in plan["inputs"]]
        self._outputs = [_Place(e, self._blocks) for e in plan["outputs"]]
        self._values = {e["name"]: e for e in plan["values"]}
        self._places = {n: _Place(e, self._blocks) for n, e in self._values.items()}
        self._shapes = {b.artifact: b.artifact_shape for b in (*part.inputs, *part.outputs)}

    def run(self, feeds: Arrays) -> dict[str, Array]:
        """Run once; artifact input name -> array to artifact output name -> array."""
        if self._run is None:
            raise InputError("this TVM session is closed")
        _POOL.resize(self._threads)
        how = self._plan.get("drive")
        if how == "replay":
            return dict(self._replayed(feeds))
        for place in self._inputs:
            place.write(feeds[place.name])
        if how == "expose":
            return dict(self._exposed())
        self._run(*self._args, 0, self._plan["steps"])
        return {p.name: p.read(self._shapes[p.name]) for p in self._outputs}

    def _exposed(self) -> Iterator[tuple[str, Array]]:
        """Run step by step, reading each value behind the last step that writes it."""
        last: dict[int, list[str]] = {}
        for name, entry in self._values.items():
            last.setdefault(max(entry["steps"], default=-1), []).append(name)
        for step in range(-1, self._plan["steps"]):
            if step >= 0:
                self._run(*self._args, step, step + 1)
            for name in last.get(step, ()):
                yield name, self._places[name].read(self._shapes[name])

    def _replayed(self, feeds: Arrays) -> Iterator[tuple[str, Array]]:
        """Each value from what the feeds say of the values that its calls read."""
        places = {**self._places, **{p.name: p for p in self._inputs}}
        for name, entry in self._values.items():
            for step in entry["steps"]:
                for read in entry["reads"].get(str(step), ()):
                    places[read].write(feeds[read])
                self._run(*self._args, step, step + 1)
            yield name, self._places[name].read(self._shapes[name])

    def close(self) -> None:
        """Drop the code and the memory."""
        self._run, self._args = None, ()
        self._inputs, self._outputs = [], []  # places hold the blocks that they lie in
        self._blocks, self._places = {}, {}


class TVMEngine:
    """Shared objects on the CPU."""

    name: ClassVar[str] = "tvm"

    def probe(self) -> Availability:
        """Whether the runtime library and its interface are here, in the pinned versions."""
        found = probe_package(self.name, "apache-tvm-ffi", "tvm")
        if not found.ok:
            return found
        reason = _mismatch()
        return Availability(self.name, not reason, found.version, reason, "tvm")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> TVMExecutor:
        """Load the code; the caller has decided to trust it.

        Raises:
            BackendMissingError: The runtime is not installed, or in another version.
            ArtifactError: The code is for another processor, or a file is damaged.
        """
        self.probe().require()
        stem = artifact.with_suffix("")
        plan = read_plan(stem.with_name(f"{stem.name}.plan.json"))
        _check_processor(plan)
        params = _params(stem.with_name(f"{stem.name}.params"), plan["params"])
        check_size(artifact, plan["code"])  # the loader maps what is missing, and dies of it
        check_names(artifact, plan, part)
        count = threads or os.cpu_count() or 1
        return TVMExecutor(_code(artifact), plan, params, part, count)


def _mismatch() -> str:
    """What is wrong with the installed pair; empty if nothing."""
    found = _library()
    if found is None:
        where = " or ".join(name for _, _, name in PLACES)
        return f"TVM's runtime library is not installed; it comes with {where}"
    for name, of in (("apache-tvm-ffi", "apache-tvm-ffi"), (found[1], "apache-tvm")):
        have, wanted = _version(name), VERSIONS[of]
        if have != wanted:
            return f"{name} {have} is installed, the code needs {wanted}"
    return ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _library() -> tuple[Path, str] | None:
    """``libtvm_runtime.so`` and its distribution; no Python of the package is run."""
    for package, folder, distribution in PLACES:
        spec = importlib.util.find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(root, folder, "libtvm_runtime.so")
            if path.is_file():
                return path, distribution
    return None


@cache
def _runtime() -> Any:
    """The loaded runtime library: generated code finds the thread pool in it."""
    import tvm_ffi  # noqa: F401  its library first

    found = _library()
    return ctypes.CDLL(str(found[0] if found else None), mode=ctypes.RTLD_GLOBAL)


class _Pool(threading.local):
    """The calling thread's pool of workers: as large as the session that runs asked for."""

    size = 0

    def resize(self, count: int) -> None:
        """Set the number of threads, where another session left another one."""
        import tvm_ffi

        if count == self.size:
            return
        _runtime()
        if not self.size:
            # Workers are made once, as many as the first variable says, else OMP_NUM_THREADS
            # or half the processors: what sessions ask for counts. The second one keeps the
            # library from tying the caller's thread to the first processors.
            os.environ["TVM_NUM_THREADS"] = str(max(count, os.cpu_count() or 1))
            os.environ.setdefault("TVM_BIND_THREADS", "0")
        tvm_ffi.get_global_func("runtime.config_threadpool")(0, count)
        self.size = count


_POOL = _Pool()


def _code(artifact: Path) -> Any:
    import tvm_ffi

    _runtime()
    try:
        module = tvm_ffi.load_module(str(artifact.resolve()))
        return module["run"]
    except Exception as e:
        raise ArtifactError(f"{artifact}: cannot be loaded as code: {e}") from e


def _check_processor(plan: Mapping[str, Any]) -> None:
    """Said here, as an illegal instruction says nothing."""
    wanted = plan["triple"].partition("-")[0]
    have = platform.machine().replace("arm64", "aarch64").lower()
    if wanted != have:
        raise ArtifactError(
            f"the code is for {wanted}, this machine is {have}",
            hint="compile for this machine's target",
        )
    missing = sorted(set(plan["features"]) - _features())
    if missing:
        raise ArtifactError(
            f"the code uses {', '.join(missing)}, which this processor does not have",
            hint="compile with an older mcpu, e.g. linux-x86:backend=tvm,mcpu=x86-64-v3",
        )


def _features() -> set[str]:
    """What Linux says of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    words: set[str] = set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words |= set(value.split())
    return words


def _params(path: Path, size: int) -> Array:
    """The parameters, mapped: pages that no call reads are never loaded."""
    check_size(path, size)
    if not size:
        return _aligned(1)
    try:
        return np.memmap(path, np.uint8, mode="c", shape=(size,))
    except OSError as e:
        raise ArtifactError(f"{path}: cannot be read: {e.strerror}") from e
