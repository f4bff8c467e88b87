"""The neural engine's layout: what it becomes, and that it computes the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgevit.targets.coreml.layouts import HEADS, channels
from edgevit.targets.coreml.lower import CoreMLBackend
from tests.targets.coreml.harness import (
    Array,
    Case,
    f32,
    ints,
    lower,
    normal,
    operations,
    write,
)
from tests.targets.coreml.test_numbers import NUMERIC, U16, excess, float32_limit, run
from tests.targets.coreml.test_numbers import expected as expected  # the oracle's fixture

ANE = "layout=ane"


def block(heads: int = 2) -> Case:
    """A transformer block on a 4 x 4 image: convolution, attention, head."""
    width = 8 // heads
    graph = (
        "(float[1,3,8,8] x) => (float[1,5] y) {"
        "c = Conv<kernel_shape = [2,2], strides = [2,2], pads = [0,0,0,0],"
        "dilations = [1,1], group = 1>(x, w) r = Reshape(c, rs)"
        "t = Transpose<perm = [0,2,1]>(r)"
        "n = LayerNormalization<axis = 2, epsilon = 1e-5>(t, s, b)"
        "m = MatMul(n, wq) a = Add(m, bq) q0, k0, v0 = Split<axis = 2>(a, sp)"
        "q1 = Reshape(q0, hs) k1 = Reshape(k0, hs) v1 = Reshape(v0, hs)"
        "q = Transpose<perm = [0,2,1,3]>(q1) k = Transpose<perm = [0,2,1,3]>(k1)"
        "v = Transpose<perm = [0,2,1,3]>(v1) at = Attention<scale = 0.5>(q, k, v)"
        "o1 = Transpose<perm = [0,2,1,3]>(at) o = Reshape(o1, ts) p = MatMul(o, wo)"
        'z = Add(p, t) g = Gelu<approximate = "none">(z)'
        "e = ReduceMean<keepdims = 1>(g, ax) f = Reshape(e, fs) h = MatMul(f, wh)"
        "y = Add(h, bh) }"
    )
    constants = {
        "w": normal(1, 8, 3, 2, 2),
        "rs": ints(1, 8, 16),
        "s": normal(2, 8),
        "b": normal(3, 8),
        "wq": normal(4, 8, 24),
        "bq": normal(5, 24),
        "sp": ints(8, 8, 8),
        "hs": ints(1, 16, heads, width),
        "ts": ints(1, 16, 8),
        "wo": normal(6, 8, 8),
        "ax": ints(1),
        "fs": ints(1, 8),
        "wh": normal(7, 8, 5),
        "bh": normal(8, 5),
    }
    return Case("block", graph, (), constants)


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_float32(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    found = run(lower(case.model(), "fp32", overrides=ANE), case.feeds(), tmp_path)
    for name, reference in expected[case.name].items():
        assert excess(found[name], reference, float32_limit(case)) <= 1


@pytest.mark.parametrize("case", NUMERIC, ids=lambda c: c.name)
def test_float16(case: Case, expected: dict[str, dict[str, Array]], tmp_path: Path) -> None:
    """As in the plain layout; attention rounds its query, scores and weights once more."""
    found = run(lower(case.model(), "fp16", overrides=ANE), case.feeds(), tmp_path)
    for name, reference in expected[case.name].items():
        limit = case.roundings * U16 * 1.01 + float32_limit(case)
        assert excess(found[name], reference, limit) <= 1


def test_a_block_needs_one_transpose_for_its_keys() -> None:
    """Linear layers are convolutions, softmax is over channels, nothing else is moved."""
    found = operations(lower(block().model(), "fp32", io="native", overrides=ANE))
    count = Counter(op.kind for op in found)
    assert count["transpose"] == 1
    assert count["conv"] == 4
    assert count["einsum"] == 4
    assert count["linear"] + count["matmul"] == 0
    # Image to tokens, and the result from [1, 5, 1, 1]: both keep the order of elements.
    assert count["reshape"] == 2
    (norm,) = (op for op in found if op.kind == "layer_norm")
    assert norm.shapes == ((1, 8, 1, 16),)
    assert max(len(shape) for op in found for shape in op.shapes) == 4


def test_the_plain_layout_stays_available() -> None:
    count = Counter(op.kind for op in operations(lower(block().model(), "fp32")))
    assert count["transpose"] == 5
    assert (count["linear"], count["conv"], count["einsum"]) == (3, 1, 0)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads_one_by_one_compute_the_attention(heads: int, tmp_path: Path) -> None:
    case = block(heads)
    plain = run(lower(case.model(), "fp32"), case.feeds(), tmp_path / "plain")["y"]
    found = run(lower(case.model(), "fp32", overrides=ANE), case.feeds(), tmp_path / "ane")[
        "y"
    ]
    assert excess(found, plain, float32_limit(replace(case, reach=64))) <= 1
    swapped = np.roll(case.constants["wq"], 1, axis=1)
    wrong = replace(case, constants={**case.constants, "wq": swapped})
    changed = lower(wrong.model(), "fp32", overrides=ANE)
    other = run(changed, case.feeds(), tmp_path / "wrong")["y"]
    assert excess(other, plain, float32_limit(replace(case, reach=64))) > 1


def test_the_debug_map_says_how_values_lie(tmp_path: Path) -> None:
    """Each mapped tensor, replayed, is the source's value permuted and reshaped."""
    lowered = lower(block().model(), "fp32", overrides=ANE)
    by_name = {b.name: b for b in lowered.values}
    assert (by_name["n"].perm, by_name["n"].artifact_shape) == ((0, 2, 1), (1, 8, 1, 16))
    assert by_name["at"].perm == HEADS.perm
    assert by_name["at"].artifact_shape == (1, 8, 1, 16)
    assert by_name["c"].perm is None
    cut = CoreMLBackend().replay(lowered)
    assert [b.perm for b in cut.part.outputs] == [b.perm for b in lowered.values]
    write(cut, tmp_path)


def test_batched_windows_and_a_mask_per_head(tmp_path: Path) -> None:
    graph = (
        "(float[3,2,4,4] q, float[3,2,6,4] k, float[3,2,6,4] v, float[3,1,4,6] m)"
        "=> (float[3,2,4,4] y, float[3,2,4,4] z)"
        "{ y = Attention<scale = 0.5>(q, k, v, c) z = Attention<scale = 0.5>(q, k, v, m) }"
    )
    case = Case("windows", graph, (), {"c": normal(3, 1, 2, 4, 6)})
    plain = run(lower(case.model(), "fp32"), case.feeds(), tmp_path / "plain")
    found = run(lower(case.model(), "fp32", overrides=ANE), case.feeds(), tmp_path / "ane")
    for name in ("y", "z"):
        assert excess(found[name], plain[name], 64 * 2.0**-24) <= 1


def test_a_view_that_is_a_model_output_keeps_its_name_and_shape(tmp_path: Path) -> None:
    graph = (
        "(float[1,4,6] x) => (float[1,6,4] t, float[24] f, float[1,4,6] r)"
        "{ r = Relu(x) t = Transpose<perm = [0,2,1]>(r) f = Reshape(t, s) }"
    )
    case = Case("views", graph, (), {"s": ints(24)})
    found = run(lower(case.model(), "fp32", overrides=ANE), case.feeds(), tmp_path)
    relu = np.maximum(case.feeds()["x"], 0)
    np.testing.assert_array_equal(found["r"], relu)
    np.testing.assert_array_equal(found["t"], relu.transpose(0, 2, 1))
    np.testing.assert_array_equal(found["f"], relu.transpose(0, 2, 1).reshape(-1))


def test_arranged_constants_broadcast_like_themselves() -> None:
    full = (2, 3, 4, 5)
    rng = np.random.default_rng(3)
    x = rng.normal(size=full)
    for shape in ((5,), (3, 1, 1), (1, 4, 1), (3, 4, 5), (2, 1, 1, 5)):
        constant = f32(rng.normal(size=shape))
        for layout in (HEADS, *channels(4)):
            moved = x.transpose(layout.perm).reshape(layout.shape(full))
            wanted = (x + constant).transpose(layout.perm).reshape(layout.shape(full))
            np.testing.assert_array_equal(moved + layout.arrange(constant, full), wanted)
