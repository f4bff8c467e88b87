"""What is no canonical form of an operator is refused, not lowered as if it were."""

from __future__ import annotations

import pytest

from edgevit.targets.litert.tables import refusal
from tests.passes.harness import build, f32, only

QKV = "float[1,2,5,4] q, float[1,2,5,4] k, float[1,2,5,4] v"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("scale = 0.5", None),
        ("scale = 0.5, is_causal = 1", "is_causal"),
        ("scale = 0.5, softcap = 2.0", "softcap"),
    ],
)
def test_attention(attributes: str, reason: str | None) -> None:
    signature = f"{QKV} => float[1,2,5,4] y"
    model = build(signature, f"y = Attention <{attributes}> (q, k, v)")
    found = refusal(only(model, "Attention"))
    assert found is None if reason is None else reason in (found or "")


def test_a_boolean_mask_is_refused() -> None:
    signature = f"{QKV}, bool[1,1,5,5] m => float[1,2,5,4] y"
    model = build(signature, "y = Attention <scale = 0.5> (q, k, v, m)")
    assert "the mask is bool" in (refusal(only(model, "Attention")) or "")


@pytest.mark.parametrize(("axis", "fits"), [(1, True), (-1, True), (0, False), (-2, False)])
def test_normalization_over_the_last_axis_only(axis: int, fits: bool) -> None:
    body = f"y = RMSNormalization <axis = {axis}> (x, s)"
    model = build("float[3,4] x => float[3,4] y", body, {"s": f32(1.0, 2.0, 3.0, 4.0)})
    assert (refusal(only(model, "RMSNormalization")) is None) == fits
