"""Shared kernels of a network that was trained with them, kept as functions of our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.convshare import TokenProduct, token_product
from edgevit.passes.facts import attr, given, operand, static
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.nodewise import NodePass, Result
from edgevit.passes.remove_dead import RemoveDead
from edgevit.pipeline import Effect, Outcome
from edgevit.rewrite import Builder, Refused

__all__ = ["TrainedConvShare"]

_VALID = (0, 0, 0, 0)


@dataclass(frozen=True)
class TrainedConvShare(NodePass):
    """Layers that were trained as a few kernels shared by all tokens, kept as ``SharedConv``.

    ``Conv(Reshape(x, [T, c, a, b]), K [n, c, k, l], bias)``
    ->  ``ai.edgevit.SharedConv(x, K, bias)``, whose body is these two operators

    The cheap form of ConvShareViT (arXiv 2504.11517): a token holds ``c`` pictures of ``a`` x
    ``b`` features, and every token meets the same ``n`` kernels, valid or same padded. A
    linear layer is refused: its weight is not made of shared kernels, and only training
    makes it so.

    1. A convolution of one group, stride and dilation 1, with constant kernels of more than
       one tap and a constant bias or none.
    2. It is padded with nothing (valid) or so that pictures keep their size (same).
    3. It reads a ``Reshape`` that makes tokens its batch: more pictures than x has entries
       along its first axis.
    """

    name: ClassVar[str] = "trained-convshare"
    effect: ClassVar[Effect] = Effect.TRAINED
    ops: ClassVar[frozenset[str]] = frozenset({"Conv", "MatMul"})

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Keep a shared layer, refuse a linear one."""
        if node.op_type == "MatMul":
            return _refusal(node)
        tiles = _tiles(node)
        if tiles is None or not _is_shared(node):
            return None
        source, tile = tiles
        kernel, bias = operand(node, 1), given(node, 2)
        if bias is None:
            stored = constant(kernel)
            assert stored is not None  # case 1
            bias = op.constant(np.zeros(len(stored), stored.dtype))
        return op.op(
            "SharedConv",
            [source, kernel, bias],
            {"tile": tile, "pads": attr(node, "pads", _VALID)},
            domain=DOMAIN,
            shape=node.outputs[0].shape,
            dtype=node.outputs[0].dtype,
        )

    def call(self, model: ir.Model) -> Outcome:
        """Visit every node, then define the function and drop what was replaced."""
        done = super().call(model)
        if done.modified:
            ensure_function(model, "SharedConv")
            RemoveDead().call(model)
        return done


def _tiles(conv: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """The tokens, and the shape of their pictures (case 3)."""
    pictures = operand(conv, 0)
    reshape, tile = pictures.producer(), static(pictures)
    if reshape is None or reshape.op_type != "Reshape" or tile is None or len(tile) != 4:
        return None
    source = operand(reshape, 0)
    shape = static(source)
    if not shape or tile[0] <= shape[0]:
        return None
    return source, tile


def _is_shared(conv: ir.Node) -> bool:
    """Cases 1 and 2."""
    kernel, bias = constant(operand(conv, 1)), given(conv, 2)
    if kernel is None or kernel.ndim != 4 or kernel.dtype.kind != "f":
        return False
    if bias is not None and constant(bias) is None:
        return False
    expected: dict[str, Any] = {
        "strides": (1, 1),
        "dilations": (1, 1),
        "group": 1,
        "auto_pad": "NOTSET",
    }
    found = {key: attr(conv, key, value) for key, value in expected.items()}
    found |= {key: tuple(found[key]) for key in ("strides", "dilations")}
    taps = kernel.shape[2:]
    same = (*((n - 1) // 2 for n in taps), *(n // 2 for n in taps))
    pads = tuple(attr(conv, "pads", _VALID))
    return found == expected and max(taps) > 1 and pads in (_VALID, same)


def _refusal(node: ir.Node) -> Refused | None:
    site = token_product(node)
    if not isinstance(site, TokenProduct) or site.tokens < 2:
        return None
    features, outputs = site.weight.shape
    return Refused(
        f"{features} -> {outputs} features by {site.weight.size} weights of its own, not by "
        f"kernels that tokens share: train the network with shared kernels "
        f"(examples/convshare_training); project-convshare gives the nearest kernels and "
        f"their error, convshare the exact form with {outputs} kernels"
    )
