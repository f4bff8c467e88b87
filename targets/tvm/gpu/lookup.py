"""Looking up and putting in order: an element or a line a thread, rarely on a hot path."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from edgevit.targets.tvm.gpu.body import kept, number, only_if, registers, set_register
from edgevit.targets.tvm.gpu.elements import Write
from edgevit.targets.tvm.kernels.search import ArgMax, CumSum, Pick, Put, TopK, address

__all__ = ["LOOKUPS"]


def _pick(one: Pick, buffers: Sequence[Any], index: Any) -> None:
    out, x, indices = buffers
    row, n = index // one.inner, index % one.inner
    source = row // one.rows * math.prod(one.dims) + address(indices, row, one.dims)
    set_register(out, x[source * one.inner + n], index)


def _put(one: Put, buffers: Sequence[Any], index: Any) -> None:
    """A thread has a column of all rows: of equal indices the last one stays."""
    out, updates, indices = buffers
    with T.serial(0, one.rows) as j:
        target = address(indices, j, one.dims)
        set_register(out, updates[j * one.inner + index], target * one.inner + index)


def _line(one: ArgMax | CumSum, index: Any) -> Any:
    return index // one.inner * (one.length * one.inner) + index % one.inner


def _cumsum(one: CumSum, buffers: Sequence[Any], index: Any) -> None:
    out, x = buffers
    total = registers(1)
    set_register(total, tirx.const(0.0, "float32"))
    with T.serial(0, one.length) as i:
        where = (one.length - 1 - i) if one.reverse else i
        at = _line(one, index) + where * one.inner
        if one.exclusive:
            set_register(out, total[0], at)
        set_register(total, total[0] + x[at])
        if not one.exclusive:
            set_register(out, total[0], at)


def _argmax(one: ArgMax, buffers: Sequence[Any], index: Any) -> None:
    out, x = buffers
    start = _line(one, index)
    best, where = registers(1), registers(1, "int32")
    set_register(best, x[start])
    set_register(where, number(0))
    with T.serial(0, one.length) as i:
        value = kept(x[start + i * one.inner])
        with only_if(value >= best[0] if one.last else value > best[0]):
            set_register(best, value)
            set_register(where, i)
    set_register(out, where[0].astype("int64"), index)


def _topk(one: TopK, buffers: Sequence[Any], index: Any) -> None:
    """The scratch holds marks of one line: one thread goes through all of them."""
    values, indices, x, taken = buffers
    del index
    with T.serial(0, one.outer) as o:
        with T.serial(0, one.length) as i:
            set_register(taken, number(0), i)
        with T.serial(0, one.count) as k:
            where = registers(1, "int32")
            set_register(where, number(-1))
            with T.serial(0, one.length) as i:
                now = x[o * one.length + i]
                best = x[o * one.length + tirx.max(number(0), where[0])]
                better = now > best if one.largest else now < best
                free = tirx.EQ(taken[i], 0)
                with only_if(tirx.all(free, tirx.any(where[0] < 0, better))):
                    set_register(where, i)
            set_register(taken, number(1), where[0])
            set_register(values, x[o * one.length + where[0]], o * one.count + k)
            set_register(indices, where[0].astype("int64"), o * one.count + k)


LOOKUPS: dict[type, tuple[Callable[[Any], int], Write]] = {
    ArgMax: (lambda k: k.outer * k.inner, _argmax),
    CumSum: (lambda k: k.outer * k.inner, _cumsum),
    Pick: (lambda k: k.batch * k.rows * k.inner, _pick),
    Put: (lambda k: k.inner, _put),
    TopK: (lambda _: 1, _topk),
}
