"""Runs the TVM backend's CUDA code on an NVIDIA GPU; needs numpy and the driver's library.

The plan holds every launch with its arguments, so a run is a list of launches at fixed
addresses: recorded once as a CUDA graph, replayed as one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgevit.bundle import Part
from edgevit.errors import ArtifactError, Availability, InputError
from edgevit.runtimes.cuda_driver import Driver, device_name, missing
from edgevit.runtimes.engine import Arrays, Closing
from edgevit.runtimes.tvm_plan import check_launches, check_names, check_size, read_plan

__all__ = ["CudaEngine", "CudaExecutor"]

Array = np.ndarray[Any, Any]


class _Place:
    """A tensor in the GPU's memory: copied whole, seen through its strides."""

    def __init__(self, entry: Mapping[str, Any], driver: Driver, blocks: Mapping[str, int]):
        dtype = np.dtype(entry["dtype"])
        factors = [tuple(f) for axis in entry["axes"] for f in axis]
        sizes = [size for size, _ in factors]
        reach = 1 + sum((size - 1) * stride for size, stride in factors)
        self.name: str = entry["name"]
        self._driver, self._at = driver, blocks[entry["block"]] + entry["offset"]
        self._flat = driver.pinned(reach * dtype.itemsize).view(dtype)[:reach]
        strides = [stride * dtype.itemsize for _, stride in factors]
        self._view = np.lib.stride_tricks.as_strided(self._flat, sizes, strides)
        self._gaps = reach != int(np.prod(sizes))

    def write(self, array: Array) -> None:
        """Copy a logical array in; what lies between its elements stays as it is."""
        if self._gaps:
            self._driver.download(self._flat, self._at)
        np.copyto(self._view, array.reshape(self._view.shape), casting="no")
        self._driver.upload(self._at, self._flat)

    def fetch(self) -> None:
        """Begin to copy from the GPU; done when the driver's queue is empty."""
        self._driver.download(self._flat, self._at, wait=False)

    def read(self, shape: tuple[int, ...], *, fetched: bool = False) -> Array:
        """A copy in logical order."""
        if not fetched:
            self._driver.download(self._flat, self._at)
        return np.array(self._view, order="C").reshape(shape)


class CudaExecutor(Closing):
    """Loaded code with its parameters and memory on the GPU.

    Attributes:
        plan: What the artifact's plan says.
    """

    def __init__(
        self, code: bytes, plan: Mapping[str, Any], params: bytes, part: Part
    ) -> None:
        self._driver: Driver | None = Driver()
        driver, self.plan = self._driver, plan
        module = driver.module(code)
        blocks = {"arena": driver.memory(plan["arena"]), "params": driver.memory(len(params))}
        driver.upload(blocks["params"], np.frombuffer(params, np.uint8))
        self._steps = [
            driver.launch(
                module,
                one["kernel"],
                one["blocks"],
                one["threads"],
                [blocks[space] + offset for space, offset in one["pointers"]],
            )
            for one in plan["launches"]
        ]
        self._inputs = [_Place(e, driver, blocks) for e in plan["inputs"]]
        self._outputs = [_Place(e, driver, blocks) for e in plan["outputs"]]
        self._shapes = {b.artifact: b.artifact_shape for b in (*part.inputs, *part.outputs)}
        self._values = {e["name"]: e for e in plan["values"]}
        self._places: dict[str, _Place] = {}
        if "drive" in plan:
            self._places = {n: _Place(e, driver, blocks) for n, e in self._values.items()}
        self._graph: Any = None

    def run(self, feeds: Arrays) -> dict[str, Array]:
        """Run once; artifact input name -> array to artifact output name -> array."""
        if self._driver is None:
            raise InputError("this CUDA session is closed")
        driver, how = self._driver, self.plan.get("drive")
        driver.enter()
        if how == "replay":
            return dict(self._replayed(driver, feeds))
        for place in self._inputs:
            place.write(feeds[place.name])
        if how == "expose":
            return dict(self._exposed(driver))
        if self._graph is None:
            self._graph = driver.recorded(self._steps)
        driver.replay(self._graph)
        for place in self._outputs:
            place.fetch()
        driver.wait()
        return {p.name: p.read(self._shapes[p.name], fetched=True) for p in self._outputs}

    def replay(self, times: int) -> None:
        """Run on the inputs that are there, without copies: for measurements."""
        if self._driver is None or self._graph is None:
            raise InputError("run once before")
        for _ in range(times):
            self._driver.replay(self._graph)
        self._driver.wait()

    def timed(self, step: int, times: int) -> float:
        """Seconds of one launch, of ``times`` in a row: for measurements."""
        import time

        if self._driver is None:
            raise InputError("this CUDA session is closed")
        graph = self._driver.recorded([self._steps[step]] * times)
        self._driver.replay(graph)
        self._driver.wait()
        begin = time.perf_counter()
        self._driver.replay(graph)
        self._driver.wait()
        return (time.perf_counter() - begin) / times

    def _exposed(self, driver: Driver) -> Iterator[tuple[str, Array]]:
        """Launch by launch, reading each value behind the last one that writes it."""
        last: dict[int, list[str]] = {}
        for name, entry in self._values.items():
            last.setdefault(max(entry["steps"], default=-1), []).append(name)
        for step in range(-1, self.plan["steps"]):
            if step >= 0:
                driver.start(self._steps[step])
            for name in last.get(step, ()):
                yield name, self._places[name].read(self._shapes[name])

    def _replayed(self, driver: Driver, feeds: Arrays) -> Iterator[tuple[str, Array]]:
        """Each value from what the feeds say of the values that its launches read."""
        places = {**self._places, **{p.name: p for p in self._inputs}}
        for name, entry in self._values.items():
            for step in entry["steps"]:
                for read in entry["reads"].get(str(step), ()):
                    places[read].write(feeds[read])
                driver.start(self._steps[step])
            yield name, self._places[name].read(self._shapes[name])

    def close(self) -> None:
        """Give the GPU's memory back."""
        if self._driver is not None:
            self._inputs, self._outputs, self._places = [], [], {}
            self._driver.close()
            self._driver = None


class CudaEngine:
    """CUDA code on the first NVIDIA GPU."""

    name: ClassVar[str] = "cuda"

    def probe(self) -> Availability:
        """Whether a driver and a GPU are here; nothing is loaded but the driver's library."""
        reason = missing()
        return Availability(self.name, not reason, "" if reason else device_name(), reason, "")

    def open(self, artifact: Path, part: Part, *, threads: int | None) -> CudaExecutor:
        """Load the code; the caller has decided to trust it.

        Raises:
            BackendMissingError: No driver or no GPU is here.
            ArtifactError: The code is for newer GPUs, or a file is damaged.
        """
        del threads  # of the processor; it only waits
        self.probe().require()
        stem = artifact.with_suffix("")
        path = stem.with_name(f"{stem.name}.plan.json")
        plan = read_plan(path)
        check_launches(plan, path)
        check_names(artifact, plan, part)
        params = stem.with_name(f"{stem.name}.params")
        check_size(params, plan["params"])
        check_size(artifact, plan["code"])
        try:
            return CudaExecutor(artifact.read_bytes(), plan, params.read_bytes(), part)
        except OSError as e:
            raise ArtifactError(f"{artifact}: cannot be read: {e}") from e
