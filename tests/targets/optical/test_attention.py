"""Attention nodes of a source model: what light takes, and what is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit import api, registry
from edgevit.bundle import open_bundle
from edgevit.errors import UnsupportedModelError

Array = np.ndarray[Any, Any]
Q, K, V = (1, 2, 7, 5), (1, 2, 9, 5), (1, 2, 9, 3)


def attention(
    path: Path,
    shapes: tuple[tuple[int, ...], ...] = (Q, K, V),
    mask: Array | None = None,
    **attributes: Any,
) -> Path:
    """A model of one attention, whose result is the model's output and is used inside too."""
    inputs = [*"qkv"] if mask is None else [*"qkv", "m"]
    nodes = [
        helper.make_node("Attention", inputs, ["a"], **attributes),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in zip("qkv", shapes, strict=True)
    ]
    out = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "ay"]
    stored = [] if mask is None else [numpy_helper.from_array(mask, "m")]
    graph = helper.make_graph(nodes, "g", info, out, stored)
    opset = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def written_out(feeds: Mapping[str, Array], scale: float, added: Array | float) -> Array:
    """Softmax(scale Q K^T + mask) V in float64."""
    q, k, v = (feeds[n].astype(np.float64) for n in "qkv")
    scores = scale * q @ k.swapaxes(-1, -2) + added
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Array = weights / weights.sum(axis=-1, keepdims=True) @ v
    return found


@pytest.mark.parametrize("engine", ["optical", "optical-wave"])
@pytest.mark.parametrize("options", ["", ",attention=joint"])
@pytest.mark.parametrize("kind", ["plain", "scale", "boolean mask"])
def test_an_attention_may_be_the_output(
    tmp_path: Path, kind: str, options: str, engine: str
) -> None:
    rng = np.random.default_rng(3)
    seen = rng.random(Q[2:3] + K[2:3]) < 0.7
    seen[:, 0] = True
    given: dict[str, dict[str, Any]] = {
        "plain": {},
        "scale": {"scale": 0.3},
        "boolean mask": {"mask": seen},
    }
    out = tmp_path / "m.edgevit"
    model = attention(tmp_path / "m.onnx", **given[kind])
    api.compile(model, target=f"optical-4f:plane=256x256{options}", output=out, verify=False)
    part = open_bundle(out).entries[0].parts[0]
    opened = registry.load("engines", engine)().open(out / part.artifact, part, threads=1)
    feeds = {
        n: rng.standard_normal(s, np.float32) for n, s in zip("qkv", (Q, K, V), strict=True)
    }
    with opened as executor:
        assert [s.mapping for s in executor.program.optical] == [
            "joint-transform" if options else "one-shot"
        ] * 2
        found = executor.run(feeds)
    scale = 0.3 if kind == "scale" else 5**-0.5
    added = np.where(seen, 0.0, -np.inf) if kind == "boolean mask" else 0.0
    want = written_out(feeds, scale, added)
    assert np.abs(found["a"] - want).max() < 1e-5
    assert np.abs(found["y"] - np.maximum(want, 0)).max() < 1e-5
    # Another scale is another function: the tolerance notices a few percent.
    assert np.abs(found["a"] - written_out(feeds, 1.05 * scale, added)).max() > 1e-4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"softcap": 2.0}, "attribute softcap is not canonical"),
        (
            {"shapes": ((1, 4, 7, 5), (1, 2, 7, 5), (1, 2, 7, 5))},
            "as many heads of queries as of keys and values, found 4, 2, 2",
        ),
    ],
)
def test_other_attentions_are_refused_by_name(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    model = attention(tmp_path / "m.onnx", **changed)
    with pytest.raises(UnsupportedModelError, match=message):
        api.compile(model, target="optical-4f:plane=256x256", output=tmp_path / "m.edgevit")


@pytest.mark.parametrize("engine", ["optical", "optical-wave"])
def test_one_computed_matrix_for_all_pictures_is_given_to_light(
    tmp_path: Path, engine: str
) -> None:
    shapes = {"a": (2, 3, 5, 7), "b": (7, 4)}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "m.onnx")
    out = tmp_path / "m.edgevit"
    target = "optical-4f:plane=256x256"
    api.compile(tmp_path / "m.onnx", target=target, output=out, verify=False)
    part = open_bundle(out).entries[0].parts[0]
    rng = np.random.default_rng(4)
    feeds = {n: rng.standard_normal(s, np.float32) for n, s in shapes.items()}
    opened = registry.load("engines", engine)().open(out / part.artifact, part, threads=1)
    with opened as executor:
        (step,) = executor.program.optical
        assert not step.static
        found = executor.run(feeds)["y"]
    want = feeds["a"].astype(float) @ feeds["b"].astype(float)
    assert np.abs(found - want).max() < 1e-5
    assert np.abs(found - want[::-1]).max() > 0.1
