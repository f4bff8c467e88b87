"""What cannot be lowered is refused with the reason, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from edgevit.target import load_target
from edgevit.targets.litert.lower import LiteRTBackend
from tests.support.graphs import GraphBuilder
from tests.targets.litert.case import noise

Build = Callable[[GraphBuilder], Sequence[str]]

_WINDOW: dict[str, Any] = {
    "kernel_shape": [3, 3],
    "strides": [2, 2],
    "pads": [0] * 4,
    "dilations": [1, 1],
}


def _norm(g: GraphBuilder, *used: str) -> list[str]:
    x = g.input("x", (2, 3, 4))
    g.op("LayerNormalization", x, g.const(noise(4)), g.const(noise(4)), axis=2,
         out=("y", "mean"))  # fmt: skip
    return ["y", *used]


def _norm_read(g: GraphBuilder) -> list[str]:
    _norm(g)
    return ["y", g.op("Relu", "mean")]


def _max_pool(g: GraphBuilder, outs: Sequence[str], **how: Any) -> list[str]:
    g.op("MaxPool", g.input("x", (1, 3, 8, 8)), out=outs, **{**_WINDOW, **how})
    return list(outs)


def _average_pool(g: GraphBuilder, counted: int, ceil: int, size: int = 8) -> list[str]:
    x = g.input("x", (1, 3, size, size))
    how: dict[str, Any] = {**_WINDOW, "count_include_pad": counted, "ceil_mode": ceil}
    return [g.op("AveragePool", x, **how)]


def _empty_part(g: GraphBuilder) -> list[str]:
    parts = ("a", "b")
    g.op("Split", g.input("x", (2, 7, 3)), g.ints([7, 0]), axis=1, out=parts)
    return [g.op("Concat", *parts, axis=1)]


def _attention(g: GraphBuilder, heads: int, kv: int) -> list[str]:
    q = g.input("q", (1, heads, 4, 5))
    k, v = g.input("k", (1, kv, 7, 5)), g.input("v", (1, kv, 7, 6))
    g.like("y", (1, heads, 4, 6))
    g.op("Attention", q, k, v, scale=0.3, out="y")
    return [g.op("Relu", "y")]


def _reasons(build: Build) -> list[str]:
    """What the backend says of the graph's nodes."""
    graph = GraphBuilder()
    nodes = graph.model(*build(graph)).graph
    backend, target = LiteRTBackend(), load_target("linux-x86")
    found = (backend.unsupported(node, target, "fp32") for node in nodes)
    return [reason for reason in found if reason is not None]


REFUSED: dict[str, tuple[Build, str]] = {
    "norm-mean-output": (lambda g: _norm(g, "mean"), "output 'mean' is used"),
    "norm-mean-read": (_norm_read, "output 'mean' is used"),
    "pool-indices": (lambda g: _max_pool(g, ("y", "i")), "output 'i' is used"),
    "pool-dilated": (lambda g: _max_pool(g, ("y",), dilations=[2, 2]), "dilations (2, 2)"),
    "pool-past-counted": (lambda g: _average_pool(g, 1, 1), "past the counted pads"),
    "empty": (_empty_part, "value 'b' of shape (2, 0, 3) has no elements"),
    "heads": (lambda g: _attention(g, 3, 2), "3 heads do not share 2 keys"),
}

ALLOWED: dict[str, Build] = {
    "norm-mean-unused": lambda g: _norm(g),
    "pool-alone": lambda g: _max_pool(g, ("y",)),
    "pool-counted-fits": lambda g: _average_pool(g, 1, 1, size=9),
    "pool-not-counted": lambda g: _average_pool(g, 0, 1),
    "heads-shared": lambda g: _attention(g, 4, 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str) -> None:
    build, expected = REFUSED[name]
    reasons = _reasons(build)
    assert any(expected in reason for reason in reasons), reasons


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_like_it_and_can_be_lowered_is_not_refused(name: str) -> None:
    assert _reasons(ALLOWED[name]) == []
