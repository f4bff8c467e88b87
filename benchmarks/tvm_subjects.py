"""One matrix product in each engine, on one thread, and the peak of the machine.

Every subject is a function of no arguments that multiplies once: [M, K] times constant
[K, N]. float32 adds nothing; bytes are requantized to bytes in every engine, so that each
does the same work. Weights are packed before the first call, as each engine does by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgevit.targets.tvm.kernels.arithmetic import integer, pack_integers
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Epilogue, Quantize
from edgevit.targets.tvm.kernels.gemm import Gemm, layout, pack_b
from edgevit.targets.tvm.kernels.kernel import Operand, load, local, loop, store
from edgevit.targets.tvm.kernels.tile import Tile
from edgevit.targets.tvm.machine import Machine, native
from edgevit.targets.tvm.single import Single

__all__ = ["Call", "Product", "onnxruntime", "ours", "peak", "subjects"]

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
_STEP = 1.0  # of the requantized output


@dataclass(frozen=True)
class Product:
    """[rows, depth] times [depth, columns].

    Attributes:
        rows: M.
        columns: N.
        depth: K.
        integers: Bytes instead of float32.
    """

    rows: int
    columns: int
    depth: int
    integers: bool

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.columns * self.depth

    def operands(self) -> tuple[Array, Array]:
        """A and B, seeded."""
        rng = np.random.default_rng(0)
        if self.integers:
            a = rng.integers(0, 256, (self.rows, self.depth), np.uint8)
            return a, rng.integers(-127, 128, (self.depth, self.columns), np.int8)
        a32 = rng.standard_normal((self.rows, self.depth), np.float32)
        return a32, rng.standard_normal((self.depth, self.columns), np.float32)

    @property
    def scale(self) -> float:
        """Of the weights, so that outputs of bytes fill their range."""
        return float(100 / (148 * 73 * np.sqrt(self.depth)))


def subjects(product: Product, folder: Path) -> Mapping[str, Call]:
    """Name -> one call of each engine."""
    found: dict[str, Call] = {"edgevit": ours(product)}
    if not product.integers:
        found["OpenBLAS"] = _numpy(product)
    theirs, _ = onnxruntime(product)
    return {**found, "ONNX Runtime": theirs, "XNNPACK": _xnnpack(product, folder)}


def ours(product: Product) -> Single:
    """Our kernel."""
    machine = native()
    a, b = product.operands()
    columns = layout(product.columns, machine)
    shape = (product.rows, product.depth, columns, product.depth, product.columns)
    if not product.integers:
        return Single(Gemm(*shape, PLAIN), machine, [a, pack_b(b, machine)])
    kind = integer(machine)
    packed, offsets = pack_integers(b, 128, columns, kind)
    after = Epilogue(scale=True, quantize=Quantize(_STEP, 128, "uint8"))
    scales = np.full(product.columns, product.scale, np.float32)
    return Single(Gemm(*shape, after, kind), machine, [a, packed, offsets, scales])


def _numpy(product: Product) -> Call:
    a, b = product.operands()
    out = np.empty((product.rows, product.columns), np.float32)
    return lambda: np.dot(a, b, out=out)


def onnxruntime(product: Product) -> tuple[Call, Any]:
    """ONNX Runtime's kernel, and the value it writes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _model(product).SerializeToString()
    session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    a, _ = product.operands()
    binding.bind_ortvalue_input("a", ort.OrtValue.ortvalue_from_numpy(a))
    out = np.zeros((product.rows, product.columns), a.dtype)
    value = ort.OrtValue.ortvalue_from_numpy(out)
    binding.bind_ortvalue_output("y", value)
    return lambda: session.run_with_iobinding(binding), value


def _model(product: Product) -> onnx.ModelProto:
    """One MatMul, or one QLinearMatMul."""
    a, b = product.operands()
    kind = helper.np_dtype_to_tensor_dtype(a.dtype)
    given: dict[str, Any] = {"b": b}
    inputs = ["a", "b"]
    if product.integers:
        given |= {
            "as": np.float32(1), "az": np.uint8(128),
            "bs": np.full(product.columns, product.scale, np.float32),
            "bz": np.zeros(product.columns, np.int8),
            "ys": np.float32(_STEP), "yz": np.uint8(128),
        }  # fmt: skip
        inputs = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    operator = "QLinearMatMul" if product.integers else "MatMul"
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"])],
        "product",
        [helper.make_tensor_value_info("a", kind, a.shape)],
        [helper.make_tensor_value_info("y", kind, (product.rows, product.columns))],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in given.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _xnnpack(product: Product, folder: Path) -> Call:
    """One FULLY_CONNECTED of our own ``.tflite`` writer; bytes are int8 there."""
    from ai_edge_litert.interpreter import Interpreter

    content = _tflite(product, folder)
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    detail = interpreter.get_input_details()[0]
    a, _ = product.operands()
    shifted = (a.astype(np.int16) - 128).astype(np.int8) if product.integers else a
    interpreter.set_tensor(detail["index"], shifted)

    def call() -> None:
        interpreter.invoke()

    return call


def _tflite(product: Product, folder: Path) -> bytes:
    """Compile the float32 product; of the quantized file keep the linear layer alone."""
    from benchmarks.edgevit_json import call

    name = f"{product.rows}x{product.columns}x{product.depth}-{int(product.integers)}"
    source, bundle = folder / f"{name}.onnx", folder / f"{name}.edgevit"
    plain = Product(product.rows, product.columns, product.depth, integers=False)
    onnx.save(_model(plain), str(source))
    options = ["--target", "linux-x86", "--output", str(bundle), "--overwrite", "--no-verify"]
    if product.integers:
        options += ["--precision", "w8a8", "--calib", "synthetic"]
    answer = call(["compile", str(source), *options])
    if answer.exit_code:
        raise SystemExit(f"{name}: {answer.error}")
    content = next(bundle.glob("*.tflite")).read_bytes()
    return _bare(content) if product.integers else content


def _bare(content: bytes) -> bytes:
    """The file without QUANTIZE before and DEQUANTIZE after its linear layer."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    graph = model.subgraphs[0]
    (linear,) = (
        o for o in graph.operators
        if model.operatorCodes[o.opcodeIndex].builtinCode
        == schema.BuiltinOperator.FULLY_CONNECTED
    )  # fmt: skip
    graph.operators = [linear]
    graph.inputs, graph.outputs = [linear.inputs[0]], list(linear.outputs)
    model.signatureDefs = []
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@dataclass(frozen=True)
class _Peak:
    """Products of registers alone, as many as a tile has, over and over."""

    integers: bool
    rounds: int

    label = "peak"

    @property
    def operands(self) -> tuple[Operand, ...]:
        """What is multiplied, and a place for the sums."""
        dtype, out = ("int32", "int32") if self.integers else ("float32", "float32")
        return (Operand("x", dtype, 64), Operand("y", out, 64, written=True))

    def body(self, machine: Machine, *buffers: Any) -> None:
        """Every accumulator of the widest tile, ``rounds`` times."""
        from tvm import tirx
        from tvm.script.ir_builder import tirx as T

        x, y = buffers
        lanes, dtype = machine.lanes, "int32" if self.integers else "float32"
        tile = Tile(machine.tile_rows, machine.tile_vectors, lanes, dtype)
        tile.clear()

        def product(s: Any, a: Any, b: Any) -> Any:
            if not self.integers:
                return s + a * b
            wide = f"int8x{4 * lanes}"
            name = "llvm.x86.avx512.vpdpbusd." + str(32 * lanes)
            a, b = T.reinterpret(wide, a), T.reinterpret(wide, b)
            return tirx.call_llvm_pure_intrin(f"int32x{lanes}", name, s, a, b)

        one = local(lanes, dtype)
        store(one, 0, load(x, 0, lanes), lanes)
        with loop(self.rounds):
            value = load(one, 0, lanes)
            tile.step(0, [value] * tile.rows, [value] * tile.vectors, product)
        for row in range(tile.rows):
            for vector in range(tile.vectors):
                store(y, 0, load(y, 0, lanes) + tile.total(row, vector), lanes)


def peak(integers: bool) -> tuple[Call, int]:
    """A call, and how many operations it makes."""
    machine, rounds = native(), 20_000
    kernel = _Peak(integers, rounds)
    start = np.full(64, 1, kernel.operands[0].dtype)
    tile = machine.tile_rows * machine.tile_vectors * machine.lanes
    return Single(kernel, machine, [start]), 2 * tile * rounds * (4 if integers else 1)
