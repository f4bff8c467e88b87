"""Layers that a rule keeps float for accuracy's sake: each network decides for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.bundle import TensorInfo
from edgevit.calibration import DataSource, NpzSource
from edgevit.edits import KeepFloat, QuantizeWeight, Remark
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context
from edgevit.target import LayerRule, QuantScheme, load_target
from tests.support.graphs import GraphBuilder

SHAPE = (1, 4, 8, 8)
RULE = LayerRule(
    name="depthwise", kinds=("depthwise",), run="float", because="less exact", source="a test"
)


def network(gain: float) -> ir.Model:
    """A depthwise layer with one channel that is ``gain`` times the others."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(0, 1, (4, 1, 3, 3)).astype(np.float32)
    mixing = rng.normal(0, 0.05, (4, 6)).astype(np.float32)
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    scaled = g.op("Mul", x, g.const(np.array([gain, 1, 1, 1], "f4").reshape(1, 4, 1, 1)))
    y = g.op("Conv", scaled, g.const(kernel, "w"), group=4, pads=[1, 1, 1, 1], out="conv")
    even = g.const(np.array([1 / gain, 1, 1, 1], "f4").reshape(1, 4, 1, 1))
    rows = g.op("Transpose", g.op("Mul", y, even), perm=[0, 2, 3, 1])
    return g.model(g.op("MatMul", rows, g.const(mixing, "mixing"), out="y"))


def source(folder: Path) -> DataSource:
    x = np.random.default_rng(4).normal(0, 1, (64, *SHAPE)).astype(np.float32)
    np.savez(folder / "calibration.npz", x=x)
    info = TensorInfo(name="x", dtype="float32", shape=SHAPE)
    return NpzSource(folder / "calibration.npz", (info,))


def context(data: DataSource, **rule: Any) -> Context:
    scheme = QuantScheme(
        activations="uint8", layers=(RULE.model_copy(update=rule),), source="a test"
    )
    target = load_target("onnx")
    return Context(
        data,
        target.model_copy(update={"quantization": {"w8a8": scheme}, "layers": scheme.layers}),
        "w8a8",
    )


def depthwise(edits: tuple[Any, ...]) -> str:
    if any(isinstance(e, KeepFloat) and e.node == "conv" for e in edits):
        return "float"
    assert any(isinstance(e, QuantizeWeight) and e.value == "w" for e in edits)
    return "integers"


# One scale for all channels: beside a channel 1,000 times as large, the others are zero.
@pytest.mark.parametrize(("gain", "expected"), [(1.0, "integers"), (1000.0, "float")])
def test_the_network_decides(tmp_path: Path, gain: float, expected: str) -> None:
    edits = Quantize().plan(network(gain), context(source(tmp_path)))
    assert depthwise(edits) == expected
    said = [e.text for e in edits if isinstance(e, Remark) and "elsewhere" in e.text]
    assert len(said) == 1
    assert f"elsewhere: {expected};" in said[0]


@pytest.mark.parametrize("option", [{"because": "slower"}, {"kinds": ("grouped",)}])
def test_rules_about_time_and_other_layers_ask_nobody(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    edits = Quantize().plan(network(1.0), context(source(tmp_path), **option))
    assert depthwise(edits) == ("float" if "because" in option else "integers")
    assert not [e for e in edits if isinstance(e, Remark) and "elsewhere" in e.text]


@pytest.mark.parametrize("option", [{"observer": "mse"}, {"weights": -1}])
def test_what_is_asked_for_is_not_chosen(tmp_path: Path, option: dict[str, Any]) -> None:
    """Weights that another pass makes follow the rules, so inputs do too."""
    edits = Quantize(**option).plan(network(1.0), context(source(tmp_path)))
    assert any(isinstance(e, KeepFloat) and e.node == "conv" for e in edits)
