"""A mixture of a multiplication and a shift expert, and the loss that balances their load.

ShiftAddViT's latency-aware loss is ``L_IMP + L_LOAD`` with

    L_IMP  = SCV({alpha_i sum_x p_i(x)}),   L_LOAD = SCV({alpha_i sum_x q_i(x)}),
    alpha_i = Lat_i / sum_j Lat_j,          SCV = variance / mean^2,

``p = softmax(x W)`` and ``q_i`` the probability that expert i stays the best when its own
noise is drawn again. Both vanish where tokens go as 1 / latency. In the released code no
gradient reaches the router (the gate is one whatever it says); here the output carries the
gate's gradient, ``y = E(x) (1 + p - stop(p))``, which changes no number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Mixture", "balance_loss", "capacity", "importance_and_load", "scv"]

MULTIPLY, SHIFT = 0, 1


def scv(values: Tensor) -> Tensor:
    """Squared coefficient of variation, ``variance / mean^2`` over all elements."""
    return values.var(unbiased=False) / values.mean().square()


def capacity(tokens: int, latencies: tuple[float, float]) -> int:
    """Tokens of the multiplication expert when both experts take equally long."""
    multiply, shift = latencies
    return round(tokens * shift / (multiply + shift))


def importance_and_load(logits: Tensor, noisy: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """``sum_x p_i(x)`` and ``sum_x q_i(x)`` of both experts.

    Args:
        logits: ``[tokens, 2]``.
        noisy: The same with noise, by which experts were chosen.
        noise: Standard deviation of each expert's noise.
    """
    importance = logits.softmax(-1).sum(0)
    margin = (logits - noisy.flip(-1)) / noise
    return importance, (0.5 * (1 + torch.erf(margin / math.sqrt(2)))).sum(0)


def balance_loss(
    logits: Tensor, noisy: Tensor, noise: float, latencies: tuple[float, float]
) -> Tensor:
    """``L_IMP + L_LOAD``: zero where tokens go as 1 / latency."""
    alpha = torch.tensor(latencies, dtype=logits.dtype, device=logits.device)
    alpha = alpha / alpha.sum()
    importance, load = importance_and_load(logits, noisy, noise)
    return scv(alpha * importance) + scv(alpha * load)


class Mixture(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    """Each token goes through one of two experts.

    Args:
        multiply: The expert with weights of its own.
        shift: The expert with power-of-two weights, of the same shape.
        dim: Features of a token.
        latencies: Of both, in any unit.

    Attributes:
        noise: Standard deviation of the noise on logits while training; the training loop
            lowers it, so that what is balanced is in the end what is chosen without noise.
        fixed: Whether evaluation sends the best ``capacity`` tokens of each sample to the
            multiplication expert, as a compiled network does; else each token its best.
        balance: Of the last training batch.
        load: Share of tokens whose best expert multiplies, of the last batch.
    """

    def __init__(
        self, multiply: nn.Module, shift: nn.Module, dim: int, latencies: tuple[float, float]
    ) -> None:
        super().__init__()
        self.multiply, self.shift = multiply, shift
        self.router = nn.Linear(dim, 2)
        nn.init.normal_(self.router.weight, std=0.02)
        nn.init.zeros_(self.router.bias)
        self.latencies = latencies
        self.noise, self.fixed = 1.0, True
        self.balance: Tensor | None = None
        self.load: Tensor | None = None

    def score(self, x: Tensor) -> Tensor:
        """How much a token should be multiplied, ``[n, tokens]``."""
        weight, bias = self.router.weight, self.router.bias
        return x @ (weight[MULTIPLY] - weight[SHIFT]) + (bias[MULTIPLY] - bias[SHIFT])

    def forward(self, x: Tensor) -> Tensor:
        """``[n, tokens, dim]`` -> ``[n, tokens, out]``."""
        if self.training:
            return self._explored(x)
        score = self.score(x)
        self.load = (score > 0).float().mean()
        multiply = self._best(score) if self.fixed else score > 0
        return torch.where(multiply[..., None], self.multiply(x), self.shift(x))

    def _best(self, score: Tensor) -> Tensor:
        """The tokens with the largest scores; of equal ones the first."""
        count = capacity(score.shape[-1], self.latencies)
        order = torch.argsort(score, dim=-1, descending=True, stable=True)[..., :count]
        return torch.zeros_like(score, dtype=torch.bool).scatter(-1, order, True)

    def _explored(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        noisy = logits + self.noise * torch.randn_like(logits)
        flat = (logits.float().flatten(0, -2), noisy.float().flatten(0, -2))
        self.balance = balance_loss(*flat, self.noise, self.latencies)
        chosen = noisy.argmax(-1, keepdim=True)
        self.load = (logits[..., MULTIPLY] > logits[..., SHIFT]).float().mean()
        y = torch.where(chosen == MULTIPLY, self.multiply(x), self.shift(x))
        gate = logits.softmax(-1).gather(-1, chosen)
        return y * (1 + gate - gate.detach())
