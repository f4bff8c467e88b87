"""Shared kernels are recognized where a network was trained with them, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.passes.convshare import ConvShare
from edgevit.passes.trained_convshare import TrainedConvShare
from edgevit.pipeline import Effect
from tests.passes.harness import U, apply, build, check_same, operators, reasons, run

# Sums of 18 products of normal numbers, spread 2.
LIMIT = 8 * 18 * U * 40
SHARED = "float[2,5,24] x => float[2,5,{m}] y"
LAYER = """
tiles = Reshape(x, tile)
seen = Conv <pads = [{p}, {p}, {p}, {p}], strides = [{s}, {s}]> (tiles, k{b})
y = Reshape(seen, out)
"""


def shared(pad: int = 0, stride: int = 1, bias: bool = True, tokens: int = 10) -> Any:
    """Tokens of two pictures of 3 x 4 that meet three kernels of 3 x 3."""
    rng = np.random.default_rng(0)
    side = ((3 + 2 * pad - 3) // stride + 1, (4 + 2 * pad - 3) // stride + 1)
    m = 3 * side[0] * side[1]
    constants: dict[str, Any] = {
        "k": rng.standard_normal((3, 2, 3, 3)).astype(np.float32),
        "tile": np.array([tokens, 2, 3, 4] if tokens == 10 else [2, 10, 3, 4], np.int64),
        "out": np.array([2, 5, m], np.int64),
    }
    if bias:
        constants["b"] = rng.standard_normal(3).astype(np.float32)
    if tokens != 10:
        constants["k"] = rng.standard_normal((15, 10, 3, 3)).astype(np.float32)
        constants["b"] = rng.standard_normal(15).astype(np.float32)
    body = LAYER.format(p=pad, s=stride, b=", b" if bias else "")
    return build(SHARED.format(m=m), body, constants)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("pad", [0, 1])
def test_shared_kernels_are_kept_as_a_function(pad: int, bias: bool) -> None:
    model = shared(pad, bias=bias)
    check_same(TrainedConvShare(), model, LIMIT)
    assert operators(model) == {"SharedConv": 1, "Reshape": 1}
    node = next(n for n in model.graph if n.op_type == "SharedConv")
    assert list(node.attributes["tile"].as_ints()) == [10, 2, 3, 4]
    assert TrainedConvShare.effect is Effect.TRAINED
    assert not apply(TrainedConvShare(), model).modified


def test_the_pictures_of_a_tile_are_what_counts() -> None:
    """A function with another tile computes something else: the comparison above can fail."""
    model = shared()
    apply(TrainedConvShare(), model)
    node = next(n for n in model.graph if n.op_type == "SharedConv")
    node.attributes["tile"] = ir.AttrInt64s("tile", [10, 2, 4, 3])
    other = shared()
    apply(TrainedConvShare(), other)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 5, 24)).astype(np.float32)}
    assert np.abs(run(model, feeds)[0] - run(other, feeds)[0]).max() > 0.1


@pytest.mark.parametrize("model", [shared(1, stride=2), shared(tokens=2)], ids=["s", "batch"])
def test_other_convolutions_stay(model: Any) -> None:
    """Strides (case 1); pictures of one image instead of tokens (case 3)."""
    done = apply(TrainedConvShare(), model)
    assert not done.modified
    assert done.refusals == ()


def test_a_linear_layer_is_refused_and_told_how_to_be_trained() -> None:
    weight = np.random.default_rng(0).standard_normal((24, 7)).astype(np.float32)
    model = build(SHARED.format(m=7), "y = MatMul(x, w)", {"w": weight})
    done = apply(TrainedConvShare(), model)
    assert not done.modified
    assert "24 -> 7 features by 168 weights" in reasons(done)
    assert "examples/convshare_training" in reasons(done)


def test_the_exact_form_is_no_trained_one() -> None:
    """Kernels as large as tiles are a linear layer in another dress: its stride says so."""
    weight = np.random.default_rng(0).standard_normal((24, 7)).astype(np.float32)
    model = build(SHARED.format(m=7), "y = MatMul(x, w)", {"w": weight})
    apply(ConvShare(), model)
    assert not apply(TrainedConvShare(), model).modified


def test_light_takes_the_layer_in_one_kernel_each() -> None:
    from edgevit.targets.optical.sites import layer_of

    model = shared(1)
    apply(TrainedConvShare(), model)
    layer = layer_of(next(n for n in model.graph if n.op_type == "SharedConv"))
    assert layer is not None
    assert (layer.batch, layer.inputs, layer.outputs) == (10, 2, 3)
    assert layer.macs == 10 * 2 * 3 * 9 * 12
