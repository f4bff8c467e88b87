"""Replay: each value computed from the reference's own inputs; a fault shows where it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevit.backend import Lowered
from edgevit.errors import ArtifactError
from edgevit.reference import run_reference
from edgevit.runtimes.coreml import CoreMLEngine
from edgevit.targets.coreml.lower import CoreMLBackend
from edgevit.targets.coreml.package import WEIGHTS
from tests.targets.coreml.harness import (
    Array,
    Case,
    lower,
    model_path,
    spec_of,
    with_file,
    write,
)
from tests.targets.coreml.test_package import small

# 64 terms at most, sum|terms| <= 8 max|y|, 16 for the transcendental function (u = 2^-24).
LIMIT = (8 * 64 + 16) * 2.0**-24


@pytest.fixture(scope="module")
def values() -> dict[str, Array]:
    """Every value of the small model, computed by ONNX Runtime."""
    case = small()
    found = run_reference(case.proto().SerializeToString(), [case.feeds()], trace=1)
    return {**case.feeds(), **found.traces[0], **found.outputs[0]}


def errors(lowered: Lowered, values: dict[str, Array], folder: Path) -> dict[str, float]:
    """Source value -> largest error over max|reference|, each from the reference's inputs."""
    cut = CoreMLBackend().replay(lowered)
    package = write(cut, folder)
    feeds = {b.artifact: values[b.name].astype(b.artifact_dtype) for b in cut.part.inputs}
    with CoreMLEngine().open(package, cut.part, threads=None) as executor:
        found = executor.run(feeds)
    return {
        b.name: float(
            np.abs(found[b.artifact].astype(np.float64) - values[b.name]).max()
            / np.abs(values[b.name]).max()
        )
        for b in cut.part.outputs
    }


def test_replay_has_every_mapped_value_on_both_sides() -> None:
    lowered = lower(small().model(), "fp16")
    cut = CoreMLBackend().replay(lowered)
    names = [b.name for b in lowered.values]
    assert [b.name for b in cut.part.inputs] == ["x", *names]
    assert [b.name for b in cut.part.outputs] == names
    spec = spec_of(cut)
    assert [f.name for f in spec.description.input] == [b.artifact for b in cut.part.inputs]
    assert [f.name for f in spec.description.output] == [b.artifact for b in cut.part.outputs]
    assert (
        cut.files[f"{cut.part.artifact}/{WEIGHTS}"]
        is (lowered.files[f"{lowered.part.artifact}/{WEIGHTS}"])
    )


@pytest.mark.parametrize(("precision", "limit"), [("fp32", LIMIT), ("fp16", 0.01)])
def test_a_sound_program_has_no_error_anywhere(
    precision: str, limit: float, values: dict[str, Array], tmp_path: Path
) -> None:
    found = errors(lower(small().model(), precision), values, tmp_path)
    assert list(found) == ["c", "r", "t", "n", "a", "y"]
    assert max(found.values()) <= limit


def test_corrupt_weights_show_at_the_value_they_make(
    values: dict[str, Array], tmp_path: Path
) -> None:
    lowered = lower(small().model(), "fp32")
    path = f"{lowered.part.artifact}/{WEIGHTS}"
    weight = small().constants["w"].tobytes()
    assert lowered.files[path].count(weight) == 1
    stale = with_file(
        lowered, path, lowered.files[path].replace(weight, weight[:-4] + b"\0\0\0\x40")
    )
    found = errors(stale, values, tmp_path)
    assert [name for name, error in found.items() if error > LIMIT] == ["c"]


def test_a_wrong_mode_shows_at_the_value_it_makes(
    values: dict[str, Array], tmp_path: Path
) -> None:
    lowered = lower(small().model(), "fp32")
    spec = spec_of(lowered)
    function = spec.mlProgram.functions["main"]
    for op in function.block_specializations[function.opset].operations:
        strings = (
            op.attributes["val"].immediateValue.tensor.strings if op.type == "const" else None
        )
        if strings is not None and list(strings.values) == ["EXACT"]:
            strings.values[0] = "TANH_APPROXIMATION"
    wrong = with_file(lowered, model_path(lowered), spec.SerializeToString(deterministic=True))
    found = errors(wrong, values, tmp_path)
    assert [name for name, error in found.items() if error > LIMIT] == ["y"]


def test_a_debug_map_of_another_program_is_an_error() -> None:
    lowered = lower(small().model(), "fp32")
    stranger = replace(lowered.values[0], artifact="nowhere")
    with pytest.raises(ArtifactError, match="nowhere"):
        CoreMLBackend().replay(replace(lowered, values=(stranger,)))


def test_a_bool_output_is_mapped_as_the_tensor_that_leaves(tmp_path: Path) -> None:
    case = Case("g", "(float[2,3] a, float[2,3] b) => (bool[2,3] y) { y = Greater(a, b) }", ())
    lowered = lower(case.model(), "fp16")
    (binding,) = lowered.values
    assert binding == lowered.part.outputs[0]
    assert (binding.dtype, binding.artifact_dtype) == ("bool", "int32")
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    values = {"a": a, "b": np.full_like(a, 3.0), "y": a > 3}
    for cut in (CoreMLBackend().replay(lowered), CoreMLBackend().expose(lowered)):
        package = write(cut, tmp_path / cut.part.artifact)
        feeds = {b.artifact: values[b.name].astype(b.artifact_dtype) for b in cut.part.inputs}
        with CoreMLEngine().open(package, cut.part, threads=None) as executor:
            (found,) = executor.run(feeds).values()
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, values["y"])
