"""Strided loop nests against numpy's own views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.targets.tvm.context import Context, Waiting
from edgevit.targets.tvm.kernels.pointwise import Apply, In
from edgevit.targets.tvm.machine import native
from edgevit.targets.tvm.ops_movement import axis_part
from edgevit.targets.tvm.program import Ref
from edgevit.targets.tvm.strides import Held, dense, loops, refined, split
from edgevit.targets.views import View
from tests.support.native import kernels

Array = np.ndarray[Any, Any]


def _call(ctx: Context, given_arrays: dict[Any, Array]) -> dict[Any, Array]:
    """Run a context's program on numpy arrays, tensor by tensor."""
    blocks = dict(given_arrays)
    jobs = []
    for step in ctx.program.steps:
        arrays = []
        for operand, ref in zip(step.kernel.operands, step.refs, strict=True):
            whole = blocks.setdefault(ref.tensor, np.zeros(ref.tensor.size, ref.tensor.dtype))
            arrays.append(whole[ref.offset : ref.offset + operand.size])
        jobs.append((step.kernel, arrays))
    kernels(native(), jobs)
    return blocks


def _seen(held: Held, blocks: dict[Any, Array], shape: tuple[int, ...]) -> Array:
    flat = blocks[held.tensor][held.offset :]
    factors = [f for axis in held.view.axes for f in axis]
    view = np.lib.stride_tricks.as_strided(
        flat, [s for s, _ in factors], [t * flat.itemsize for _, t in factors]
    )
    return np.array(view).reshape(shape)


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((5, 7, 33), (2, 0, 1)), ((2, 3, 4, 5), (0, 2, 3, 1)), ((1, 40), (1, 0)), ((3,), (0,))],
)
def test_transposed_sum(shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """x.transpose(perm) + y, for y that lies as the result does."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape).astype(np.float32)
    after = tuple(shape[p] for p in perm)
    y = rng.standard_normal(after).astype(np.float32)
    ctx = Context(native())
    tx, ty = ctx.new("x", x.size), ctx.new("y", y.size)
    hx = Held(tx, 0, dense(shape).transpose(perm))
    hy = Held(ty, 0, dense(after))
    sum_ = Apply("add", (In(0), In(1)))
    made = ctx.force(Waiting(sum_, (hx, hy), after, "float32"), "sum")
    blocks = _call(ctx, {tx: x.ravel(), ty: y.ravel()})
    found = _seen(made, blocks, after)
    assert np.array_equal(found, x.transpose(perm) + y)
    if min(shape) > 1 and len(shape) > 1:  # where order matters, another order is noticed
        assert not np.array_equal(found, x.reshape(after) + y)


def test_reading_a_part_of_an_axis() -> None:
    x = np.arange(2 * 10 * 3, dtype=np.float32).reshape(2, 10, 3)
    ctx = Context(native())
    tensor = ctx.new("x", x.size)
    part = axis_part(ctx, Held(tensor, 0, dense(x.shape)), x.shape, 1, 1, 4, 2)
    made = ctx.copied(part, (2, 4, 3), None)
    blocks = _call(ctx, {tensor: x.ravel()})
    assert np.array_equal(_seen(made, blocks, (2, 4, 3)), x[:, 1:9:2])


def test_broadcasting_and_fusion_make_one_call() -> None:
    ctx = Context(native())
    x = ctx.new("x", 12)
    row = ctx.program.constant("row", np.arange(4, dtype=np.float32))
    hx, hrow = Held(x, 0, dense((3, 4))), Held(row, 0, dense((4,)))
    both = Apply("relu", (Apply("sub", (In(0), In(1))),))
    made = ctx.force(Waiting(both, (hx, hrow), (3, 4), "float32"), "y")
    assert len(ctx.program.steps) == 1
    values = np.arange(12, dtype=np.float32)
    blocks = _call(ctx, {x: values, row: ctx.program.array(row)})
    expected = np.maximum(values.reshape(3, 4) - np.arange(4), 0)
    assert np.array_equal(_seen(made, blocks, (3, 4)), expected)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), st.data())
def test_loops_walk_every_operand_alike(shape: list[int], data: st.DataObject) -> None:
    """The factors of two operands, cut alike, address what numpy's views address."""
    perm = data.draw(st.permutations(range(len(shape))))
    lying = [shape[p] for p in perm]
    back = tuple(int(i) for i in np.argsort(perm))
    one, two = dense(shape), dense(lying).transpose(back)
    cut = loops(shape, [one, two])
    assert cut is not None
    _, (first, second) = cut
    assert [s for s, _ in first] == [s for s, _ in second]
    sizes = [s for s, _ in second]
    grid = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), int)
    addresses = sum((g * t for g, (_, t) in zip(grid, second, strict=True)), np.zeros(1, int))
    expected = np.arange(int(np.prod(shape))).reshape(lying).transpose(back).ravel()
    assert np.array_equal(np.broadcast_to(addresses, expected.shape), expected)


def test_factors_that_do_not_divide_have_no_common_loops() -> None:
    assert refined([[(4, 1)], [(6, 1)]]) is None
    assert refined([[(4, 3)], [(2, 2), (2, 1)]]) == (2, 2)
    assert split([(6, 1)], [4]) is None
    odd = View((((2, 1), (3, 2)),))
    assert loops((6,), [odd, View((((3, 1), (2, 3)),))]) is None


def test_a_call_that_reaches_past_a_tensor_is_refused() -> None:
    ctx = Context(native())
    x, y = ctx.new("x", 4), ctx.new("y", 3)
    waiting = Waiting(In(0), (Held(x, 0, dense((4,))),), (4,), "float32")
    with pytest.raises(ValueError, match="does not fit"):
        ctx.force(waiting, "y", Held(y, 0, dense((4,))))
    assert Ref(x).offset == 0
