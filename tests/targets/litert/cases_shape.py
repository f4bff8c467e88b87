"""Operators that place elements, gather and scatter: all exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.graphs import GraphBuilder
from tests.targets.litert.case import EXACT, Build, Case, accumulated, noise, seeded

__all__ = ["CASES"]

Shape = tuple[int, ...]


def _concat(g: GraphBuilder, axis: int) -> list[str]:
    shape = (2, 3, 4, 5)
    other = tuple(7 if i == axis else d for i, d in enumerate(shape))
    z = g.input("z", other)
    return [g.op("Concat", g.input("x", shape), z, g.const(noise(*shape)), axis=axis)]


def _split(g: GraphBuilder, sizes: list[int]) -> list[str]:
    g.op("Split", g.input("x", (2, 6, 4)), g.ints(sizes), axis=1, out=("a", "b"))
    return ["a", "b"]


def _slice(
    g: GraphBuilder, shape: Shape, starts: list[int], ends: list[int], axes: list[int],
    steps: list[int],
) -> list[str]:  # fmt: skip
    operands = [g.ints(v) for v in (starts, ends, axes, steps)]
    return [g.op("Slice", g.input("x", shape), *operands)]


def _pad(g: GraphBuilder, shape: Shape, pads: list[int], mode: str, fill: float) -> list[str]:
    return [g.op("Pad", g.input("x", shape), g.ints(pads), g.const(fill), mode=mode)]


def _shaped(g: GraphBuilder, op: str, shape: Shape, target: list[int]) -> list[str]:
    return [g.op(op, g.input("x", shape), g.ints(target))]


def _with(g: GraphBuilder, op: str, shape: Shape, **attrs: Any) -> list[str]:
    return [g.op(op, g.input("x", shape), **attrs)]


def _chain(g: GraphBuilder) -> list[str]:
    """Reshapes that split axes unevenly, so that some must be computed."""
    x = g.op("Transpose", g.input("x", (2, 6, 4)), perm=[2, 0, 1])
    x = g.op("Transpose", g.op("Reshape", x, g.ints([8, 6])), perm=[1, 0])
    x = g.op("Transpose", g.op("Reshape", x, g.ints([4, 12])), perm=[1, 0])
    return [g.op("Relu", x)]


def _deep(g: GraphBuilder) -> list[str]:
    """More factors than TRANSPOSE has axes."""
    x = g.input("x", (2, 2, 2, 2, 2, 2))
    x = g.op("Transpose", x, perm=[5, 3, 1, 0, 2, 4])
    x = g.op("Transpose", g.op("Reshape", x, g.ints([4, 16])), perm=[1, 0])
    return [g.op("Transpose", g.op("Reshape", x, g.ints([2, 8, 2, 2])), perm=[3, 1, 0, 2])]


def _gather(g: GraphBuilder, axis: int, indices: Any) -> list[str]:
    which = g.const(indices, dtype=np.int64)
    return [g.op("Gather", g.input("x", (3, 4, 5)), which, axis=axis)]


def _computed(g: GraphBuilder, op: str, **attrs: Any) -> list[str]:
    """Computed indices, some of them negative."""
    one = g.const(1, dtype=np.int64)
    indices = g.op("Sub", g.input("i", (2, 2), np.int64), one)
    return [g.op(op, g.input("x", (3, 4, 5)), indices, **attrs)]


def _embedding(g: GraphBuilder) -> list[str]:
    return [g.op("Gather", g.const(noise(5, 4)), g.input("i", (2, 3), np.int64), axis=0)]


def _gather_nd(g: GraphBuilder) -> list[str]:
    return [g.op("GatherND", g.input("x", (3, 4, 5)), g.const([[0, 1], [2, -1]],
                                                              dtype=np.int64))]  # fmt: skip


def _gather_elements(g: GraphBuilder) -> list[str]:
    indices = g.const([[0, 1, -1], [2, 0, 1]], dtype=np.int64)
    return [g.op("GatherElements", g.input("x", (3, 4)), indices, axis=1)]


def _scatter_nd(g: GraphBuilder) -> list[str]:
    indices = g.const([[0, 1], [2, -1]], dtype=np.int64)
    return [g.op("ScatterND", g.input("x", (3, 4, 5)), indices, g.input("u", (2, 5)))]


_SLICES: tuple[tuple[Shape, list[int], list[int], list[int], list[int]], ...] = (
    ((4, 5, 6), [1, 2], [3, 6], [0, 2], [1, 1]),
    ((4, 5, 6), [0, 1], [5, 6], [1, 2], [2, 3]),
    ((4, 5, 6), [4], [-10], [1], [-1]),
    ((4, 5, 6), [3, 0], [0, 3], [0, 2], [-2, 1]),
    ((2, 3, 4, 5, 2), [1], [3], [3], [1]),
    ((2, 3, 8, 6), [1, 0], [8, 6], [2, 3], [2, 2]),
    ((2, 3, 7, 6), [1, 0], [7, 6], [2, 3], [2, 2]),
)


def _repeated(g: GraphBuilder, source: str, dtype: Any = np.float32) -> list[str]:
    """Two outputs that repeat an input, a constant or another output."""
    x = g.input("x", (2, 3, 4, 5), dtype)
    again = {"input": x, "output": x, "constant": ""}[source]
    if source == "output":
        conv: dict[str, Any] = {
            "strides": [1, 1],
            "pads": [0] * 4,
            "dilations": [1, 1],
            "group": 1,
        }
        weight = g.const(noise(6, 3, 1, 1))
        again = g.op("Conv", x, weight, kernel_shape=[1, 1], **conv)
    if source == "constant":
        again = g.const(noise(2, 3, 4, 20) * 9, dtype=dtype)
    copies = [g.op("Identity", again), g.op("Identity", again)]
    return (
        [*copies, again]
        if source == "output"
        else [*copies, g.op("Transpose", x, perm=[3, 0, 2, 1])]
    )


def _to_scalar(g: GraphBuilder) -> list[str]:
    """What is left of a reduction over all axes."""
    rest = g.op("ReduceMax", g.input("x", (2, 3)), g.ints([0, 1]), keepdims=1)
    return [g.op("Reshape", rest, g.ints([]))]


def _scalar(g: GraphBuilder) -> list[str]:
    """An input and a constant without axes."""
    return [g.op("Identity", g.input("x", ())), g.op("Identity", g.const(2.5))]


def _builds() -> dict[str, Build]:
    builds: dict[str, Build] = {
        "split-even": seeded(_split, [3, 3]),
        "split-uneven": seeded(_split, [2, 4]),
        "pad-value": seeded(_pad, (2, 3, 4), [0, 1, 2, 0, 0, 1], "constant", 1.5),
        "pad-rank-5": seeded(_pad, (2, 1, 2, 3, 4), [0, 1, 2, 0, 0, 0, 0, 0, 0, 1],
                             "constant", 0.0),
        "expand": seeded(_shaped, "Expand", (3, 1), [2, 3, 4]),
        "expand-rank-5": seeded(_shaped, "Expand", (1, 2, 1, 3), [2, 2, 2, 4, 3]),
        "tile": seeded(_shaped, "Tile", (2, 1, 3), [1, 3, 2]),
        "identity-scalar": _scalar,
        "reshape-to-scalar": _to_scalar,
        "reshape": seeded(_shaped, "Reshape", (2, 6), [3, 4]),
        "transpose-rank-6": seeded(_with, "Transpose", (2, 3, 2, 3, 2, 3),
                                   perm=[5, 0, 4, 1, 3, 2]),
        "transpose-rank-5": seeded(_with, "Transpose", (2, 3, 4, 3, 2),
                                   perm=[4, 0, 2, 1, 3]),
        "transpose-ones": seeded(_with, "Transpose", (1, 3, 1, 4), perm=[2, 1, 0, 3]),
        "chain": _chain,
        "deep": _deep,
        "depth-to-space-dcr": seeded(_with, "DepthToSpace", (2, 12, 3, 4), blocksize=2,
                                     mode="DCR"),
        "depth-to-space-crd": seeded(_with, "DepthToSpace", (2, 12, 3, 4), blocksize=2,
                                     mode="CRD"),
        "space-to-depth": seeded(_with, "SpaceToDepth", (2, 3, 4, 6), blocksize=2),
        "embedding": _embedding,
        "gather-nd": _gather_nd,
        "gather-nd-computed": seeded(_computed, "GatherND"),
        "gather-elements": _gather_elements,
        "scatter-nd": _scatter_nd,
    }  # fmt: skip
    for dtype in (np.float32, np.int32, np.int64, np.bool_, np.uint8):
        for source in ("input", "constant"):
            name = f"identity-{source}-{np.dtype(dtype).name}"
            builds[name] = seeded(_repeated, source, dtype)
    for axis in range(4):
        builds[f"concat-{axis}"] = seeded(_concat, axis)
    for i, how in enumerate(_SLICES):
        builds[f"slice-{i}"] = seeded(_slice, *how)
    for mode in ("constant", "reflect", "edge"):
        pads = [0, 1, 2, 0, 0, 0, 1, 2]
        builds[f"pad-{mode}"] = seeded(_pad, (2, 3, 4, 5), pads, mode, 0.0)
    for axis in range(3):
        builds[f"gather-row-{axis}"] = seeded(_gather, axis, [2, 0, -1])
        builds[f"gather-one-{axis}"] = seeded(_gather, axis, 1)
        builds[f"gather-table-{axis}"] = seeded(_gather, axis, [[0, 1], [2, -1]])
        builds[f"gather-computed-{axis}"] = seeded(_computed, "Gather", axis=axis)
    return builds


CASES = {name: Case(build, EXACT) for name, build in _builds().items()}
CASES["identity-output"] = Case(seeded(_repeated, "output"), accumulated(3))
