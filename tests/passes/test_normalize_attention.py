from __future__ import annotations

import math

import numpy as np
import pytest

from edgevit.passes.normalize_attention import NormalizeAttention
from tests.passes.harness import (
    U,
    apply,
    build,
    check_same,
    difference,
    only,
    operators,
    reasons,
)

RNG = np.random.default_rng(7)
FLAT = "float[2,5,24] q, float[2,5,24] k, float[2,5,12] v => float[2,5,12] y"
DEEP = "float[2,3,5,8] q, float[2,3,5,8] k, float[2,3,5,4] v => float[2,3,5,4] y"
HEADS = "q_num_heads=3, kv_num_heads=3"
MASK = RNG.normal(size=(5, 5)).astype(np.float32)
KEEP = RNG.random((5, 5)) < 0.6
KEEP[:, 0] = True
# As in the tests of recover-attention: scores up to 36, values up to 6.
LIMIT = (6 + math.sqrt(8)) * 2 * U * 36 * 6


@pytest.mark.parametrize(
    ("signature", "node", "scale"),
    [
        (FLAT, f"Attention<{HEADS}>(q, k, v)", 1 / math.sqrt(8)),
        (FLAT, f"Attention<{HEADS}, scale=0.5>(q, k, v, mask)", 0.5),
        (FLAT, f"Attention<{HEADS}, is_causal=1>(q, k, v)", 1 / math.sqrt(8)),
        (DEEP, "Attention(q, k, v)", 1 / math.sqrt(8)),
        (DEEP, "Attention<is_causal=1>(q, k, v, mask)", 1 / math.sqrt(8)),
        (DEEP, "Attention(q, k, v, keep)", 1 / math.sqrt(8)),
    ],
)
def test_forms(signature: str, node: str, scale: float) -> None:
    model = build(signature, f"y = {node}", {"mask": MASK, "keep": KEEP})
    check_same(NormalizeAttention(), model, LIMIT)
    new = only(model, "Attention")
    assert set(new.attributes) == {"scale"}
    assert new.attributes.get_float("scale", 0.0) == pytest.approx(scale, rel=1e-6)
    assert all(v is not None and len(v.shape or ()) == 4 for v in new.inputs[:3])
    assert operators(model).get("Reshape", 0) == (4 if signature == FLAT else 0)


@pytest.mark.parametrize(
    ("signature", "node", "reason"),
    [
        (DEEP, "Attention<softcap=5.0>(q, k, v)", "softcap is 5"),
        (DEEP, "Attention<softmax_precision=1>(q, k, v)", "softmax_precision"),
        (
            DEEP.replace(
                "float[2,3,5,8] k, float[2,3,5,4] v", "float[2,1,5,8] k, float[2,1,5,4] v"
            ),
            "Attention(q, k, v)",
            "3 heads of queries, 1 of keys",
        ),
        (DEEP.replace("=>", ", bool[5,5] m =>"), "Attention(q, k, v, m)", "not a constant"),
        (DEEP, "Attention(q, k, v, none)", "may look at no key"),
    ],
)
def test_refusals(signature: str, node: str, reason: str) -> None:
    model = build(signature, f"y = {node}", {"none": np.zeros((5, 5), np.bool_)})
    outcome = apply(NormalizeAttention(), model)
    assert not outcome.modified
    assert reason in reasons(outcome)


def test_the_oracle_sees_causality_lost() -> None:
    causal = build(DEEP, "y = Attention<is_causal=1>(q, k, v)")
    plain = build(DEEP, "y = Attention(q, k, v)")
    assert difference(causal, plain) > 10 * LIMIT
