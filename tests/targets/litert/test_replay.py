"""Replay: a fault inside the shipped flatbuffer shows at exactly the value it harms."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered
from edgevit.errors import InternalError
from edgevit.targets.litert.lower import LiteRTBackend
from edgevit.targets.litert.writer import pack
from tests.support.graphs import GraphBuilder, feeds_for, run_reference
from tests.support.tflite import lower, run_all
from tests.targets.litert.case import accumulated, noise
from tests.targets.litert.test_operators import distance

Array = np.ndarray[Any, Any]
_LIMIT = accumulated(27 + 1)  # the longest sum is the convolution's


def _network() -> ir.Model:
    """An image branch, tokens, a residual; "side" is an output and is used further."""
    g = GraphBuilder()
    conv = g.op("Conv", g.input("x", (1, 3, 6, 6)), g.const(noise(4, 3, 3, 3), "weight"),
                g.const(noise(4, seed=5), "bias"), kernel_shape=[3, 3], strides=[1, 1],
                pads=[1] * 4, dilations=[1, 1], group=1, out="conv")  # fmt: skip
    act = g.op("HardSwish", conv, out="act")
    flat = g.op("Reshape", act, g.ints([1, 4, 36]), out="flat")
    tokens = g.op("Transpose", flat, perm=[0, 2, 1], out="tokens")
    norm = g.op("LayerNormalization", tokens, g.const(noise(4)), g.const(noise(4, seed=9)),
                axis=2, epsilon=1e-6, out="norm")  # fmt: skip
    product = g.op("MatMul", norm, g.const(noise(4, 4, seed=3), "w"), out="product")
    linear = g.op("Add", product, g.const(noise(4, seed=4), "b"), out="linear")
    g.op("Sub", linear, tokens, out="side")
    soft = g.op("Softmax", "side", axis=2, out="soft")
    g.op("ReduceMean", soft, g.ints([1]), keepdims=0, out="mean")
    return g.model("side", "mean")


def _edited(lowered: Lowered, edit: Callable[[Any], None]) -> Lowered:
    """The artifact with its unpacked flatbuffer edited."""
    ((path, data),) = lowered.files.items()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    edit(model)
    return dataclasses.replace(lowered, files={path: pack(model)})


def _operator(model: Any, op: str) -> Any:
    """The first operator of a kind."""
    code = getattr(schema.BuiltinOperator, op)
    kinds = [c.builtinCode for c in model.operatorCodes]
    return next(o for o in model.subgraphs[0].operators if kinds[o.opcodeIndex] == code)


def _swap_last_sub(model: Any) -> None:
    code = schema.BuiltinOperator.SUB
    kinds = [c.builtinCode for c in model.operatorCodes]
    subs = [o for o in model.subgraphs[0].operators if kinds[o.opcodeIndex] == code]
    subs[-1].inputs = list(subs[-1].inputs)[::-1]


def _scale_buffer(op: str, operand: int, factor: float) -> Callable[[Any], None]:
    def edit(model: Any) -> None:
        tensor = model.subgraphs[0].tensors[_operator(model, op).inputs[operand]]
        buffer = model.buffers[tensor.buffer]
        values = np.frombuffer(bytes(buffer.data), np.float32) * np.float32(factor)
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)

    return edit


def _wrong_beta(model: Any) -> None:
    _operator(model, "SOFTMAX").builtinOptions.beta = 1.01


def _relu(model: Any) -> None:
    options = _operator(model, "FULLY_CONNECTED").builtinOptions
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU


def _keep(model: Any) -> None:
    del model


_FAULTS: Mapping[str, tuple[Callable[[Any], None], str | None]] = {
    "none": (_keep, None),
    "sub-swapped": (_swap_last_sub, "side"),
    "conv-bias-dropped": (_scale_buffer("CONV_2D", 2, 0.0), "conv"),
    "linear-weight-stale": (_scale_buffer("FULLY_CONNECTED", 1, 1.01), "linear"),
    "softmax-beta": (_wrong_beta, "soft"),
    "extra-relu": (_relu, "linear"),
}


def _diverging(lowered: Lowered, values: Mapping[str, Array]) -> list[str]:
    replayed = LiteRTBackend().replay(lowered)
    result = run_all([(replayed, values)])[0]
    assert result.error == ""
    found = {n: distance(y, values[n]) for n, y in result.outputs.items()}
    return [name for name, error in found.items() if error > _LIMIT]


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_shows_where_it_is_and_nowhere_else(fault: str) -> None:
    model = _network()
    lowered = lower(model)
    names = [b.name for b in lowered.values]
    feeds = feeds_for(model)
    values = {**feeds, **run_reference(model, feeds, names)}
    edit, where = _FAULTS[fault]
    diverging = _diverging(_edited(lowered, edit), values)
    assert diverging == ([] if where is None else [where])


def test_values_are_those_that_exist_in_execution_order() -> None:
    lowered = lower(_network())
    names = [b.name for b in lowered.values]
    # "flat" is never a tensor; "product" is fused into "linear".
    assert names == ["conv", "act", "tokens", "norm", "linear", "side", "soft", "mean"]


def test_replay_reads_all_used_values_and_writes_all() -> None:
    lowered = lower(_network())
    replayed = LiteRTBackend().replay(lowered)
    inputs = {b.name for b in replayed.part.inputs}
    assert inputs == {"x", "conv", "act", "tokens", "norm", "linear", "side", "soft"}
    assert [b.name for b in replayed.part.outputs] == [b.name for b in lowered.values]
    names = [b.artifact for b in (*replayed.part.inputs, *replayed.part.outputs)]
    assert len(set(names)) == len(names)


def test_a_map_that_does_not_fit_the_bytes_is_a_bug() -> None:
    lowered = lower(_network())
    stray = dataclasses.replace(lowered.values[0], artifact="no such tensor")
    broken = dataclasses.replace(lowered, values=(stray,))
    with pytest.raises(InternalError, match="no such tensor"):
        LiteRTBackend().replay(broken)


def test_replay_is_deterministic() -> None:
    lowered = lower(_network())
    backend = LiteRTBackend()
    assert backend.replay(lowered).files == backend.replay(lowered).files
