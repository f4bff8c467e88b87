"""Functions of our own and their bodies: the same numbers, in canonical form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.inlining import inline_unknown, unknown
from edgevit.passes.check_canonical import check_canonical
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.inline_functions import InlineFunctions
from edgevit.reference import run_reference
from edgevit.target import load_target
from tests.passes.harness import operators

Array = np.ndarray[Any, Any]
TARGETS = ("linux-x86", "iphone-npu", "linux-x86-tvm")


def network(op: str, changed: dict[str, Any] | None = None) -> ir.Model:
    """``y = op(x, *stored)`` twice over, so that names have to be told apart."""
    x, stored, attributes, _ = CASES[op]
    source = ir.val("x", ir.DataType.FLOAT, list(x.shape))
    graph = ir.Graph([source], [], nodes=[], opset_imports={"": 23}, name="g")
    constants = []
    for name, array in stored.items():
        value = ir.val(name, ir.DataType.from_numpy(array.dtype), list(array.shape))
        value.const_value = ir.tensor(array, name=name)
        graph.register_initializer(value)
        constants.append(value)
    made = []
    for name in ("one", "two"):
        called = {**attributes, **(changed or {})}
        node = ir.node(op, [source, *constants], called, domain=DOMAIN, name=name)
        node.outputs[0].name = name
        made.append(node)
        graph.append(node)
    both = ir.node("Sub", [made[0].outputs[0], made[1].outputs[0]])
    both.outputs[0].name = "none"
    graph.append(both)
    for node in graph:
        node.outputs[0].shape = ir.Shape(wanted(op).shape)
        node.outputs[0].dtype = ir.DataType.FLOAT
    graph.outputs.extend([made[0].outputs[0], both.outputs[0]])
    model = ir.Model(graph, ir_version=10)
    ensure_function(model, op)
    return model


def cases() -> dict[str, tuple[Array, dict[str, Array], dict[str, Any], Callable[..., Array]]]:
    """Function -> x, what is stored, attributes, and what it computes, in numpy."""
    rng = np.random.default_rng(3)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    def convolved(x: Array, k: Array) -> Array:
        windows = np.lib.stride_tricks.sliding_window_view(x, k.shape[2:], axis=(2, 3))
        return np.asarray(np.einsum("bchwij,ocij->bohw", windows, k))

    def shared(x: Array, k: Array, b: Array) -> Array:
        padded = np.pad(x.reshape(6, 2, 4, 3), ((0, 0), (0, 0), (1, 1), (1, 1)))
        return convolved(padded, k) + b[:, None, None]

    def logs(x: Array, factor: Array, top: Array, table: Array) -> Array:
        code = np.clip(np.rint(np.log(x) * factor), 0, top)
        return np.asarray(table[code.astype(int)])

    table: dict[str, Array] = {
        "factor": np.array(-2.0, np.float32),
        "top": np.array(7.0, np.float32),
        "table": np.exp2(-np.arange(8) / 2).astype(np.float32),
    }
    conv = {"kernel_shape": [3, 2], "strides": [1, 1], "dilations": [1, 1], "group": 1}
    tile = {"tile": [6, 2, 4, 3], "pads": [1, 1, 1, 1]}
    return {
        "OpticalLinear": (normal(2, 5, 7), {"w": normal(7, 4)}, {}, np.matmul),
        "OpticalConv": (
            normal(1, 2, 6, 5), {"w": normal(3, 2, 3, 2)}, {**conv, "pads": [0] * 4}, convolved
        ),
        "SharedConv": (normal(6, 24), {"k": normal(3, 2, 3, 3), "b": normal(3)}, tile, shared),
        "LogQuantize": (np.exp(normal(4, 9)), table, {}, logs),
        "Silu": (normal(3, 5), {}, {}, lambda x: x / (1 + np.exp(-x))),
    }  # fmt: skip


CASES = cases()


def wanted(op: str) -> Array:
    """By numpy."""
    x, stored, _, function = CASES[op]
    return np.asarray(function(x, *stored.values()))


def ran(model: ir.Model, x: Array) -> tuple[Array, Array]:
    found = run_reference(ir.to_proto(model).SerializeToString(), [{"x": x}]).outputs[0]
    return found["one"], found["none"]


@pytest.mark.parametrize("op", CASES)
def test_bodies_compute_what_the_functions_stand_for(op: str) -> None:
    model = network(op)
    out = InlineFunctions().call(model)
    assert [c.node for c in out.changes] == ["one", "two"]
    assert not model.functions
    assert not any(n.domain for n in model.graph)
    assert check_canonical(model) == ()
    one, none = ran(model, CASES[op][0])
    # Sums of at most 24 products of numbers of order 1 in float32.
    assert np.abs(one - wanted(op)).max() < 24 * 2.0**-23 * max(1, np.abs(one).max())
    assert not none.any()


def test_only_named_functions_are_inlined() -> None:
    model = network("Silu")
    again = InlineFunctions(functions="SharedConv+OpticalConv")(model)
    assert not again.modified
    assert operators(model) == {"Silu": 2, "Sub": 1}
    assert InlineFunctions(functions="OpticalConv+Silu")(model).modified
    assert operators(model) == {"Sigmoid": 2, "Mul": 2, "Sub": 1}
    assert not InlineFunctions()(model).modified


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("op", CASES)
def test_backends_are_given_bodies_of_what_they_do_not_know(op: str, target: str) -> None:
    model = network(op)
    known = op == "Silu"
    device = load_target(target)
    assert unknown(model, device, device.default_precision) == (() if known else (op,))
    records = inline_unknown(model, device, device.default_precision)
    assert [r.spec for r in records] == (
        [] if known else [f"inline-functions{{functions={op}}}"]
    )
    assert any(n.domain for n in model.graph) == known
    assert inline_unknown(model, device, device.default_precision) == ()


@pytest.mark.parametrize("target", ["onnx", "optical-4f"])
def test_backends_that_know_a_function_keep_it(target: str) -> None:
    model = network("SharedConv")
    device = load_target(target)
    assert unknown(model, device, device.default_precision) == ()


def test_what_a_device_excludes_is_inlined_too() -> None:
    model = network("Silu")
    device = load_target("linux-x86")
    without = device.model_copy(update={"exclude_ops": ("Silu",)})
    assert unknown(model, device, "fp32") == ()
    assert unknown(model, without, "fp32") == ("Silu",)


def test_a_wrong_body_is_seen() -> None:
    """The comparison can fail: pads that are dropped give other numbers."""
    model = network("SharedConv", {"pads": [0, 0, 2, 2]})
    InlineFunctions()(model)
    one, _ = ran(model, CASES["SharedConv"][0])
    assert np.abs(one - wanted("SharedConv")).max() > 0.1
