"""Bodies of functions on tokens against numpy: mixtures of experts, attention of 0/1 codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgevit import registry
from edgevit.passes.functions import DOMAIN, VERSION, ensure_function
from edgevit.passes.inline_functions import InlineFunctions
from edgevit.passes.token_functions import MIXTURES, TOKEN_FUNCTIONS
from edgevit.roundoff import roundoff
from edgevit.shift_codes import encode, levels
from edgevit.target import load_target
from edgevit.token_bounds import TOKEN_RULES
from tests.passes.harness import run

Array = np.ndarray[Any, Any]
ACT = {
    "": None,
    "Relu": lambda x: np.maximum(x, 0),
    "Silu": lambda x: x / (1 + np.exp(-x)),
    "Gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
}


def call(
    name: str, feeds: dict[str, Array], constants: list[Array], out: tuple[int, ...], **at: Any
) -> ir.Model:
    """A model of one call."""
    inputs = [ir.val(n, ir.DataType.FLOAT, a.shape) for n, a in feeds.items()]
    held = [
        ir.val(f"c{i}", ir.DataType.from_numpy(a.dtype), a.shape, const_value=ir.tensor(a))
        for i, a in enumerate(constants)
    ]
    attributes = ir.convenience.convert_attributes(at)
    y = ir.val("y", ir.DataType.FLOAT, list(out))
    node = ir.Node(DOMAIN, name, [*inputs, *held], attributes, outputs=[y])
    imports = {"": 23, DOMAIN: VERSION}
    graph = ir.Graph(
        inputs, [y], nodes=[node], initializers=held, opset_imports=imports, name="t"
    )
    model = ir.Model(graph, ir_version=10)
    ensure_function(model, name)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


class Mixture:
    """Random experts of a kind, and what they make of tokens."""

    def __init__(self, kind: str, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        widths = [(7, 5)] if not kind else [(7, 9), (9, 5)]
        self.kind = kind
        self.own = [
            (rng.normal(size=s).astype("f4"), rng.normal(size=s[1]).astype("f4"))
            for s in widths
        ]
        self.q = [rng.choice(levels(1), s).astype(np.int32) for s in widths]
        self.scale = [(2.0 ** rng.integers(-8, -3, s[1])).astype("f4") for s in widths]
        self.bias = [rng.normal(size=s[1]).astype("f4") for s in widths]

    def constants(self) -> list[Array]:
        own = [a for pair in self.own for a in pair]
        parts = zip(self.q, self.scale, self.bias, strict=True)
        return own + [a for q, s, b in parts for a in (encode(q, 1).codes, s, b)]

    def expert(self, x: Array, shift: bool) -> Array:
        dense = [(q * s, b) for q, s, b in zip(self.q, self.scale, self.bias, strict=True)]
        act, y = ACT[self.kind], x.astype(np.float64)
        for i, (w, b) in enumerate(dense if shift else self.own):
            y = y @ w + b
            if act is not None and i == 0:
                y = act(y)
        return y

    def call(self, x: Array, score: Array, capacity: int) -> ir.Model:
        at = {"capacity": capacity, "inputs": 7, "result": [*x.shape[:-1], 5]}
        if self.kind:
            at["hidden"] = 9
        name = "MixtureOfPrimitives" + self.kind
        feeds = {"x": x, "score": score}
        return call(name, feeds, self.constants(), (*x.shape[:-1], 5), **at)


def expected(mixture: Mixture, x: Array, chosen: Array) -> Array:
    flat = x.reshape(-1, 7)
    y = mixture.expert(flat, shift=True)
    y[chosen] = mixture.expert(flat, shift=False)[chosen]
    return y.reshape(*x.shape[:-1], 5)


def within(mixture: Mixture, model: ir.Model, x: Array, score: Array, y: Array) -> float:
    """The replay's own tolerance."""

    class Operand:
        def __init__(self, array: Array) -> None:
            self.array, self.error = array, 0.0

    ops = [Operand(a) for a in (x, score, *mixture.constants())]
    node = next(iter(model.graph))
    return TOKEN_RULES[node.op_type](node, ops, y, roundoff("float32"))


@pytest.mark.parametrize("capacity", [1, 4, 9])
@pytest.mark.parametrize("kind", sorted(ACT))
def test_each_token_goes_through_its_expert(kind: str, capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    mixture = Mixture(kind)
    x = rng.normal(size=(2, 5, 7)).astype("f4")
    score = rng.permutation(10).reshape(2, 5).astype("f4")
    model = mixture.call(x, score, capacity)
    found = run(model, {"x": x, "score": score})[0]
    chosen = np.argsort(-score.reshape(-1))[:capacity]
    right = expected(mixture, x, chosen)
    limit = within(mixture, model, x, score, right)
    assert limit < 1e-3
    assert np.abs(found - right).max() <= limit
    # One token more, and the wrong expert: the comparison can fail.
    more = np.argsort(-score.reshape(-1))[: capacity + 1]
    assert np.abs(found - expected(mixture, x, more)).max() > limit
    assert np.abs(found - mixture.expert(x, shift=True)).max() > limit


def test_of_equal_scores_the_lower_index_is_first() -> None:
    mixture = Mixture("")
    x = np.random.default_rng(0).normal(size=(1, 6, 7)).astype("f4")
    score = np.array([[1, 2, 1, 2, 1, 1]], "f4")
    model = mixture.call(x, score, 3)
    found = run(model, {"x": x, "score": score})[0]
    right = expected(mixture, x, np.array([0, 1, 3]))
    assert np.abs(found - right).max() <= within(mixture, model, x, score, right)


def attended(q: Array, k: Array, v: Array, t: tuple[float, float], w: Array) -> Array:
    """By masks and additions: no product with a code."""
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k)]
    qb, kb = (u > limit for u, limit in zip(unit, t, strict=True))
    b, h, n, e = v.shape
    y = np.zeros(v.shape)
    for i, j in np.ndindex(b, h):
        a = np.stack([v[i, j][kb[i, j, :, c]].sum(0) for c in range(q.shape[-1])])
        for row in range(n):
            o = 0.5 * v[i, j, row] + a[qb[i, j, row]].sum(0) / math.pi
            near = sum(
                w[j, 0, r, 0] * v[i, j, row + r - 4] for r in range(9) if 0 <= row + r - 4 < n
            )
            y[i, j, row] = o / np.linalg.norm(o) + near
    assert e
    return y


def test_attention_of_codes_is_masked_addition() -> None:
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(size=(1, 2, 11, 6)).astype("f4") for _ in range(3))
    w = rng.normal(size=(2, 1, 9, 1)).astype("f4")
    constants = [np.float32(0.05), np.float32(-0.02), w]
    feeds = {"q": q, "k": k, "v": v}
    at = {"group": 2, "pads": [4, 0, 4, 0]}
    held = [np.asarray(c) for c in constants]
    model = call("BinaryLinearAttention", feeds, held, v.shape, **at)
    found = run(model, feeds)[0]
    right = attended(q, k, v, (0.05, -0.02), w)

    class Operand:
        def __init__(self, array: Array) -> None:
            self.array, self.error = array, 0.0

    ops = [Operand(a) for a in (q, k, v, *held)]
    node = next(iter(model.graph))
    limit = TOKEN_RULES[node.op_type](node, ops, right, roundoff("float32"))
    assert limit < 1e-3
    assert np.abs(found - right).max() <= limit
    # Another threshold, and keys for queries.
    for t, pair in (((0.2, -0.02), (q, k)), ((0.05, -0.02), (k, q))):
        assert np.abs(found - attended(*pair, v, t, w)).max() > limit


def test_every_mixture_says_its_ties_and_is_defined_with_what_it_calls() -> None:
    assert set(TOKEN_FUNCTIONS) == MIXTURES | {"BinaryLinearAttention"} == set(TOKEN_RULES)
    mixture = Mixture("Silu")
    x = np.zeros((1, 3, 7), "f4")
    model = mixture.call(x, np.zeros((1, 3), "f4"), 1)
    names = {f.name for f in model.functions.values()}
    assert names == {"MixtureOfPrimitivesSilu", "ShiftLinear", "Silu"}


def test_what_a_body_calls_is_inlined_with_it_and_only_there() -> None:
    mixture = Mixture("Silu")
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 6, 7)).astype("f4")
    score = rng.permutation(6).reshape(1, 6).astype("f4")
    model = mixture.call(x, score, 2)
    silu = ir.Node(DOMAIN, "Silu", [model.graph.outputs[0]], outputs=[ir.Value(name="z")])
    silu.outputs[0].dtype, silu.outputs[0].shape = ir.DataType.FLOAT, ir.Shape((1, 6, 5))
    model.graph.append(silu)
    model.graph.outputs.append(silu.outputs[0])
    before = run(model, {"x": x, "score": score})
    InlineFunctions(functions="MixtureOfPrimitivesSilu").call(model)
    kept = [n.op_type for n in model.graph if n.domain]
    assert kept == ["Silu"]
    assert {f.name for f in model.functions.values()} == {"Silu"}
    # Sizes are folded, and codes decoded to stored integers.
    kinds = {n.op_type for n in model.graph}
    assert not kinds & {"Shape", "ConstantOfShape", "BitShift", "BitwiseAnd"}
    assert {"TopK", "Gather", "ScatterND", "DequantizeLinear"} <= kinds
    for a, b in zip(before, run(model, {"x": x, "score": score}), strict=True):
        assert np.abs(a - b).max() < 1e-5


@pytest.mark.parametrize("name", ["linux-x86", "iphone-npu", "linux-x86-tvm"])
def test_backends_take_rows_in_an_order_that_the_data_decides(name: str) -> None:
    mixture = Mixture("")
    x = np.zeros((1, 6, 7), "f4")
    model = mixture.call(x, np.zeros((1, 6), "f4"), 2)
    InlineFunctions().call(model)
    target = load_target(name)
    made = registry.load("backends", target.backend)()
    assert [made.unsupported(n, target, "fp32") for n in model.graph] == [None] * len(
        model.graph
    )
