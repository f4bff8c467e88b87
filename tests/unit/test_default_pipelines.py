"""The passes that device files name for their precisions."""

from __future__ import annotations

import pytest

from edgevit import registry
from edgevit.optimize import pipeline
from edgevit.pipeline import CalibratedPass
from edgevit.recipe import Recipe
from edgevit.target import load_target

TARGETS = ("onnx", "linux-x86", "linux-x86:engine=openvino", "iphone-npu:os=18", "android-cpu")
# OpenVINO inherits the scheme of ONNX's operators for it, and has no fast kernels for those.
NOT_OFFERED = {"linux-x86:engine=openvino": "w8a8-dyn"}
CASES = [
    (name, precision)
    for name in TARGETS
    for precision in load_target(name).quantization
    if precision.partition(":")[0] != NOT_OFFERED.get(name)
]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_a_precision_has_passes_that_quantize_all_it_promises(
    name: str, precision: str
) -> None:
    target = load_target(name)
    plain = precision.partition(":")[0]
    passes = pipeline(target, Recipe(), plain).passes
    assert any(isinstance(p, CalibratedPass) and p.quantizes for p in passes)
    specs = [str(p) for p in passes]
    # Passes that leave weights in float are followed by one that stores what is left.
    if any("weights=-1" in spec for spec in specs):
        assert specs.index("compensate") < specs.index("quantize{activations=-1}")
    assert plain in registry.load("backends", target.backend).precisions
    assert plain in target.precisions


@pytest.mark.parametrize("name", ["onnx", "linux-x86", "iphone-npu:os=18"])
def test_below_eight_bits_the_passes_look_at_outputs(name: str) -> None:
    target = load_target(name)
    narrow = {"w4a8", "w6a6", "w4a4"} & target.quantization.keys()
    assert narrow
    for precision in narrow:
        assert target.pipelines[precision][:2] == ("bridge-quant{weights=-1}", "compensate")
