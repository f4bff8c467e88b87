"""The auditor: what each way of multiplying costs on this machine, at a model's own shapes.

Times are measured here, on one thread; energies are modelled (``edgevit.energy``). Every
distinct product of the model is timed by itself; a convolution as the product of its windows.
Timing has a process of its own, whose threads are counted before a library starts any: this
module is its program, ``python -m edgevit.primitives``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgevit import registry
from edgevit.energy import Site, accounts, sites, text_of_accounts
from edgevit.errors import InternalError
from edgevit.report import table

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Audit", "Timed", "audit", "engine", "medians", "peers", "text_of_audit"]

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
_OURS = "edgevit.targets.tvm.primitives:products"
_ENGINE = "edgevit.runtimes.ort:onnxruntime"
_SLICE_S = 1e-3
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS")


@dataclass(frozen=True)
class Timed:
    """One distinct product.

    Attributes:
        shape: Rows, K, columns.
        count: How often a run of the model computes it.
        microseconds: Way -> median time of one.
    """

    shape: tuple[int, int, int]
    count: int
    microseconds: Mapping[str, float]


@dataclass(frozen=True)
class Audit:
    """Times and modelled energies of one model.

    Attributes:
        timed: The distinct products, those with most work first.
        sites: Every layer counted.
    """

    timed: tuple[Timed, ...]
    sites: tuple[Site, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``edgevit inspect --primitives --json``."""
        rows, left = accounts(self.sites)
        return {
            "products": [
                {
                    "shape": list(t.shape),
                    "count": t.count,
                    "microseconds": {k: round(v, 3) for k, v in t.microseconds.items()},
                }
                for t in self.timed
            ],
            "energy_uj": {
                r.name: {"arithmetic": r.energy.arithmetic, "traffic": r.energy.traffic}
                for r in rows
            },
            "energy_not_counted": [s.name for s in left],
        }


def medians(calls: Mapping[str, Call], rounds: int) -> dict[str, float]:
    """Seconds of one call of each, all in turn in every round of about a millisecond each."""
    repeats = {name: _repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(t) for name, t in times.items()}


def _repeats(call: Call) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, round(_SLICE_S / max(time.perf_counter() - start, 1e-7)))


def peers(rows: int, depth: int, columns: int) -> Mapping[str, Call]:
    """Name -> one call of the same product in OpenBLAS and ONNX Runtime.

    ONNX Runtime has no float16 products on most processors: it widens to float32 by itself.
    """
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, depth), np.float32)
    b = rng.standard_normal((depth, columns), np.float32)
    out = np.empty((rows, columns), np.float32)
    found: dict[str, Call] = {"float32, OpenBLAS": lambda: np.dot(a, b, out=out)}
    found["float32, ONNX Runtime"] = engine("MatMul", a, b)
    half = (x.astype(np.float16) for x in (a, b))
    found["float16, ONNX Runtime"] = engine("MatMul", *half)
    codes = rng.integers(0, 256, (rows, depth), np.uint8)
    weights = rng.integers(-127, 128, (depth, columns), np.int8)
    found["int8, ONNX Runtime"] = engine("QLinearMatMul", codes, weights)
    return found


def engine(operator: str, a: Array, b: Array, *, constant: bool = True) -> Call:
    """One operator in ONNX Runtime, on one thread; its second operand may be packed once."""
    ort = registry.load_attribute(_ENGINE)()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _model(operator, a, b, constant)
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("a", ort.OrtValue.ortvalue_from_numpy(a))
    if not constant:
        binding.bind_ortvalue_input("b", ort.OrtValue.ortvalue_from_numpy(b))
    kind = np.int32 if operator == "MatMulInteger" else a.dtype
    out = np.zeros((*a.shape[:-1], b.shape[-1]), kind)
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(out))
    return lambda: session.run_with_iobinding(binding)


def _model(operator: str, a: Array, b: Array, constant: bool) -> bytes:
    from onnx import helper, numpy_helper

    def value(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
        )

    kind = np.int32 if operator == "MatMulInteger" else a.dtype
    given: dict[str, Array] = {"b": b} if constant else {}
    read = [value("a", a.shape, a.dtype), value("b", b.shape, b.dtype)]
    inputs = ["a", "b"]
    if operator == "QLinearMatMul":
        scale = np.full(b.shape[1], 100 / (148 * 73 * np.sqrt(b.shape[0])), np.float32)
        zero = np.asarray(128, np.uint8)
        given |= {"s": np.asarray(1, np.float32), "z": zero, "t": scale}
        given["o"] = np.zeros(b.shape[1], np.int8)
        inputs = ["a", "s", "z", "b", "t", "o", "s", "z"]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])],
        "product",
        read[: 1 + (not constant)],
        [value("y", (*a.shape[:-1], b.shape[-1]), kind)],
        [numpy_helper.from_array(v, name) for name, v in given.items()],
    )
    opset = [helper.make_opsetid("", 21)]
    return bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    )


def _distinct(found: Sequence[Site]) -> dict[tuple[int, int, int], int]:
    """Rows, K, columns -> how often, of all but depthwise layers."""
    counts: dict[tuple[int, int, int], int] = {}
    for site in found:
        shape = (site.rows, site.depth * site.kernel**2, site.columns)
        if site.depth > 1 or site.columns > 1:
            counts[shape] = counts.get(shape, 0) + site.groups
    return counts


def audit(model: ir.Model, rounds: int) -> Audit:
    """Time every distinct product of a canonical model.

    Raises:
        BackendMissingError: TVM or ONNX Runtime is not installed.
    """
    registry.load("backends", "tvm")().probe().require()
    registry.load("engines", "ort")().probe().require()
    found = sites(model)
    counts = _distinct(found)
    every = _measured(list(counts), rounds)
    timed = [Timed(s, n, m) for (s, n), m in zip(counts.items(), every, strict=True)]
    timed.sort(key=lambda t: -t.count * t.shape[0] * t.shape[1] * t.shape[2])
    return Audit(tuple(timed), found)


def _measured(shapes: Sequence[tuple[int, int, int]], rounds: int) -> list[dict[str, float]]:
    """Microseconds of every shape, in a child."""
    given = json.dumps({"shapes": shapes, "rounds": rounds})
    single = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    command = [sys.executable, "-m", "edgevit.primitives"]
    done = subprocess.run(
        command, input=given, env=single, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise InternalError(f"the kernels cannot be timed: {last[0]}")
    found: list[dict[str, float]] = json.loads(done.stdout)
    return found


def _main() -> None:
    """The child: shapes on standard input, microseconds on standard output."""
    given = json.loads(sys.stdin.read())
    ours = registry.load_attribute(_OURS)
    every = []
    for shape in given["shapes"]:
        seconds = medians({**ours(*shape), **peers(*shape)}, given["rounds"])
        every.append({name: 1e6 * value for name, value in seconds.items()})
    sys.stdout.write(json.dumps(every))


def text_of_audit(found: Audit) -> str:
    """The terminal view."""
    if not found.timed:
        return "no products with constant weights"
    names = list(found.timed[0].microseconds)
    rows = [
        (
            " x ".join(map(str, t.shape)),
            t.count,
            *(f"{t.microseconds[name]:.1f}" for name in names),
        )
        for t in found.timed
    ]
    total = [sum(t.count * t.microseconds[name] for t in found.timed) for name in names]
    rows.append(("all", sum(t.count for t in found.timed), *(f"{v:.0f}" for v in total)))
    head = "microseconds of each product on this machine, one thread, medians (M x K x N)"
    return "\n".join(
        [head, table(("product", "count", *names), rows), "", *text_of_accounts(found.sites)]
    )


if __name__ == "__main__":
    _main()
