"""A small model with a symbolic width, whose graph looks different at each width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

__all__ = ["symbolic_model", "two_inputs"]

Array = np.ndarray


def symbolic_model(path: Path, width: int = 16) -> Path:
    """Convolution, token mixing and a head over ``x`` float32 ``[1, 3, 8, W]``.

    The output ``y`` is ``[1, W / 2, 5]``: its shape, and the target of a Reshape that reads
    ``Shape``, follow the width.
    """
    rng = np.random.default_rng(7)
    made = {
        "conv": rng.normal(0, 0.3, (width, 3, 8, 2)),
        "scale": rng.normal(1, 0.1, width),
        "bias": rng.normal(0, 0.1, width),
        "dense": rng.normal(0, 0.3, (width, width)),
        "head": rng.normal(0, 0.3, (width, 5)),
    }
    constants = [
        onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in made.items()
    ]
    constants.append(onnx.numpy_helper.from_array(np.array([0, width, -1]), "target"))
    op = onnx.helper.make_node
    nodes = [
        op("Conv", ["x", "conv"], ["c"], strides=[8, 2]),
        op("Reshape", ["c", "target"], ["r"]),
        op("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        op("LayerNormalization", ["t", "scale", "bias"], ["n"], axis=-1),
        op("MatMul", ["n", "dense"], ["d"]),
        op("Transpose", ["n"], ["k"], perm=[0, 2, 1]),
        op("MatMul", ["d", "k"], ["s"]),
        op("Softmax", ["s"], ["p"], axis=-1),
        op("MatMul", ["p", "n"], ["a"]),
        op("Add", ["a", "t"], ["m"]),
        op("MatMul", ["m", "head"], ["y"]),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "symbolic",
        [info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, "W"])],
        [info("y", onnx.TensorProto.FLOAT, ["N", "T", 5])],
        constants,
    )
    return _save(graph, path)


def two_inputs(path: Path) -> Path:
    """``y = relu(a @ b)`` of ``a`` ``[N, K]`` and ``b`` ``[K, M]``, all symbolic."""
    op = onnx.helper.make_node
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [op("MatMul", ["a", "b"], ["ab"]), op("Relu", ["ab"], ["y"])],
        "two_inputs",
        [
            info("a", onnx.TensorProto.FLOAT, ["N", "K"]),
            info("b", onnx.TensorProto.FLOAT, ["K", "M"]),
        ],
        [info("y", onnx.TensorProto.FLOAT, ["N", "M"])],
    )
    return _save(graph, path)


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9
    )
    onnx.save_model(model, path)
    return path
