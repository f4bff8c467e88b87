"""The passes that device files name for their precisions."""

from __future__ import annotations

import pytest

from edgevit import registry
from edgevit.optimize import calibrated, pipeline
from edgevit.passes.bridge_quant import BridgeQuant
from edgevit.passes.compensate import Compensate
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
        (compensate,) = (i for i, p in enumerate(passes) if isinstance(p, Compensate))
        assert compensate < specs.index("quantize{activations=-1}")
    assert plain in registry.load("backends", target.backend).precisions
    assert plain in target.precisions


@pytest.mark.parametrize("name", ["onnx", "linux-x86", "iphone-npu:os=18"])
def test_below_eight_bits_the_passes_look_at_outputs(name: str) -> None:
    target = load_target(name)
    narrow = {"w4a8", "w6a6", "w4a4"} & target.quantization.keys()
    assert narrow
    for precision in narrow:
        passes = pipeline(target, Recipe(), precision).passes
        assert any(isinstance(p, Compensate) for p in passes)
        if precision != "w4a8":
            assert any(isinstance(p, BridgeQuant) for p in passes)


@pytest.mark.parametrize("name", ["onnx", "linux-x86", "iphone-npu:os=18"])
def test_samples_are_used_where_there_are_any(name: str) -> None:
    target = load_target(name)
    plain, sampled = (
        [str(p) for p in pipeline(target, Recipe(), "w4", samples).passes]
        for samples in (False, True)
    )
    assert plain[-1:] == ["quantize"]
    assert sampled[-2:] == ["compensate{widen=0.5}", "quantize"]
    assert not any("compensate" in spec for spec in plain)
    # A precision of one pipeline has that one.
    assert pipeline(target, Recipe(), "w8a8", True) == pipeline(target, Recipe(), "w8a8")


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (["compensate{widen=0.5}", "quantize"], True),
        (["quantize"], False),
        (["smooth-quant", "quantize"], False),
        ([], False),
    ],
)
def test_a_bundle_tells_whether_it_had_samples(recorded: list[str], expected: bool) -> None:
    assert calibrated(load_target("onnx"), "w4", recorded) is expected


@pytest.mark.parametrize(
    "name", ["onnx", "linux-x86", "iphone-npu", "raspberry-pi-5", "android-cpu"]
)
def test_samples_choose_8_bit_weights_together(name: str) -> None:
    target = load_target(name)
    for precision in {"w8", "w8a8-dyn"} & set(target.quantization):
        with_samples = pipeline(target, Recipe(precision=precision), precision, True)
        assert any(isinstance(p, Compensate) for p in with_samples.passes)
        without = pipeline(target, Recipe(precision=precision), precision)
        assert not any(isinstance(p, Compensate) for p in without.passes)


@pytest.mark.parametrize("name", ["linux-x86", "raspberry-pi-5", "android-cpu"])
def test_litert_gives_answers_as_it_runs_and_smooths_what_is_far_off(name: str) -> None:
    target = load_target(name)
    assert target.quantization["w8a8"].answers == "as-run"
    specs = [str(p) for p in pipeline(target, Recipe(), "w8a8").passes]
    (smooth,) = (i for i, spec in enumerate(specs) if spec.startswith("smooth-quant{"))
    assert "far=0.05" in specs[smooth]
    assert smooth < specs.index("quantize{weights=-1}")
    # Kernels of other precisions either quantize everything as they run, or nothing.
    others = (p for p in target.quantization if p != "w8a8")
    assert {target.quantization[p].answers for p in others} == {""}
