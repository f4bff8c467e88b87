"""Layers with power-of-two weights and attention with 0/1 codes, trained straight through.

ShiftAddViT (You et al., NeurIPS 2023) trains both. In the forward pass the numbers are those
that are exported; in the backward pass rounding and thresholds are taken for the identity
(the straight-through estimator, Bengio et al., arXiv 1308.3432).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["BinaryAttention", "ShiftConv2d", "ShiftLinear", "binarized", "snapped"]

# A weight is 0 or +-2^(e + k), k = 0..TOP, e one exponent for each output channel.
TOP = 6
# Means of frozen thresholds follow batches this fast, as in batch norm.
MOMENTUM = 0.1
_TINY = 1e-30


def exponents(weight: Tensor) -> Tensor:
    """The exponent e of each output channel ``[out, 1, ..]``: its largest weight is a code."""
    peak = weight.detach().flatten(1).abs().amax(1).clamp_min(_TINY)
    return (torch.floor(torch.log2(peak / 1.5)) + 1 - TOP).reshape(
        -1, *[1] * (weight.ndim - 1)
    )


def shifts(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Integers 0, +-1, +-2, .. +-64 in the shape of ``weight``, and the exponents.

    The nearest of the grid: from 1.5 * 2^k on the next power of two is nearer.
    """
    e = exponents(weight)
    ratio = weight.detach().abs() * torch.exp2(-e)
    k = (torch.floor(torch.log2(ratio.clamp_min(_TINY) / 1.5)) + 1).clamp(0, TOP)
    q = torch.where(ratio < 0.5, torch.zeros_like(ratio), torch.exp2(k))
    return weight.detach().sign() * q, e


def snapped(weight: Tensor) -> Tensor:
    """``weight`` as powers of two; its gradient goes straight through."""
    q, e = shifts(weight)
    return weight + (q * torch.exp2(e) - weight).detach()


class ShiftLinear(nn.Linear):  # type: ignore[misc] # torch is absent where mypy runs
    """A linear layer whose weights are one power of two each."""

    @classmethod
    def of(cls, linear: nn.Linear) -> ShiftLinear:
        """The same layer with its weights rounded; parameters are copied."""
        made = cls(linear.in_features, linear.out_features, linear.bias is not None)
        made.load_state_dict(linear.state_dict())
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``[.., in]`` -> ``[.., out]``."""
        return nn.functional.linear(x, snapped(self.weight), self.bias)


class ShiftConv2d(nn.Conv2d):  # type: ignore[misc] # torch is absent where mypy runs
    """A convolution whose weights are one power of two each."""

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ShiftConv2d:
        """The same layer with its weights rounded; parameters are copied."""
        made = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
        )
        made.load_state_dict(conv.state_dict())
        return made

    def forward(self, x: Tensor) -> Tensor:
        """``[n, in, h, w]`` -> ``[n, out, h', w']``."""
        return self._conv_forward(x, snapped(self.weight), self.bias)


def binarized(x: Tensor, threshold: Tensor) -> Tensor:
    """``1[x - threshold > 0]``; the gradient is that of ``x`` within 1 of the threshold.

    The released code passes it on above the threshold only, where a code that became 0 has
    no way back.
    """
    soft = (x - threshold).clamp(-1, 1)
    return soft + ((x > threshold).to(x.dtype) - soft).detach()


class BinaryAttention(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    """Linear attention whose queries and keys are 0/1 codes, in the place of softmax.

    ``A = kb^T v``, ``o = v / 2 + qb A / pi``, ``y = o / |o| + DWConv(v)`` for each head, with
    ``qb = 1[q / |q| > mean]`` and ``kb`` alike. The mean is over batch, heads and tokens while
    training; its running average is the frozen threshold afterwards, as a compiler needs it.

    Args:
        heads: Heads.
        layers: ``qkv``, or ``q`` and ``kv``: the projections of the attention it replaces.
        proj: Its last layer.
        taps: Kernel of the convolution over tokens.

    Attributes:
        frozen: Whether evaluation uses the running averages; else each batch's own mean, as
            the paper's code does.
    """

    def __init__(
        self, heads: int, layers: dict[str, nn.Module], proj: nn.Module, taps: int = 9
    ) -> None:
        super().__init__()
        self.heads, self.frozen = heads, True
        self.layers = nn.ModuleDict(layers)
        self.proj = proj
        self.conv = nn.Conv2d(
            heads, heads, (taps, 1), padding=(taps // 2, 0), groups=heads, bias=False
        )
        nn.init.zeros_(self.conv.weight)
        self.register_buffer("thresholds", torch.zeros(2))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values ``[n, heads, tokens, d]``."""
        parts = torch.cat([layer(x) for layer in self.layers.values()], dim=-1)
        n, tokens, _ = x.shape
        q, k, v = parts.reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def threshold(self, unit: Tensor, which: int) -> Tensor:
        """The mean of normalized queries (0) or keys (1): of the batch, or the frozen one."""
        if not self.training:
            return self.thresholds[which] if self.frozen else unit.mean()
        mean = unit.mean()
        with torch.no_grad():
            self.thresholds[which].lerp_(mean.detach().float(), MOMENTUM)
        return mean

    def _codes(self, unit: Tensor, threshold: Tensor) -> Tensor:
        if self.training:
            return binarized(unit, threshold)
        return (unit > threshold).to(unit.dtype)

    def forward(self, x: Tensor, *_: object) -> Tensor:
        """``[n, tokens, dim]`` -> the same. Further arguments (a feature size) are unused."""
        q, k, v = self.projected(x)
        q, k = (t / t.norm(dim=-1, keepdim=True).clamp_min(1e-12) for t in (q, k))
        qb, kb = (self._codes(t, self.threshold(t, i)) for i, t in enumerate((q, k)))
        o = 0.5 * v + (qb @ (kb.transpose(-2, -1) @ v)) / math.pi
        o = o / o.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        o = o + self.conv(v)
        return self.proj(o.transpose(1, 2).flatten(2))
