"""Convolutions larger than the plane, cut into strips: both paths against ONNX Runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.loading import load
from edgevit.partition import coverage
from edgevit.reference import run_reference
from edgevit.sim4f.program import Optical
from edgevit.target import Target, load_target
from edgevit.targets.optical import expand, strips
from edgevit.targets.optical.artifact import program_of
from edgevit.targets.optical.layer import Window

# Sums of at most 100 products of normal numbers, in float32 and through two transforms.
LIMIT = 1e-5
CASES: dict[str, dict[str, Any]] = {
    "rows and columns": {"x": (1, 3, 30, 27), "w": (4, 3, 3, 5), "pads": [1, 2, 1, 2]},
    "rows only": {"x": (1, 2, 40, 9), "w": (3, 2, 5, 3), "pads": [2, 1, 2, 1]},
    "strides": {"x": (1, 2, 33, 31), "w": (3, 2, 3, 3), "pads": [1, 1, 0, 0],
                "strides": [2, 3]},
    "dilations": {"x": (1, 2, 30, 30), "w": (2, 2, 3, 3), "pads": [0, 3, 0, 3],
                  "dilations": [2, 3]},
    "depthwise, a batch": {"x": (2, 4, 25, 25), "w": (4, 1, 3, 3), "pads": [1] * 4,
                           "group": 4},
    "overlapping patches": {"x": (1, 3, 36, 36), "w": (4, 3, 7, 7), "pads": [3] * 4,
                            "strides": [4, 4]},
}  # fmt: skip


def small(rows: int, columns: int) -> Target:
    """The ideal device with planes of a few pixels."""
    target = load_target("optical-4f")
    figures = dict(target.figures)
    for name, value in (("plane_rows", rows), ("plane_columns", columns)):
        figures[name] = figures[name].model_copy(update={"value": value})
    return target.model_copy(update={"figures": figures})


def model_of(case: dict[str, Any], folder: Path) -> tuple[Path, dict[str, Any]]:
    rng = np.random.default_rng(11)
    w = rng.standard_normal(case["w"]).astype(np.float32)
    b = rng.standard_normal(case["w"][0]).astype(np.float32)
    more = {k: v for k, v in case.items() if k not in ("x", "w")}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], **more)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case["x"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    path = folder / "m.onnx"
    onnx.save(made, path)
    return path, {"x": rng.standard_normal(case["x"]).astype(np.float32)}


def errors(case: dict[str, Any], folder: Path) -> tuple[list[float], int]:
    """Largest error of each path over the largest output, and the number of optical steps."""
    path, feeds = model_of(case, folder)
    model = load(path).model
    registry.load_attribute("edgevit.passes.order:canonicalize")(model)
    target, backend = small(16, 18), registry.load("backends", "optical")()
    assert coverage(model, backend, target, "fp32").share == 1.0
    made = backend.lower(model, target, LowerOptions("fp32", "source", "m"))
    for file, content in made.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    expected = run_reference(path.read_bytes(), [feeds]).outputs[0]["y"]
    found = []
    for engine in ("optical", "optical-wave"):
        opener = registry.load("engines", engine)()
        with opener.open(folder / made.part.artifact, made.part, threads=1) as executor:
            y = executor.run(feeds)["y"]
        assert y.shape == expected.shape
        found.append(float(np.abs(y - expected).max() / np.abs(expected).max()))
    steps = program_of(made.files, made.part.artifact).steps
    return found, sum(isinstance(step, Optical) for step in steps)


@pytest.mark.parametrize("name", CASES)
def test_strips_compute_the_convolution(name: str, tmp_path: Path) -> None:
    found, steps = errors(CASES[name], tmp_path)
    assert max(found) < LIMIT
    assert steps > 1


@pytest.mark.parametrize("fault", ["shifted", "padded"])
def test_wrong_strips_give_wrong_numbers(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(node: Any, plane: tuple[int, int]) -> Any:
        found = strips.cuts(node, plane)
        if found is None:
            return None
        rows, columns = found
        inner = rows[1]
        if fault == "shifted":
            inner = replace(inner, begin=inner.begin - 1, end=inner.end - 1)
        else:
            inner = replace(inner, begin=inner.begin + 1, before=1)
        return [(rows[0], inner, *rows[2:]), columns]

    monkeypatch.setattr(expand, "cuts", wrong)
    found, _ = errors(CASES["rows only"], tmp_path)
    assert min(found) > 0.05


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, 200),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 3),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    pixels=st.integers(1, 64),
)
def test_strips_see_what_their_windows_reach(
    size: int, kernel: int, stride: int, dilation: int, before: int, after: int, pixels: int
) -> None:
    reach = (kernel - 1) * dilation
    if size + before + after < reach + 1:
        return
    out = (size + before + after - reach - 1) // stride + 1
    window = Window(size, kernel, stride, dilation, before, out)
    found = strips.strips(window, pixels)
    if found is None:
        return
    assert sum(one.out for one in found) == out
    first = 0
    for one in found:
        # Positions of the strip's windows, from its own beginning and from the picture's.
        inside = np.arange(one.out) * stride - one.before + one.begin
        assert (
            inside.tolist() == (np.arange(first, first + one.out) * stride - before).tolist()
        )
        last = inside[-1] + reach + 1
        assert one.end == min(size, last)
        assert one.after == last - one.end
        assert one.begin == max(0, inside[0])
        own = Window(one.end - one.begin, kernel, stride, dilation, one.before, one.out)
        assert own.pitch <= pixels
        first += one.out


def test_a_kernel_larger_than_the_plane_is_refused() -> None:
    window = Window(100, kernel=20)
    assert strips.strips(window, 19) is None
    assert strips.strips(window, 20) is not None
