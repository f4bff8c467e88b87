"""Fashion-MNIST on the training device, as each network takes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.corpus.fashion import load_full, preprocess

__all__ = ["Split", "batches", "load"]


@dataclass(frozen=True)
class Split:
    """Images and labels of a split.

    Attributes:
        images: ``[n, 1, 28, 28]``, normalized.
        labels: ``[n]``.
        size: Side that a network takes; above 28: bilinear, three equal channels.
    """

    images: Tensor
    labels: Tensor
    size: int

    def batch(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Images as the network takes them, and their labels."""
        return self.sized(self.images[picked]), self.labels[picked]

    def sized(self, images: Tensor) -> Tensor:
        """Images ``[n, 1, 28, 28]`` in the network's form."""
        if self.size == images.shape[-1]:
            return images
        large = torch.nn.functional.interpolate(
            images, (self.size, self.size), mode="bilinear", align_corners=False
        )
        return large.expand(-1, 3, -1, -1)


def load(split: str, device: str, size: int, count: int | None = None) -> Split:
    """The first ``count`` images of a split; all if ``None``."""
    data = load_full("train" if split == "train" else "test")
    images = torch.from_numpy(preprocess(data.images[:count])).to(device)
    labels = torch.from_numpy(data.labels[:count].astype(np.int64)).to(device)
    return Split(images, labels, size)


def batches(data: Split, size: int, seed: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of whole batches in random order, each image flipped or not."""
    device, count = data.images.device, len(data.images) // size * size
    order = torch.randperm(len(data.images), generator=seed, device=device)[:count]
    for picked in order.split(size):
        images, labels = data.images[picked], data.labels[picked]
        flip = torch.rand(size, generator=seed, device=device) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(-1), images)
        yield data.sized(images), labels
