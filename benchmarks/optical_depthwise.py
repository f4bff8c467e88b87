"""Where optics could win: one depthwise convolution of a whole plane, by kernel size.

python -m benchmarks.optical_depthwise

One channel as large as the plane allows, ``k x k`` taps. Electronics: ONNX Runtime's direct
convolution and scipy's product of transforms (complex64), one thread, median CPU time of
``ROUNDS``. Optics: the planned frames with sign factor, mask, read-out and link on catalogue
set-ups; energy of the converters a product.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgevit.sim4f.catalogue import component
from edgevit.sim4f.correlate import apply, place, transfer_half
from edgevit.sim4f.program import Program
from edgevit.sim4f.setup import setup
from edgevit.sim4f.signs import HOMODYNE
from edgevit.targets.optical.account import account, work
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.planner import Goal, choose

PLANE = (1080, 1920)
KERNELS = (3, 7, 15, 31, 63)
SETUPS = ("catalogue-1080p-60", "catalogue-dmd-23k", "hypothetical-4k-2mhz")
ROUNDS = 5


def layer_of(k: int) -> Layer:
    """A picture that fills the plane, same-padded."""
    size = tuple(n - (k - 1) // 2 for n in PLANE)
    rows, columns = (Window(n, k, 1, 1, (k - 1) // 2, n) for n in size)
    shape, taps = (1, 1, 1, *size), (1, 1, 1, k, k)
    return Layer("y", "x", shape, "k", taps, True, 1, 1, 1, 1, rows, columns, (), (), ())


def milliseconds(call: Callable[[], object]) -> float:
    """Median CPU time."""
    call()
    found = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return statistics.median(found) * 1e3


def direct(layer: Layer) -> float:
    """ONNX Runtime's convolution."""
    import onnxruntime as ort

    size, k = layer.source_shape[-2:], layer.rows.kernel
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 1, *size]), ("k", [1, 1, k, k]), ("y", [1, 1, *size]))
    ]
    node = helper.make_node("Conv", ["x", "k"], ["y"], pads=[k // 2] * 4)
    graph = helper.make_graph([node], "conv", tensors[:2], tensors[2:])
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((1, 1, *size)).astype(np.float32),
        "k": rng.standard_normal((1, 1, k, k)).astype(np.float32),
    }
    return milliseconds(lambda: session.run(None, feeds))


def by_transforms(k: int) -> float:
    """Two real transforms in single precision; the kernel's is prepared, as a mask is."""
    rng = np.random.default_rng(0)
    plane = rng.standard_normal(PLANE).astype(np.float32)
    mask = transfer_half(place(rng.standard_normal((k, k)).astype(np.float32), PLANE))
    return milliseconds(lambda: apply(plane, mask))


def main() -> None:
    """Print the table."""
    converters = component("converter", "converters-8bit")
    samples = converters.si("dac") + converters.si("adc")
    head: tuple[str, ...] = ("k", "M MAC", "MAC a pixel and frame", "pJ a MAC, converters")
    head += ("direct, ms", "transforms, ms", *(f"{name}, ms" for name in SETUPS))
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for k in KERNELS:
        layer = layer_of(k)
        step = choose(layer, PLANE, HOMODYNE, Goal())
        shapes = {"x": layer.source_shape, "k": layer.kernel_shape}
        done = work(step, shapes)
        program = Program((step,), (), (), shapes)
        per_pixel = done.macs / (done.frames / 2 * PLANE[0] * PLANE[1])
        energy = 2 * samples / per_pixel * 1e12
        costs = [account(program, setup(name), None).seconds * 1e3 for name in SETUPS]
        cells = [f"{done.macs / 1e6:.0f}", f"{per_pixel:.3g}", f"{energy:.2g}"]
        cells += [f"{direct(layer):.3g}", f"{by_transforms(k):.3g}"]
        cells += [f"{one:.3g}" for one in costs]
        print(f"| {k} | {' | '.join(cells)} |", flush=True)
    for name in SETUPS:
        print(setup(name).headline())


if __name__ == "__main__":
    main()
