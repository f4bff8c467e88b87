"""Attention and products of two activations against numpy, and mutants of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgevit.targets.tvm.kernels.attention import Attention, Heads, Mask
from edgevit.targets.tvm.kernels.batched import Batched, Matrices
from edgevit.targets.tvm.kernels.epilogue import PLAIN, Activation, Epilogue
from edgevit.targets.tvm.machine import MACHINES, Machine
from tests.support.tvm_kernels import caller, here, share_always
from tests.support.tvm_mutants import drop_tail, keep_sums
from tests.support.tvm_reference import EPSILON, excess, finished, sum_bound

Array = np.ndarray[Any, Any]

# Batch, heads, heads of K and V, queries, keys, depth, width, mask.
ATTENTION = [
    (1, 1, 1, 1, 1, 1, 1, ""),
    (1, 3, 3, 31, 197, 64, 64, ""),
    (2, 4, 2, 7, 5, 3, 9, "all"),
    (2, 2, 2, 13, 70, 20, 70, "all"),
    (1, 2, 1, 5, 33, 16, 16, "keys"),
    (3, 2, 2, 4, 64, 36, 17, "heads"),
]


def attention(machine: Machine, sizes: tuple[Any, ...]) -> Attention:
    """Tokens outside, heads inside, as a linear layer leaves them; V behind K."""
    b, h, g, s, t, d, e, mask = sizes

    def lying(tokens: int, heads: int, width: int) -> Heads:
        return Heads(tokens * heads * width, width, heads * width)

    masks = {
        "": None,
        "all": Mask(Heads(h * s * t, s * t, t)),
        "keys": Mask(Heads(t, 0, 0)),
        "heads": Mask(Heads(0, 1, 0), column=0),
    }
    q, k, v, o = lying(s, h, d), lying(t, g, d), lying(t, g, e), lying(s, h, e)
    return Attention(machine, b, h, g, s, t, d, e, 0.3, q, k, v, o, masks[mask])


def attended(q: Array, k: Array, v: Array, mask: Array | float) -> tuple[Array, Array]:
    """Of [B, N, H, D] in float64, and a bound of float32's error."""
    scores = 0.3 * np.einsum("bshd,bthd->bhst", q, k)
    sizes = 0.3 * np.einsum("bshd,bthd->bhst", np.abs(q), np.abs(k))
    scores = scores + mask
    # Errors of a score: the sum, the scale, the mask, the largest one's subtraction.
    off = sum_bound(q.shape[-1] + 1, sizes).max(-1) + 3 * EPSILON * np.abs(scores).max(-1)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    exact = np.einsum("bhst,bthe->bshe", p, v)
    # Exponentials are off by 2^-22, twice (sum and weight), and the sums of keys come on top.
    relative = 2 * (2 * off + 2.0**-22 + k.shape[1] * EPSILON)
    spread = np.einsum("bhst,bthe->bshe", p, np.abs(v))
    return exact, relative.transpose(0, 2, 1)[..., None] * spread


def attention_error(sizes: tuple[Any, ...], machine: Machine) -> float:
    b, h, g, s, t, d, e, name = sizes
    kernel = attention(machine, sizes)
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.standard_normal(shape, dtype=np.float32)
        for shape in ((b, s, h, d), (b, t, g, d), (b, t, g, e))
    )
    shape = {"": (0,), "all": (b, h, s, t), "keys": (b, 1, 1, t), "heads": (1, h, 1, 1)}[name]
    mask = rng.standard_normal(shape, dtype=np.float32)
    got = caller(kernel, machine)(q, k, v, *([mask] if name else [])).reshape(b, s, h, e)
    keys, values = (np.repeat(x, h // g, axis=2).astype(np.float64) for x in (k, v))
    want, bound = attended(q.astype(np.float64), keys, values, mask if name else 0.0)
    return excess(got, want, bound)


@pytest.mark.parametrize("sizes", ATTENTION, ids=str)
def test_attention_equals_numpy(sizes: tuple[Any, ...]) -> None:
    assert attention_error(sizes, here()) <= 1


def test_keys_that_are_masked_out_do_not_count() -> None:
    sizes = (1, 1, 1, 2, 20, 4, 6, "all")
    rng = np.random.default_rng(0)
    q, k, v = (
        rng.standard_normal((1, n, 1, w), dtype=np.float32)
        for n, w in ((2, 4), (20, 4), (20, 6))
    )
    mask = np.zeros((2, 20), np.float32)
    mask[0, 3:], mask[1, :17] = -np.inf, np.finfo(np.float32).min
    got = caller(attention(here(), sizes), here())(q, k, v, mask).reshape(1, 2, 1, 6)
    for row, kept in ((0, slice(0, 3)), (1, slice(17, 20))):
        one, keys, values = (
            x.astype(np.float64) for x in (q[:, row : row + 1], k[:, kept], v[:, kept])
        )
        want, bound = attended(one, keys, values, 0.0)
        assert excess(got[:, row : row + 1], want, bound) <= 1


def test_attention_shared_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    share_always(monkeypatch)
    assert attention_error(ATTENTION[3], here()) <= 1


@pytest.mark.skipif("avx2" not in here().features, reason="no AVX2 here")
def test_attention_with_vectors_of_eight() -> None:
    assert attention_error(ATTENTION[3], MACHINES["x86-64-v3"]) <= 1


@pytest.mark.parametrize("mutate", [drop_tail, keep_sums], ids=lambda m: m.__name__)
def test_mutants_of_attention_are_rejected(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    assert attention_error(ATTENTION[3], here()) > 1


# Batch, M, K, N, axes along which A and B repeat, whether B's rows are the neighbors.
PRODUCTS = [
    ((), 1, 1, 1, "", "", False),
    ((3,), 7, 5, 21, "", "", False),
    ((3,), 7, 5, 21, "", "", True),
    ((2, 3), 13, 19, 66, "0", "1", True),
    ((2, 3), 4, 17, 9, "1", "0", True),
    ((2, 2), 9, 33, 40, "01", "", False),
]


def product_error(sizes: tuple[Any, ...], machine: Machine, epilogue: Epilogue) -> float:
    batch, m, k, n, a_repeats, b_repeats, turned = sizes
    rng = np.random.default_rng(0)

    def made(repeats: str, rows: int, columns: int) -> tuple[Array, tuple[int, ...]]:
        sizes = [1 if str(i) in repeats else x for i, x in enumerate(batch)]
        x = rng.standard_normal((*sizes, rows, columns), dtype=np.float32)
        return x, tuple(
            0 if str(i) in repeats else s // 4 for i, s in enumerate(x.strides[:-2])
        )

    a, a_steps = made(a_repeats, m, k)
    b, b_steps = made(b_repeats, *((n, k) if turned else (k, n)))
    residual, c_steps = made("", m, n)
    kernel = Batched(
        machine, batch, m, n, k,
        Matrices(a_steps, k), Matrices(b_steps, *((1, k) if turned else (n, 1))),
        Matrices(c_steps, n), epilogue,
    )  # fmt: skip
    extra = (residual,) if epilogue.residual else ()
    got = caller(kernel, machine)(a, b, *extra).reshape(residual.shape)
    wide = np.swapaxes(b, -1, -2) if turned else b
    left, right = a.astype(np.float64), wide.astype(np.float64)
    bound = sum_bound(k, np.abs(left) @ np.abs(right))
    return excess(got, *finished(epilogue, left @ right, bound, {"residual": residual}))


ADDED = Epilogue(residual=True, residual_first=True, activation=Activation("relu"))


@pytest.mark.parametrize("sizes", PRODUCTS, ids=str)
def test_products_equal_numpy(sizes: tuple[Any, ...]) -> None:
    assert product_error(sizes, here(), PLAIN if sizes[1] == 7 else ADDED) <= 1


def test_products_shared_by_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    share_always(monkeypatch)
    assert product_error(PRODUCTS[3], here(), ADDED) <= 1


@pytest.mark.parametrize("mutate", [drop_tail, keep_sums], ids=lambda m: m.__name__)
def test_mutants_of_products_are_rejected(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    assert product_error(PRODUCTS[3], here(), ADDED) > 1
