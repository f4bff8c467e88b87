"""Cases of operators that compute: elementwise, activations, products, norms, reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.runtimes.mil.spec import Array
from tests.support.mil import Case, Onnx

__all__ = ["CASES"]

F = np.float32
_rng = np.random.default_rng(20)


def normal(*shape: int) -> Array:
    """Float32 numbers of unit variance."""
    return _rng.standard_normal(shape).astype(F)


def uniform(low: float, high: float, *shape: int) -> Array:
    """Float32 numbers of an interval."""
    return _rng.uniform(low, high, shape).astype(F)


def whole(low: int, high: int, *shape: int) -> Array:
    """Int32 numbers of [low, high)."""
    return _rng.integers(low, high, shape).astype(np.int32)


def flags(*shape: int) -> Array:
    """Booleans."""
    return _rng.integers(0, 2, shape).astype(bool)


def _unary() -> list[Case]:
    x, inside, positive = normal(2, 3, 5), uniform(-0.9, 0.9, 4, 6), uniform(0.1, 9, 3, 7)
    wide = (x * 4).astype(F)
    names = ["abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "floor", "identity"]
    names += [
        "relu",
        "relu6",
        "sigmoid",
        "sign",
        "sin",
        "sinh",
        "softplus",
        "softsign",
        "square",
    ]
    cases = [Case(name, {"x": wide if name != "cosh" else x}) for name in [*names, "tanh"]]
    cases += [Case(name, {"x": inside}) for name in ("acos", "asin", "atanh", "tan")]
    cases += [Case(name, {"x": positive}) for name in ("inverse", "log", "rsqrt", "sqrt")]
    cases += [
        Case(name, {"x": positive}, {"epsilon": F(0.25)})
        for name in ("inverse", "log", "rsqrt")
    ]
    # halves, where the rounding rule shows
    cases += [Case("round", {"x": np.arange(-4, 4.5, 0.5, dtype=F)}, terms=0)]
    cases += [Case("sign", {"x": np.array([-2, 0, 3], np.int32)}, terms=0)]
    cases += [Case("abs", {"x": whole(-9, 9, 4)}, terms=0)]
    cases += [Case("sigmoid", {"x": np.array([-80, -20, 0, 20, 80], F)})]
    cases += [Case("logical_not", {"x": flags(3, 4)}, terms=0)]
    cases += [Case("silu", {"x": wide}, expected=wide / (1 + np.exp(-wide.astype(float))))]
    cases += [
        Case("clip", {"x": wide}, {"alpha": F(-1.5), "beta": F(2)}, terms=0),
        Case("threshold", {"x": x}, {"alpha": F(0.25)}, terms=0),
        Case("cast", {"x": wide}, {"dtype": "int32"}, terms=0),
        Case("cast", {"x": wide}, {"dtype": "fp16"}, terms=0),
        Case("cast", {"x": whole(-3, 3, 9)}, {"dtype": "fp32"}, terms=0),
        Case("cast", {"x": np.array([0, 0.5, -2, 0], F)}, {"dtype": "bool"}, terms=0),
        Case("cast", {"x": uniform(0, 200, 9)}, {"dtype": "uint8"}, terms=0),
    ]
    return cases


def _activations() -> list[Case]:
    x = (normal(2, 3, 4, 5) * 3).astype(F)
    channel = {"alpha": normal(3), "beta": uniform(0.2, 1.5, 3)}
    pair = {"alpha": F(0.3), "beta": F(0.7)}
    modes = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    return [
        *(Case("gelu", {"x": x}, {"mode": mode}) for mode in modes),
        Case("gelu", {"x": x}),
        Case("gelu", {"x": x}, onnx=Onnx("Gelu", ("x",))),
        *(Case(name, {"x": x}, {"alpha": F(0.3)}) for name in ("elu", "leaky_relu")),
        Case("thresholded_relu", {"x": x.copy()}, {"alpha": F(0.3)}, terms=0),
        *(
            Case(n, {"x": x}, pair)
            for n in ("linear_activation", "scaled_tanh", "sigmoid_hard")
        ),
        Case("clamped_relu", {"x": x}, pair),
        Case("clamped_relu", {"x": x}, {"alpha": F(-2), "beta": F(1)}),
        Case("prelu", {"x": x}, {"alpha": uniform(-1, 1, 3)}),
        Case("softplus_parametric", {"x": x}, channel),
        *(Case("softmax", {"x": x}, {"axis": axis}) for axis in (-1, 1, 0)),
        Case("softmax", {"x": x * F(30)}),
    ]


def _binary() -> list[Case]:
    x, y = normal(2, 3, 4), normal(3, 1)
    i, j = whole(-9, 9, 3, 4), whole(1, 5, 4)
    names = ("add", "sub", "mul", "real_div", "maximum", "minimum", "floor_div", "mod")
    cases = [Case(name, {"x": x, "y": y}, terms=1) for name in names]
    cases += [Case(name, {"x": i, "y": j}, terms=0) for name in names if name != "real_div"]
    cases += [Case(name, {"x": x}, {"y": F(0.5)}, terms=1) for name in names]
    cases += [Case("pow", {"x": np.abs(x), "y": y}), Case("pow", {"x": x}, {"y": F(2)})]
    close = np.where(flags(2, 3, 4), x, np.broadcast_to(y, x.shape)).astype(F)
    for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"):
        cases += [
            Case(name, {"x": close, "y": y}, terms=0),
            Case(name, {"x": i, "y": j}, terms=0),
        ]
    for name in ("logical_and", "logical_or", "logical_xor"):
        cases += [Case(name, {"x": flags(3, 4), "y": flags(4)}, terms=0)]
    cases += [
        Case("select", {"cond": flags(3, 1), "a": normal(3, 4), "b": normal(4)}, terms=0),
        Case("select", {"cond": flags(3, 4), "a": whole(0, 9, 3, 4), "b": i}, terms=0),
    ]
    return cases


def _attention() -> list[Case]:
    given = {
        "query": normal(2, 3, 5, 8),
        "key": normal(2, 3, 7, 8),
        "value": normal(2, 3, 7, 4),
    }
    op, order = "scaled_dot_product_attention", ("query", "key", "value")
    added, chosen = normal(3, 5, 7), flags(2, 1, 5, 7)
    chosen[..., 0] = True  # a row without any key is no number
    return [
        Case(op, given, opset=18, terms=32, onnx=Onnx("Attention", order, opset=23)),
        *(
            Case(
                op,
                {**given, "attn_mask": mask},
                opset=18,
                terms=32,
                onnx=Onnx("Attention", (*order, "attn_mask"), opset=23),
            )
            for mask in (added, chosen)
        ),
    ]


def _products() -> list[Case]:
    x, w = normal(2, 7, 40), normal(30, 40)
    a, b = normal(2, 1, 5, 33), normal(3, 33, 4)
    swapped = {"x": a.swapaxes(-1, -2).copy(), "y": b.swapaxes(-1, -2).copy()}
    both: dict[str, Any] = {"transpose_x": True, "transpose_y": True}
    return [
        Case("linear", {"x": x}, {"weight": w}, terms=40),
        Case("linear", {"x": x}, {"weight": w, "bias": normal(30)}, terms=42),
        Case("linear", {"x": x[0]}, {"weight": w, "bias": normal(30)}, opset=15, terms=42),
        Case("matmul", {"x": a, "y": b}, terms=33),
        Case("matmul", {"x": a, "y": swapped["y"]}, {"transpose_y": True}, terms=33),
        Case("matmul", swapped, both, opset=15, terms=33),
        Case("matmul", {"x": normal(5), "y": normal(5, 4)}, terms=5),
        Case("matmul", {"x": whole(-9, 9, 3, 4), "y": whole(-9, 9, 4, 5)}, terms=0),
        Case(
            "einsum",
            {"values": (normal(2, 3, 4, 5), normal(2, 5, 4, 6))},
            {"equation": "nchw,nwhu->nchu"},
            terms=5,
        ),
        Case(
            "einsum",
            {"values": (normal(1, 3, 4, 5), normal(2, 5, 1, 6))},
            {"equation": "abcd,adce->abce"},
            terms=5,
        ),
        Case(
            "einsum",
            {"values": (normal(3, 4, 5), normal(5, 4, 6))},
            {"equation": "chw,whr->chr"},
            terms=5,
        ),
    ]


def _norms() -> list[Case]:
    x = (normal(2, 6, 4, 5) * 3 + 1).astype(F)
    return [
        Case("layer_norm", {"x": x}, {"axes": [-1]}, terms=40),
        Case("layer_norm", {"x": x}, {"axes": [2, 3], "epsilon": F(1e-3)}, terms=40),
        Case("layer_norm", {"x": x}, {"axes": [0, 1, 2, 3]}, terms=60),
        Case(
            "layer_norm",
            {"x": x},
            {"axes": [-2, -1], "gamma": normal(4, 5), "beta": normal(4, 5)},
            terms=40,
        ),
        Case(
            "layer_norm",
            {"x": x},
            {"axes": [-1], "gamma": normal(5), "beta": normal(5), "epsilon": F(1e-6)},
            terms=40,
            opset=15,
        ),
        Case("l2_norm", {"x": x}, terms=40),
        Case("l2_norm", {"x": x[0]}, {"epsilon": F(1e-2)}, terms=60),
    ]


def _channel_norms() -> list[Case]:
    x = (normal(2, 6, 4, 5) * 3 + 1).astype(F)
    gamma, beta, mean, variance = normal(6), normal(6), normal(6), uniform(0.1, 2, 6)
    lrn = {"size": 5, "alpha": 0.1, "beta": 0.5, "bias": 2.0}
    return [
        Case(
            "batch_norm",
            {"x": x},
            {
                "mean": mean,
                "variance": variance,
                "gamma": gamma,
                "beta": beta,
                "epsilon": F(1e-3),
            },
            onnx=Onnx(
                "BatchNormalization", ("x", gamma, beta, mean, variance), {"epsilon": 1e-3}
            ),
            terms=20,
        ),
        Case(
            "batch_norm",
            {"x": x},
            {"mean": mean, "variance": variance},
            onnx=Onnx(
                "BatchNormalization",
                ("x", np.ones(6, F), np.zeros(6, F), mean, variance),
                {"epsilon": 1e-5},
            ),
            terms=20,
        ),
        Case(
            "instance_norm",
            {"x": x},
            {"gamma": gamma, "beta": beta, "epsilon": F(1e-3)},
            onnx=Onnx("InstanceNormalization", ("x", gamma, beta), {"epsilon": 1e-3}),
            terms=60,
        ),
        *(
            Case(
                "local_response_norm",
                {"x": x},
                {"size": size, "alpha": F(0.1), "beta": F(0.5), "k": F(2)},
                onnx=Onnx("LRN", ("x",), {**lrn, "size": size}),
                terms=40,
            )
            for size in (3, 5)
        ),
    ]


_SUMS = ("sum", "mean", "l1_norm", "l2_norm", "sum_square", "log_sum", "log_sum_exp")


def _reductions() -> list[Case]:
    x = uniform(0.2, 2, 3, 4, 5)
    cases = []
    for name in (*_SUMS, "max", "min", "prod"):
        op = f"reduce_{name}"
        cases += [
            Case(op, {"x": x}, {"axes": [-1]}, terms=20),
            Case(op, {"x": x}, {"axes": [0, 2], "keep_dims": True}, terms=40),
            Case(op, {"x": x}, {"keep_dims": True}, terms=80),
        ]
    ints = whole(-9, 9, 3, 4)
    cases += [Case(f"reduce_{n}", {"x": ints}, {"axes": [1]}, terms=0) for n in ("sum", "max")]
    ties = np.array([[1, 3, 3], [2, 0, 0]], F)
    for op in ("reduce_argmax", "reduce_argmin"):
        cases += [
            Case(op, {"x": x}, {"axis": 1, "keep_dims": True}, terms=0),
            Case(op, {"x": ties}, {"axis": -1}, terms=0, opset=15),
            Case(op, {"x": x}, {"axis": 0, "output_dtype": "uint16"}, terms=0),
        ]
    cases += [
        Case("argsort", {"x": x}, {"axis": 1}, terms=0),
        Case("argsort", {"x": x}, {"axis": -1, "ascending": True}, terms=0),
        Case("topk", {"x": x}, {"k": 3, "axis": 1}, terms=0, opset=15),
        Case("topk", {"x": x}, {"k": 2, "axis": -1, "ascending": True}, terms=0, opset=16),
        Case("topk", {"x": x}, {"k": 2, "output_indices_dtype": "uint16"}, terms=0),
        Case("cumsum", {"x": x}, {"axis": 1}, terms=8),
        Case("cumsum", {"x": x}, {"axis": -1, "reverse": True}, terms=8),
        Case(
            "cumsum",
            {"x": x},
            {"axis": 1, "exclusive": True, "reverse": True},
            onnx=Onnx("CumSum", ("x", np.array(1)), {"exclusive": 1, "reverse": 1}),
        ),
    ]
    return cases


CASES = [
    *_unary(),
    *_activations(),
    *_binary(),
    *_products(),
    *_attention(),
    *_norms(),
    *_channel_norms(),
    *_reductions(),
]
