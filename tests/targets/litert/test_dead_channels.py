"""A channel whose weights are all but zero keeps its bias, which int32 has to hold."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.errors import GateError
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context
from edgevit.target import load_target
from tests.passes.harness import build, run
from tests.passes.test_channel_folds import Samples
from tests.support.tflite import lower, run_all

CONV = "kernel_shape=[1,1], pads=[0,0,0,0], strides=[1,1], dilations=[1,1], group=1"


def _quantized(
    precision: str, least: float | None = None
) -> tuple[ir.Model, list[np.ndarray]]:
    """A convolution whose second channel is dead, and what it was calibrated on."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    weight[1] *= 1e-16  # what folds leave: its scale would be 1e-18, its bias 1e19 units
    bias = np.array([0.5, 3.0, -1.0, 0.0], np.float32)
    model = build(
        "float[1,4,5,5] x => float[1,4,5,5] y",
        f"y = Conv<{CONV}>(x, W, b)",
        {"W": weight, "b": bias},
    )
    draws = [rng.normal(size=(1, 4, 5, 5)).astype(np.float32) for _ in range(4)]
    target = load_target("linux-x86")
    if least is not None:
        scheme = target.quantization[precision].model_copy(update={"least_scale": least})
        schemes = {**target.quantization, precision: scheme}
        target = target.model_copy(update={"quantization": schemes})
    chosen = Quantize(observer="minmax")
    data = Samples(tuple({"x": x} for x in draws))
    chosen.perform(model, chosen.plan(model, Context(data, target, precision)))
    return model, draws


def test_a_bias_that_does_not_fit_is_refused() -> None:
    model, _ = _quantized("w8a8", least=0.0)
    with pytest.raises(GateError, match="does not fit into int32: channel 1 has 3") as found:
        lower(model, "w8a8")
    assert "least_scale" in str(found.value.hint)


@pytest.mark.parametrize("least", [None, 0.0], ids=["alone", "beside a wide one"])
def test_a_bias_that_is_no_number_hides_nothing(least: float | None) -> None:
    model, _ = _quantized("w8a8", least)
    bias = model.graph.initializers["b"]
    numbers = bias.const_value
    assert numbers is not None
    array = numbers.numpy().copy()
    array[0] = np.nan
    bias.const_value = ir.tensor(array, name="b")
    with pytest.raises(GateError, match="does not fit into int32: channel 0 has nan"):
        lower(model, "w8a8")


@pytest.mark.parametrize("precision", ["w8a8", "w8a16", "w6a6", "w4a4"])
def test_a_dead_channel_is_its_bias(precision: str) -> None:
    model, draws = _quantized(precision)
    (result,) = run_all([(lower(model, precision), {"x": draws[0]})])
    expected = run(model, {"x": draws[0]})[0]
    bits = min(int(b) for b in precision.removeprefix("w").split("a"))
    step = np.ptp(expected) / (2**bits - 1)
    (found,) = result.outputs.values()
    assert np.abs(found - expected).max() <= 1.01 * step  # one code, as XNNPACK may be off
    assert np.abs(found[:, 1] - 3.0).max() <= 1.01 * step
