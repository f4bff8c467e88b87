"""A vision transformer whose linear layers are a few kernels shared by all tokens.

ConvShareViT (Ibadulla, Chen, Reyes-Aldasoro, arXiv 2504.11517) replaces the linear layers of
attention and perceptron by depthwise convolutions with one weight for all input channels. Its
layer tables are not public; this is our reading. A token is a channel that holds an 8 x 8
picture of its 64 features, and a layer is ``n`` kernels of 5 x 5 that every token meets:

    layer          valid (8 -> 4)               same (8 -> 8)
    q, k, v        4 heads x 16 features each   4 heads x 64 features each
    projection     1 picture -> 4 x 16          4 pictures -> 1 x 64
    perceptron     1 -> 8 x 16, 2 -> 4 x 16     1 -> 8 x 64, 8 -> 1 x 64

Each head has a kernel of its own for q, k and v. Both paddings have the same kernels (300,
100, 200 and 200 weights a block); a plain transformer of this width has 32,768. An output
pixel of a valid convolution sees 25 features at places that differ from pixel to pixel, and
four kernels fill a token with four views of all of it; a same-padded one moves each feature's
neighborhood to the feature's own place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["KINDS", "ConvShareViT", "Kind", "SharedConv"]

Kind = Literal["valid", "same", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Layer number and attention [n, heads, tokens, tokens] -> the attention that is used.
Change = Callable[[int, Tensor], Tensor]

SIDE, KERNEL = 8, 5
DIM = SIDE * SIDE
HEADS, DEPTH, CLASSES, HIDDEN = 4, 4, 10, 2 * DIM


class SharedConv(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    """``[n, t, maps * 64]`` -> ``[n, t, kernels * side^2]``: every token meets these kernels.

    Args:
        maps: Pictures of 8 x 8 that a token holds; what kernels see of each adds up.
        kernels: How many pictures come out.
        padding: ``valid``: 4 x 4 come out; ``same``: 8 x 8.

    Attributes:
        dense: Multiply by the kernels' Toeplitz matrix, which trains ten times faster on a
            CPU than convolving 50 tiny pictures an image; else convolve, as is exported.
    """

    def __init__(self, maps: int, kernels: int, padding: Literal["valid", "same"]) -> None:
        super().__init__()
        self.maps, self.dense = maps, True
        pad = KERNEL // 2 if padding == "same" else 0
        self.conv = nn.Conv2d(maps, kernels, KERNEL, padding=pad)
        # One lit feature each: what the kernels make of them are the rows of their matrix.
        self.register_buffer("pixels", torch.eye(maps * DIM), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token meet the kernels."""
        n, t, _ = x.shape
        if self.dense:
            pictures = self.pixels.reshape(-1, self.maps, SIDE, SIDE)
            matrix = nn.functional.conv2d(
                pictures, self.conv.weight, padding=self.conv.padding
            ).flatten(1)
            bias = self.conv.bias
            return x @ matrix + bias.repeat_interleave(matrix.shape[1] // len(bias))
        return self.conv(x.reshape(n * t, self.maps, SIDE, SIDE)).reshape(n, t, -1)


def _layers(kind: Kind) -> dict[str, nn.Module]:
    """The four layers of a block."""
    if kind == "linear":
        sizes = {
            "qkv": (DIM, 3 * DIM),
            "proj": (DIM, DIM),
            "widen": (DIM, HIDDEN),
            "narrow": (HIDDEN, DIM),
        }
        return {name: nn.Linear(*size) for name, size in sizes.items()}
    narrow, proj = ((2, 4), (1, 4)) if kind == "valid" else ((8, 1), (4, 1))
    counts = {"qkv": (1, 3 * HEADS), "proj": proj, "widen": (1, 8), "narrow": narrow}
    return {name: SharedConv(*count, kind) for name, count in counts.items()}


class Block(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    """Pre-norm block of multi-head attention and a perceptron of two layers."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.layers = nn.ModuleDict(_layers(kind))
        self.scale = (DIM if kind == "same" else DIM // HEADS) ** -0.5

    def forward(self, x: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return ``[n, t, 64]``; ``change`` may put another attention in place."""
        n, t, _ = x.shape
        qkv = self.layers["qkv"](self.norm1(x)).reshape(n, t, 3, HEADS, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        if change is not None:
            weights = change(weights)
        seen = (weights @ v).transpose(1, 2).reshape(n, t, -1)
        x = x + self.layers["proj"](seen)
        inner = nn.functional.gelu(self.layers["widen"](self.norm2(x)))
        return x + self.layers["narrow"](inner)


class ConvShareViT(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    """The fixture transformer (4 x 4 patches, class token, 4 blocks) with shared kernels.

    Args:
        kind: Padding of the shared kernels, or ``linear`` for the plain transformer.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, DIM, 4, stride=4)
        self.cls = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 50, DIM) * 0.02)
        self.blocks = nn.ModuleList(Block(kind) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, CLASSES)

    def as_convolutions(self) -> None:
        """Compute as the exported network does."""
        for module in self.modules():
            if isinstance(module, SharedConv):
                module.dense = False

    def forward(self, x: Tensor, change: Change | None = None) -> Tensor:
        """Images ``[n, 1, 28, 28]`` -> logits ``[n, 10]``."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat((self.cls.expand(x.size(0), -1, -1), patches), dim=1)
        tokens = tokens + self.positions
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, _bound(change, i))
        return self.head(self.norm(tokens)[:, 0])


def _bound(change: Change | None, layer: int) -> Callable[[Tensor], Tensor] | None:
    return None if change is None else lambda weights: change(layer, weights)
