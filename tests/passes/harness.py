"""Small models written as text, a pass applied to them, and the same run by ONNX Runtime."""

from __future__ import annotations

import atexit
import multiprocessing
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir

from edgevit.pipeline import Outcome, Pass

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
U = 2.0**-24  # unit roundoff of float32


def build(signature: str, body: str, constants: Arrays | None = None) -> ir.Model:
    """A model of opset 23 with inferred shapes.

    Args:
        signature: ``"float[2,8] x => float[2,8] y"``.
        body: Nodes in ONNX's text form.
        constants: Initializers by name; one-element ones keep their shape.
    """
    inputs, outputs = signature.split("=>")
    text = (
        '<ir_version: 10, opset_import: ["" : 23, "ai.edgevit" : 1]>\n'
        f"g ({inputs}) => ({outputs}) {{\n{body}\n}}"
    )
    proto = onnx.parser.parse_model(text)
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    model: ir.Model = ir.from_proto(proto)
    model.opset_imports.pop("ai.edgevit")
    return model


def f32(*numbers: float) -> Array:
    """One number as a scalar, several as a vector."""
    return np.asarray(numbers[0] if len(numbers) == 1 else numbers, np.float32)


def i64(*numbers: int) -> Array:
    """A vector of integers."""
    return np.asarray(numbers, np.int64)


def operators(model: ir.Model) -> Counter[str]:
    """How many nodes of each operator a model has."""
    return Counter(node.op_type for node in model.graph)


def only(model: ir.Model, op_type: str) -> ir.Node:
    """The one node of an operator."""
    found = [node for node in model.graph if node.op_type == op_type]
    assert len(found) == 1, f"expected one {op_type}, found {operators(model)}"
    return found[0]


def reasons(outcome: Outcome) -> str:
    """All reasons of refusal, for a substring test."""
    return "; ".join(refusal.reason for refusal in outcome.refusals)


def apply(p: Pass, model: ir.Model) -> Outcome:
    """Apply a pass; the result must be a valid model and a fixed point."""
    before = ir.to_proto(model).SerializeToString()
    outcome = p(model)
    assert isinstance(outcome, Outcome)
    assert outcome.modified == bool(outcome.changes)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    if not outcome.modified:
        assert after.SerializeToString() == before
    again = p(model)
    assert isinstance(again, Outcome)
    assert not again.modified
    return outcome


def _run(model: bytes, feeds: dict[str, Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    found: list[Array] = session.run(None, feeds)
    return found


@cache
def _worker() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    atexit.register(pool.shutdown)
    return pool


def run(model: ir.Model, feeds: Arrays) -> list[Array]:
    """Run in ONNX Runtime without optimizations, in a child process."""
    blob = ir.to_proto(model).SerializeToString()
    return _worker().submit(_run, blob, dict(feeds)).result(timeout=60)


def feeds_for(model: ir.Model, seed: int = 0, spread: float = 2.0) -> dict[str, Array]:
    """Normal random inputs."""
    rng = np.random.default_rng(seed)
    found = {}
    for value in model.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        array = rng.normal(scale=spread, size=tuple(value.shape.numpy()))
        found[value.name or ""] = array.astype(value.dtype.numpy())
    return found


def difference(a: ir.Model, b: ir.Model, spread: float = 2.0) -> float:
    """Largest difference of the outputs of two models on the same random inputs."""
    feeds = feeds_for(a, spread=spread)
    pairs = zip(run(a, feeds), run(b, feeds), strict=True)
    gaps = []
    for x, y in pairs:
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        assert np.abs(x).max() > 1e-3, "the output is dead: nothing is compared"
        gaps.append(float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max()))
    return max(gaps)


def check_same(p: Pass, model: ir.Model, limit: float) -> Outcome:
    """Apply a pass and hold the result against the model before.

    Args:
        p: The pass.
        model: Changed in place.
        limit: Largest absolute difference allowed; derived at each call.
    """
    before = ir.from_proto(ir.to_proto(model))
    outcome = apply(p, model)
    assert outcome.modified, reasons(outcome) or "nothing matched"
    found = difference(before, model)
    assert found <= limit, f"difference {found:.3g} above {limit:.3g}"
    return outcome
