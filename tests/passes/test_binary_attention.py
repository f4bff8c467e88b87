"""Attention of 0/1 codes is recognized as it is exported, its thresholds frozen on data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import FreezeThresholds, KeepFloat, dump, parse
from edgevit.errors import UsageError
from edgevit.passes.binary_attention import BinaryAttention
from edgevit.passes.order import canonicalize
from edgevit.pipeline import Context, Effect
from tests.passes.harness import build, f32, i64, operators, run

Array = np.ndarray[Any, Any]
SIGNATURE = "float[1,2,9,4] q, float[1,2,9,4] k, float[1,2,9,4] v => float[1,2,9,4] y"
UNIT = """
{x}n = ReduceL2 <keepdims = 1> ({x}, last)
{x}c = Max ({x}n, tiny)
{x}u = Div ({x}, {x}c)
"""
CODES = """
{x}m = {mean}
{x}g = Greater ({x}u, {x}m)
{x}b = Cast <to = 1> ({x}g)
"""
REST = """
kt = Transpose <perm = [0, 1, 3, 2]> (kb)
a = MatMul (kt, v)
p = MatMul (qb, a)
m = Div (p, pi)
h = Mul (v, half)
o = Add (h, m)
on = ReduceL2 <keepdims = 1> (o, last)
oc = Max (on, tiny)
u = Div (o, oc)
near = Conv <group = 2, pads = [4, 0, 4, 0]> (v, w)
y = Add (u, near)
"""


def model(
    mean: str = "ReduceMean <keepdims = 0> ({x}u)",
    pi: float = np.pi,
    half: float = 0.5,
    rest: str = REST,
) -> ir.Model:
    body = "".join(
        UNIT.format(x=x) + CODES.format(x=x, mean=mean.format(x=x)) for x in ("q", "k")
    )
    weight = np.random.default_rng(0).normal(size=(2, 1, 9, 1)).astype("f4")
    numbers = {"pi": f32(pi), "half": f32(half), "tiny": f32(1e-12), "t": f32(0.1)}
    made = build(SIGNATURE, body + rest, {**numbers, "last": i64(-1), "w": weight})
    canonicalize(made)
    return made


@dataclass(frozen=True)
class Samples:
    count: int = 3
    name: str = "made"
    synthetic: bool = False

    def digest(self) -> str:
        return "0"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        rng = np.random.default_rng(1)
        for _ in range(self.count):
            yield {n: rng.normal(0.2, 1, (1, 2, 9, 4)).astype("f4") for n in ("q", "k", "v")}


CONTEXT = Context(Samples(), None, "fp32")


def means() -> list[float]:
    """Of normalized queries and keys, over samples."""
    found = []
    for name in ("q", "k"):
        units = [s[name] / np.linalg.norm(s[name], axis=-1, keepdims=True) for s in Samples()]
        found.append(float(np.mean([u.mean() for u in units])))
    return found


def test_thresholds_are_the_means_over_calibration_samples() -> None:
    made = model()
    (edit,) = BinaryAttention().plan(made, CONTEXT)
    assert isinstance(edit, FreezeThresholds)
    assert np.allclose([edit.query, edit.key], means(), atol=1e-6)
    ((spec, edits),) = parse(npz(dump([("binary-attention", (edit,))])))
    assert (spec, edits) == ("binary-attention", (edit,))
    before = made.clone()
    done = BinaryAttention().perform(made, edits)
    assert operators(made) == {"BinaryLinearAttention": 1}
    assert done.modified
    assert BinaryAttention.effect is Effect.TRAINED
    # On one sample with its own means as thresholds, nothing changes at all.
    sample = next(iter(Samples()))
    own = Context(Samples(1), None, "fp32")
    exact = before.clone()
    BinaryAttention().perform(exact, BinaryAttention().plan(exact, own))
    gap = np.abs(run(exact, sample)[0] - run(before, sample)[0]).max()
    assert gap < 1e-5
    assert np.abs(run(made, sample)[0] - run(before, sample)[0]).max() > 1e-3


def npz(arrays: dict[str, Array]) -> bytes:
    import io

    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


def test_constant_thresholds_need_no_data() -> None:
    made = model(mean="Identity (t)")
    (edit,) = BinaryAttention().plan(made, Context(None, None, "fp32"))
    assert isinstance(edit, FreezeThresholds)
    assert np.allclose([edit.query, edit.key], 0.1)


def test_thresholds_of_the_data_need_calibration() -> None:
    with pytest.raises(UsageError, match="binary-attention needs calibration data"):
        BinaryAttention().plan(model(), Context(None, None, "fp32"))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (model(pi=3.0), "is scaled by 0.333333, expected 0.31831"),
        (model(half=0.4), "what is added to it is not v / 2"),
        (model(mean="ReduceMean <keepdims = 1> ({x}u, last)"), "neither a constant nor"),
        (model(rest=REST.replace("Conv <group = 2, pads = [4, 0, 4, 0]> (v, w)", "Neg (v)")),
         "is not the result of Conv"),
        (model(rest=REST.replace("MatMul (kt, v)", "MatMul (kt, q)")), "is not v / 2"),
    ],
    ids=["pi", "half", "row means", "no convolution", "other values"],
)  # fmt: skip
def test_what_nearly_is_one_is_refused_with_what_differs(made: ir.Model, reason: str) -> None:
    (edit,) = BinaryAttention().plan(made, CONTEXT)
    assert isinstance(edit, KeepFloat)
    assert reason in edit.reason
    before = ir.to_proto(made).SerializeToString()
    done = BinaryAttention().perform(made, (edit,))
    assert not done.modified
    assert done.refusals[0].reason == edit.reason
    assert ir.to_proto(made).SerializeToString() == before


def test_softmax_attention_is_refused_and_told_how_to_be_trained() -> None:
    body = """
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    s = MatMul (q, kt)
    p = Softmax <axis = -1> (s)
    y = MatMul (p, v)
    """
    made = build(SIGNATURE, body)
    canonicalize(made)
    done = BinaryAttention().call(made)
    assert not done.modified
    assert "softmax attention: only training" in done.refusals[0].reason
    assert "examples/shiftadd_training" in done.refusals[0].reason
