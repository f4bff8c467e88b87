"""The cheap form of ConvShareViT without training: a least-squares fit, and its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.errors import UsageError
from edgevit.model import constant
from edgevit.passes.convshare import TokenProduct, reshaped, squarest, token_product
from edgevit.passes.nodewise import NodePass, Result
from edgevit.pipeline import Change, Effect, Outcome
from edgevit.rewrite import Builder, Refused

__all__ = ["ProjectConvShare", "fit", "toeplitz"]

Array = np.ndarray[Any, Any]


def fit(weight: Array, height: int, width: int, kernel: int) -> Array:
    """The same-padded kernel nearest to a square weight in the Frobenius norm.

    ``y[o] = sum over i of K[i - o + p] x[i]`` (i, o: pixels of a ``height`` x ``width`` tile):
    each tap's least-squares value is the mean of the weights that it stands for.

    Args:
        weight: ``[d, d]``, ``d = height * width``, input features first.
        height: Of the tile.
        width: Of the tile.
        kernel: Odd size.

    Returns:
        ``[kernel, kernel]`` float64.
    """
    half = kernel // 2
    down, right = _offsets(height, width)
    found = np.zeros((kernel, kernel))
    for y in range(-half, half + 1):
        for x in range(-half, half + 1):
            here = (down == y) & (right == x)
            found[y + half, x + half] = weight[here].mean() if here.any() else 0.0
    return found


def toeplitz(kernel: Array, height: int, width: int) -> Array:
    """The weight ``[d, d]`` of a same-padded kernel: the oracle of the fit."""
    half = kernel.shape[0] // 2
    down, right = _offsets(height, width)
    inside = (np.abs(down) <= half) & (np.abs(right) <= half)
    taps = kernel[np.clip(down + half, 0, 2 * half), np.clip(right + half, 0, 2 * half)]
    return np.where(inside, taps, 0.0)


def _offsets(height: int, width: int) -> tuple[Array, Array]:
    """Row and column distance of every input pixel to every output pixel, ``[d, d]``."""
    y, x = np.divmod(np.arange(height * width), width)
    return y[:, None] - y[None, :], x[:, None] - x[None, :]


@dataclass(frozen=True)
class ProjectConvShare(NodePass):
    """Linear layers projected onto a few same-padded kernels shared by all tokens.

    ``MatMul(x [.., d], W [d, n d])``
    ->  ``Reshape(Conv(Reshape(x, [T, 1, a, b]), K [n, 1, k, k]), [.., n d])``

    ConvShareViT (arXiv 2504.11517) trains such kernels; this is the nearest one to a weight
    that was trained otherwise, with ``k^2`` numbers for ``d^2``. Each change reports the
    relative error ``|W - W'| / |W|``: expect it to be close to 1, for nothing makes a trained
    weight a convolution.

    1. ``W`` is a float constant ``[d, n d]``, and d a tile of at least ``kernel`` pixels
       each way.

    Attributes:
        kernel: Odd size k.
    """

    name: ClassVar[str] = "project-convshare"
    effect: ClassVar[Effect] = Effect.TRAINED
    ops: ClassVar[frozenset[str]] = frozenset({"MatMul"})

    kernel: int = 3

    def __post_init__(self) -> None:
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"{self.name}: expected an odd kernel >= 1, found {self.kernel}")

    def visit(self, node: ir.Node, op: Builder) -> Result:
        """Project one product with a constant matrix."""
        site = token_product(node)  # case 1
        if not isinstance(site, TokenProduct):
            return site
        x, weight, tokens = site.x, site.weight, site.tokens
        d, m = weight.shape
        height, width = squarest(d)
        if m % d or height < self.kernel:
            return Refused(f"{d} -> {m} features are no kernels of a {height} x {width} tile")
        kernels = np.stack(
            [fit(block, height, width, self.kernel) for block in _blocks(weight)]
        )
        count, half = m // d, self.kernel // 2
        tiles = reshaped(op, x, (tokens, 1, height, width))
        attributes = {
            "kernel_shape": (self.kernel, self.kernel),
            "strides": (1, 1),
            "dilations": (1, 1),
            "pads": (half, half, half, half),
            "group": 1,
        }
        stored = op.constant(np.asarray(kernels[:, None], weight.dtype))
        made = op.op(
            "Conv",
            [tiles, stored],
            attributes,
            shape=(tokens, count, height, width),
            dtype=x.dtype,
        )
        return reshaped(op, made, site.out)

    def call(self, model: ir.Model) -> Outcome:
        """Project every layer; changes say how far each weight moved."""
        errors = {str(n.outputs[0].name): self._error(n) for n in model.graph}
        done = super().call(model)
        said = tuple(
            Change(c.rule, c.node, f"relative error of the weight {errors[c.node]:.3f}")
            if errors.get(c.node) is not None
            else c
            for c in done.changes
        )
        return Outcome(done.model, done.modified, said, done.refusals)

    def _error(self, node: ir.Node) -> float | None:
        weight = constant(node.inputs[1]) if node.op_type == "MatMul" else None
        if weight is None or weight.ndim != 2 or weight.shape[1] % weight.shape[0]:
            return None
        size = squarest(weight.shape[0])
        if size[0] < self.kernel:
            return None
        near = [toeplitz(fit(b, *size, self.kernel), *size) for b in _blocks(weight)]
        moved = weight - np.concatenate(near, axis=1)
        return float(np.linalg.norm(moved) / np.linalg.norm(weight))


def _blocks(weight: Array) -> list[Array]:
    d, m = weight.shape
    return [weight[:, start : start + d] for start in range(0, m, d)]
