"""A small hybrid on which each of the twelve lowering faults is far above the gate.

Convolutions with bias and groups, padding, LayerNorm on a small-variance signal, two-head
attention, erf GELU on large arguments, an ordered concatenation, a broadcast of a vector, a
subtraction whose operands differ, a softmax.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["mutation_model"]

CHANNELS, SIDE, HEADS = 8, 6, 2


def _weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    c, hidden = CHANNELS, 2 * CHANNELS

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    # The first half of the head reads the softmax, whose signal is small.
    gain = np.repeat(np.array([20, 1], np.float32), c)
    return {
        "conv_w": normal(c, 3, 3, 3, scale=0.4),
        "conv_b": normal(c, scale=0.5),
        "group_w": normal(c, c // 4, 3, 3, scale=0.4),
        "group_b": normal(c, scale=0.5),
        # A LayerNorm input of standard deviation about 1e-2 makes epsilon = 1e-4 matter.
        "shrink": np.full((1,), 1e-2, np.float32),
        "ln_scale": normal(c, scale=0.5) + np.float32(1),
        "ln_bias": normal(c, scale=0.2),
        "q_w": normal(c, c, scale=0.6),
        "k_w": normal(c, c, scale=0.6),
        "v_w": normal(c, c, scale=0.6),
        "o_w": normal(c, c, scale=0.6),
        "o_b": normal(c, scale=0.3),
        "row": normal(c, scale=0.7),
        # Around x = -2.3 the tanh form of GELU is off by 1 % of GELU's own value; the next
        # layer brings that back to the scale of the other signals.
        "up_w": normal(c, hidden, scale=0.05),
        "up_b": normal(hidden, scale=0.1) - np.float32(2.3),
        "down_w": normal(hidden, c, scale=60.0),
        "head_w": normal(2 * c, 10, scale=0.5) * gain[:, None],
        "head_b": normal(10, scale=0.3),
        "scale": np.full((1,), (c // HEADS) ** -0.5, np.float32),
        "half": np.full((1,), 0.5, np.float32),
        "one": np.full((1,), 1.0, np.float32),
        "sqrt2": np.full((1,), np.sqrt(2), np.float32),
        "tokens": np.array([1, CHANNELS, SIDE * SIDE], np.int64),
        "heads": np.array([1, SIDE * SIDE, HEADS, CHANNELS // HEADS], np.int64),
        "merged": np.array([1, SIDE * SIDE, CHANNELS], np.int64),
    }


def _stem() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["x", "conv_w", "conv_b"], ["c1"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node(
            "Conv", ["c1", "group_w", "group_b"], ["c2"], "group", pads=[1, 1, 1, 1], group=4
        ),
        helper.make_node("Sub", ["c1", "c2"], ["diff"], "difference"),
        helper.make_node("Reshape", ["diff", "tokens"], ["flat"], "flatten"),
        helper.make_node("Transpose", ["flat"], ["tok"], "to_tokens", perm=[0, 2, 1]),
    ]


def _attention() -> list[onnx.NodeProto]:
    nodes = [
        helper.make_node("Mul", ["tok", "shrink"], ["small"], "shrink_by"),
        helper.make_node(
            "LayerNormalization",
            ["small", "ln_scale", "ln_bias"],
            ["ln"],
            "norm",
            axis=-1,
            epsilon=1e-4,
        ),
    ]
    for letter in "qkv":
        nodes += [
            helper.make_node(
                "MatMul", ["ln", f"{letter}_w"], [f"{letter}0"], f"{letter}_proj"
            ),
            helper.make_node(
                "Reshape", [f"{letter}0", "heads"], [f"{letter}1"], f"{letter}_r"
            ),
            helper.make_node(
                "Transpose", [f"{letter}1"], [letter], f"{letter}_t", perm=[0, 2, 1, 3]
            ),
        ]
    return [
        *nodes,
        helper.make_node("Transpose", ["k"], ["kt"], "k_swap", perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["q", "kt"], ["qk"], "scores"),
        helper.make_node("Mul", ["qk", "scale"], ["scaled"], "scale_by"),
        helper.make_node("Softmax", ["scaled"], ["probs"], "softmax", axis=-1),
        helper.make_node("MatMul", ["probs", "v"], ["av"], "mix"),
        helper.make_node("Transpose", ["av"], ["avt"], "heads_back", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["avt", "merged"], ["avm"], "merge"),
        helper.make_node("MatMul", ["avm", "o_w"], ["o0"], "out_proj"),
        helper.make_node("Add", ["o0", "o_b"], ["o1"], "out_bias"),
        helper.make_node("Add", ["tok", "o1"], ["res1"], "residual"),
    ]


def _mlp() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Add", ["res1", "row"], ["shifted"], "broadcast_row"),
        helper.make_node("MatMul", ["shifted", "up_w"], ["up0"], "up"),
        helper.make_node("Add", ["up0", "up_b"], ["up1"], "up_bias"),
        helper.make_node("Div", ["up1", "sqrt2"], ["g0"], "gelu_div"),
        helper.make_node("Erf", ["g0"], ["g1"], "gelu_erf"),
        helper.make_node("Add", ["g1", "one"], ["g2"], "gelu_add"),
        helper.make_node("Mul", ["up1", "g2"], ["g3"], "gelu_mul"),
        helper.make_node("Mul", ["g3", "half"], ["gelu"], "gelu_half"),
        helper.make_node("MatMul", ["gelu", "down_w"], ["down"], "down"),
        helper.make_node("Softmax", ["down"], ["gate"], "channel_softmax", axis=-1),
        helper.make_node("Concat", ["gate", "res1"], ["both"], "concat", axis=-1),
        helper.make_node("ReduceMean", ["both", "axis1"], ["pooled"], "pool", keepdims=0),
        helper.make_node("Gemm", ["pooled", "head_w", "head_b"], ["logits"], "head"),
    ]


def mutation_model(seed: int) -> onnx.ModelProto:
    """The model: input ``x`` [1, 3, 6, 6] float32, output ``logits`` [1, 10] float32."""
    weights = _weights(np.random.default_rng(seed))
    weights["axis1"] = np.array([1], np.int64)
    graph = helper.make_graph(
        [*_stem(), *_attention(), *_mlp()],
        "mutation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model
