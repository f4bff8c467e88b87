"""Train one network on Fashion-MNIST and measure its attention.

    .venv-torch/bin/python -m examples.convshare_training.train --kind valid --seed 0

Kinds: ``valid``, ``same``, and ``linear`` for the plain transformer by the same recipe. A GPU
is used where there is one. The last epoch is taken: nothing is chosen by the test images.
Writes ``KIND-SEED.npz`` (weights) and ``KIND-SEED.json`` (figures on the 10,000 official
test images) into ``--out``; ``make convshare-training`` makes all nine and the table.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.corpus.fashion import load_full, preprocess
from examples.convshare_training.attention import measure
from examples.convshare_training.network import KINDS, ConvShareViT

BATCH, EPOCHS = 256, 20
PEAK_RATE, WEIGHT_DECAY = 3e-3, 0.05
# Training images over which attention is averaged.
AVERAGED = 10_000


def train(
    network: ConvShareViT, images: Tensor, labels: Tensor, epochs: int, seed: int
) -> list[float]:
    """Fit in place: AdamW, one-cycle rate, random horizontal flips; the loss of each epoch."""
    generator = torch.Generator(images.device).manual_seed(seed)
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATE, total_steps=epochs * steps, pct_start=0.2
    )
    network.train()
    losses = []
    for epoch in range(epochs):
        start, total = time.perf_counter(), torch.zeros((), device=images.device)
        order = torch.randperm(len(images), generator=generator, device=images.device)
        for picked in order[: steps * BATCH].split(BATCH):
            flip = torch.rand(BATCH, generator=generator, device=images.device) < 0.5
            batch = images[picked]
            batch = torch.where(flip[:, None, None, None], batch.flip(-1), batch)
            loss = nn.functional.cross_entropy(network(batch), labels[picked])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        losses.append(float(total) / steps)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{epochs}: loss {losses[-1]:.4f}, {seconds:.1f} s", flush=True
        )
    return losses


def tensors(split: str, device: str, count: int | None) -> tuple[Tensor, Tensor]:
    """The first ``count`` images of a split ``[n, 1, 28, 28]`` and their labels ``[n]``."""
    data = load_full("train" if split == "train" else "test")
    images = torch.from_numpy(preprocess(data.images[:count]))
    labels = torch.from_numpy(data.labels[:count].astype(np.int64))
    return images.to(device), labels.to(device)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--images", type=int, default=None, help="of each split; all if left out"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/convshare"))
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    network = ConvShareViT(options.kind).to(options.device)
    images, labels = tensors("train", options.device, options.images)
    start = time.perf_counter()
    losses = train(network, images, labels, options.epochs, options.seed)
    seconds = time.perf_counter() - start
    test = tensors("test", options.device, options.images)
    figures = measure(network, *test, images[:AVERAGED])
    record = {
        "kind": options.kind,
        "seed": options.seed,
        "epochs": options.epochs,
        "parameters": sum(p.numel() for p in network.parameters()),
        "test_images": len(test[0]),
        "loss": losses,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "seconds": round(seconds, 1),
        **asdict(figures),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{options.kind}-{options.seed}"
    weights = {k: v.cpu().numpy() for k, v in network.state_dict().items()}
    np.savez(stem.with_suffix(".npz"), **weights)
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in record.items() if k != "loss"}))


if __name__ == "__main__":
    main()
