"""Whole networks through the optical target, on the ideal device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.optical_exactness import find, images, opened
from edgevit import registry
from edgevit.backend import Lowered, LowerOptions
from edgevit.bundle import Part
from edgevit.errors import ArtifactError, InputError
from edgevit.loading import load
from edgevit.partition import coverage
from edgevit.placement import place
from edgevit.reference import run_reference
from edgevit.sim4f.program import Electronic, Optical
from edgevit.target import load_target
from edgevit.targets.optical.artifact import program_of
from edgevit.targets.optical.lower import OpticalBackend

LIMIT = 1e-4
TARGET = "optical-4f:plane=256x256"


@pytest.fixture(scope="module", params=["fashion_vit_ts", "fashion_hybrid_ts"])
def network(request: pytest.FixtureRequest) -> tuple[str, Any]:
    model = load(find(request.param), {}).model.clone()
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    return request.param, model


def lowered_of(model: Any, target: str = TARGET) -> Lowered:
    backend = registry.load("backends", "optical")()
    made: Lowered = backend.lower(
        model, load_target(target), LowerOptions("fp32", "source", "m")
    )
    return made


def run(made: Lowered, folder: Path, engine: str, feeds: Any) -> Any:
    for file, content in made.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    part = made.part
    opener = registry.load("engines", engine)()
    with opener.open(folder / part.artifact, part, threads=1) as executor:
        return executor.run(feeds)


@pytest.mark.parametrize("engine", ["optical", "optical-wave"])
def test_both_paths_compute_the_network(
    network: tuple[str, Any], engine: str, tmp_path: Path
) -> None:
    name, model = network
    sample = images(name, list(model.graph.inputs), 1)[0]
    expected = run_reference(find(name).read_bytes(), [sample]).outputs[0]["logits"]
    found = run(lowered_of(model), tmp_path, engine, sample)["logits"]
    assert np.abs(found - expected).max() < LIMIT * np.abs(expected).max()


def test_the_artifact_is_deterministic_and_stores_each_weight_once(
    network: tuple[str, Any],
) -> None:
    _, model = network
    first, second = lowered_of(model), lowered_of(model)
    assert first.files == second.files
    weights = sum(
        int(np.prod(v.shape.numpy()))
        for v in model.graph.initializers.values()
        if v.shape is not None and v.dtype is not None and v.dtype.name == "FLOAT"
    )
    assert len(first.files["m.4f/weights.npz"]) < 4 * weights * 1.2 + 40_000


def test_light_takes_every_product_and_nothing_else(network: tuple[str, Any]) -> None:
    _, model = network
    made = lowered_of(model)
    program = program_of(made.files, made.part.artifact)
    counted = {op: sum(n.op_type == op for n in model.graph) for op in ("MatMul", "Conv")}
    attention = sum(n.op_type == "Attention" for n in model.graph)
    assert len(program.optical) == sum(counted.values()) + 2 * attention
    assert any(isinstance(s, Electronic) for s in program.steps)
    assert all(isinstance(s, Optical | Electronic) for s in program.steps)


def lit(model: Any, target: str = TARGET) -> tuple[set[str], set[str]]:
    """Values that placement gives to light, and those that steps of light are named after."""
    placed = place(model, load_target(target))
    made = lowered_of(model, target)
    steps = {step.name for step in program_of(made.files, made.part.artifact).optical}
    return {p.node for p in placed if p.unit == "OPTICS"}, steps & {p.node for p in placed}


def test_placement_is_what_light_computes(network: tuple[str, Any]) -> None:
    placed, computed = lit(network[1])
    assert placed == computed
    assert placed


def products() -> Any:
    """``x W`` is a layer; ``V x`` has its stored operand on the left: electronics."""
    x = ir.val("x", ir.DataType.FLOAT, [4, 4])
    w = ir.val("w", ir.DataType.FLOAT, [4, 4])
    w.const_value = ir.tensor(np.eye(4, dtype=np.float32), name="w")
    right = ir.node("MatMul", [x, w], name="right")
    left = ir.node("MatMul", [w, right.outputs[0]], name="left")
    for node, name in ((right, "right"), (left, "left")):
        out = node.outputs[0]
        out.name, out.shape, out.dtype = name, ir.Shape([4, 4]), ir.DataType.FLOAT
    graph = ir.Graph(
        [x], [left.outputs[0]], nodes=[right, left], initializers=[w], name="g",
        opset_imports={"": 20},
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def test_a_product_that_stays_electronic_is_not_placed_on_light(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lit(products()) == ({"right"}, {"right"})
    # An answer that goes by the operator's name is wrong.
    monkeypatch.setattr(OpticalBackend, "unit", lambda *_: "OPTICS")
    assert lit(products()) == ({"left", "right"}, {"right"})


def test_replaying_reads_what_is_fed(network: tuple[str, Any], tmp_path: Path) -> None:
    """With zeros for every value, a step with no bias gives zero: nothing of its own."""
    _, model = network
    backend = registry.load("backends", "optical")()
    cut = backend.replay(lowered_of(model))
    feeds = {b.artifact: np.zeros(b.shape, b.dtype) for b in cut.part.inputs}
    found = run(cut, tmp_path, "optical", feeds)
    assert set(found) == {b.artifact for b in cut.part.outputs}
    products = [n for n in model.graph if n.op_type == "MatMul"]
    assert products
    for node in products:
        assert not found[f"{node.outputs[0].name}.replayed"].any()


def test_a_small_plane_is_a_coverage_failure_with_the_inequality() -> None:
    """Kernels of 3 x 3 do not fit a plane of 2 x 2, however it is cut."""
    model = load(find("fashion_hybrid_ts"), {}).model.clone()
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    target = load_target(TARGET)
    tiny = target.model_copy(update={"options": {"plane": "2x2"}})
    backend = registry.load("backends", "optical")()
    found = coverage(model, backend, tiny, "fp32").fallback
    assert found
    assert "expected kernel along y <= plane, found 3 <= 2 px" in found[0].reason


def test_bad_artifacts_and_inputs_are_refused(tmp_path: Path) -> None:
    engine = registry.load("engines", "optical")()
    part = Part("optical", "m.4f", (), ())
    with pytest.raises(ArtifactError, match="program"):
        engine.open(tmp_path / "m.4f", part, threads=1)
    _, executor = opened(find("fashion_vit_ts"), tmp_path, TARGET, "optical", 1)
    with executor, pytest.raises(InputError, match="expected float32"):
        executor.run({"x": np.zeros((1, 1, 28, 28))})
    with pytest.raises(InputError, match="closed"):
        executor.run({"x": np.zeros((1, 1, 28, 28), np.float32)})
