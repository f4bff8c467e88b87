"""What a trained network's attention does: figures, and the question that they answer.

The paper says that valid padding learns attention and same padding operates like a CNN. A CNN
mixes positions by weights that do not depend on the image. So each head's attention is fixed
to its mean over training images, which leaves position, and takes content away:

    loss   = accuracy - accuracy with the fixed attention
    answer = "learns attention" if loss >= half of the plain transformer's loss,
             "operates like a CNN" otherwise

The criterion was written down before the networks were trained. Beside it: accuracy with
uniform attention, entropy, distance in patches, and how far attention is from its mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.convshare_training.network import DEPTH, ConvShareViT

__all__ = ["AttentionFigures", "accuracy", "mean_attention", "measure"]

BATCH = 500
GRID = 7


@dataclass(frozen=True)
class AttentionFigures:
    """Of one network; means over layers, heads, queries and images.

    Attributes:
        accuracy: Share of right answers.
        fixed: The same with attention fixed to its mean over training images.
        uniform: The same with every token attending to all alike.
        entropy: Of attention rows over log(tokens): 1 is uniform, 0 is one token.
        distance: Of patches attended to, in patches (uniform attention: 3.67).
        variation: Total variation distance of a row from its mean over images, 0 to 1.
    """

    accuracy: float
    fixed: float
    uniform: float
    entropy: float
    distance: float
    variation: float


def batches(images: Tensor) -> Iterator[Tensor]:
    """Parts that fit anywhere."""
    yield from images.split(BATCH)


def answers(
    network: ConvShareViT,
    images: Tensor,
    change: Callable[[int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Class of each image, ``[n]``."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part, change).argmax(1) for part in batches(images)])


def accuracy(
    network: ConvShareViT,
    images: Tensor,
    labels: Tensor,
    change: Callable[[int, Tensor], Tensor] | None = None,
) -> float:
    """Share of right answers."""
    return float((answers(network, images, change) == labels).double().mean())


def attention(network: ConvShareViT, images: Tensor) -> Tensor:
    """Of every layer, ``[layers, n, heads, tokens, tokens]``."""
    seen: list[Tensor] = []

    def note(_: int, weights: Tensor) -> Tensor:
        seen.append(weights)
        return weights

    network.eval()
    with torch.no_grad():
        network(images, note)
    return torch.stack(seen)


def mean_attention(network: ConvShareViT, images: Tensor) -> Tensor:
    """``[layers, heads, tokens, tokens]``, mean over images."""
    sums = [attention(network, part).double().sum(1) for part in batches(images)]
    return (torch.stack(sums).sum(0) / len(images)).float()


def patch_distance() -> Tensor:
    """Distance of every patch to every other, ``[49, 49]``, in patches."""
    axis = torch.arange(GRID, dtype=torch.float32)
    at = torch.cartesian_prod(axis, axis)
    return torch.cdist(at, at)


def _shapes(weights: Tensor, mean: Tensor) -> Tensor:
    """Sums of entropy, distance and variation over rows, and the number of rows."""
    tokens = weights.shape[-1]
    entropy = -torch.xlogy(weights, weights).sum(-1) / math.log(tokens)
    patches = weights[..., 1:, 1:]
    share = patches / patches.sum(-1, keepdim=True).clamp_min(1e-12)
    distance = (share * patch_distance().to(weights.device)).sum(-1)
    variation = 0.5 * (weights - mean[:, None]).abs().sum(-1)
    return torch.stack(
        [entropy.mean().double(), distance.mean().double(), variation.mean().double()]
    )


def measure(
    network: ConvShareViT, images: Tensor, labels: Tensor, training: Tensor
) -> AttentionFigures:
    """All figures on test images; means of attention are those of training images."""
    mean = mean_attention(network, training)
    flat = torch.full_like(mean, 1 / mean.shape[-1])
    assert mean.shape[0] == DEPTH
    parts = list(batches(images))
    shapes = sum(_shapes(attention(network, p), mean) * len(p) for p in parts) / len(images)
    return AttentionFigures(
        accuracy=accuracy(network, images, labels),
        fixed=accuracy(network, images, labels, lambda i, w: mean[i].expand_as(w)),
        uniform=accuracy(network, images, labels, lambda i, w: flat[i].expand_as(w)),
        entropy=float(shapes[0]),
        distance=float(shapes[1]),
        variation=float(shapes[2]),
    )
