"""Fine-tune a network to shifts and additions on Fashion-MNIST, stage by stage.

    .venv-torch/bin/python -m examples.shiftadd_training.train --network vit --seed 0
    .venv-torch/bin/python -m examples.shiftadd_training.train --network pvt_v2_b0 \
        --start pvt_v2_b0_fashion.onnx --epochs 3

Stages: ``float`` (the network of ``examples/fixtures``; a file for pvt_v2_b0), then from it
``control`` (trained on in float, by the same recipe as the others) and ``shift`` (one power of
two a weight, everywhere), from that ``mixture`` (attention with 0/1 codes, experts and
routers too). A GPU is used where there is one. The last epoch is taken: nothing is chosen by
the test images. Writes ``NETWORK-STAGE-SEED.npz`` (weights) and ``.json`` (figures on the
official test images) into ``--out``.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from examples.fixtures.networks import NETWORKS
from examples.shiftadd_training.convert import LATENCIES, STAGES, Stage, converted, mixtures
from examples.shiftadd_training.data import Split, batches, load
from examples.shiftadd_training.primitives import ShiftConv2d, ShiftLinear, snapped
from examples.shiftadd_training.pvt import INPUT, pvt_v2_b0, weights_of

__all__ = ["MAKE", "Recipe", "answers", "fit", "state_of"]

MAKE: dict[str, Callable[[], nn.Module]] = {**NETWORKS, "pvt_v2_b0": pvt_v2_b0}
FINAL_NOISE = 0.05


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained.

    Attributes:
        epochs: Passes over the training images.
        batch: Images a step.
        rate: Peak of the one-cycle learning rate of AdamW.
        decay: Weight decay.
        distill: Share of the loss that compares with the float network's answers.
        balance: Weight of the routers' balance loss; the paper has 0.01.
        half: Whether products are taken in bfloat16, which holds powers of two exactly.
    """

    epochs: int = 6
    batch: int = 256
    rate: float = 1e-3
    decay: float = 0.01
    distill: float = 0.5
    balance: float = 1.0
    half: bool = False


FLOAT = Recipe(batch=128, rate=3e-3, decay=0.05, distill=0.0)
RECIPES = {
    "hybrid": Recipe(),
    "vit": Recipe(),
    "pvt_v2_b0": Recipe(epochs=3, rate=5e-4, half=True),
}


def loss_of(
    network: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor, recipe: Recipe
) -> Tensor:
    """Cross entropy, distillation and the balance of routers."""
    logits = network(x).float()
    loss = nn.functional.cross_entropy(logits, y)
    if teacher is not None and recipe.distill:
        with torch.no_grad():
            wanted = teacher(x).float().softmax(-1)
        soft = -(wanted * logits.log_softmax(-1)).sum(-1).mean()
        loss = (1 - recipe.distill) * loss + recipe.distill * soft
    found = [m.balance for m in mixtures(network) if m.balance is not None]
    return loss + recipe.balance * torch.stack(found).mean() if found else loss


def fit(
    network: nn.Module, teacher: nn.Module | None, data: Split, recipe: Recipe, seed: int
) -> list[float]:
    """Train in place; returns the loss of each epoch."""
    device = data.images.device
    generator = torch.Generator(device).manual_seed(seed)
    steps = recipe.epochs * (len(data.images) // recipe.batch)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=recipe.rate, weight_decay=recipe.decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=steps, pct_start=0.2
    )
    routed = mixtures(network)
    network.train()
    losses, step = [], 0
    for epoch in range(recipe.epochs):
        start, total = time.perf_counter(), torch.zeros((), device=device)
        for x, y in batches(data, recipe.batch, generator):
            for mixture in routed:
                mixture.noise = max(FINAL_NOISE, 1 - step / (0.8 * steps))
            with torch.autocast(device.type, torch.bfloat16, enabled=recipe.half):
                loss = loss_of(network, teacher, x, y, recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            total += loss.detach()
        losses.append(float(total) * recipe.epochs / steps)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{recipe.epochs}: {losses[-1]:.4f}, {seconds:.1f} s", flush=True
        )
    return losses


def answers(network: nn.Module, data: Split, batch: int = 500) -> tuple[Tensor, list[float]]:
    """Class of each image ``[n]``, and the share of tokens each router would multiply."""
    network.eval()
    routed = mixtures(network)
    found, loads = [], torch.zeros(len(routed))
    with torch.no_grad():
        for picked in torch.arange(len(data.images), device=data.images.device).split(batch):
            found.append(network(data.batch(picked)[0]).argmax(1))
            seen = [m.load for m in routed if m.load is not None]
            loads += torch.stack(seen).cpu() * len(picked) if seen else 0
    return torch.cat(found), (loads / len(data.images)).tolist()


def state_of(network: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """The weights as they are used: powers of two where the layer has such."""
    state = {k: v.detach().cpu().numpy() for k, v in network.state_dict().items()}
    for name, module in network.named_modules():
        if isinstance(module, (ShiftLinear, ShiftConv2d)):
            state[f"{name}.weight"] = snapped(module.weight).detach().cpu().numpy()
    return state


def start_of(options: argparse.Namespace, recipe: Recipe) -> tuple[nn.Module, list[float]]:
    """The float network: of ``--start``, of an earlier run, or trained now."""
    network = MAKE[options.network]()
    file = options.out / f"{options.network}-float-{options.seed}.npz"
    losses: list[float] = []
    if options.start is not None:
        network.load_state_dict(weights_of(options.start, network))
    elif file.exists():
        with np.load(file) as stored:
            network.load_state_dict({k: torch.from_numpy(stored[k]) for k in stored.files})
    elif options.network not in NETWORKS:
        raise SystemExit(f"{options.network}: give its trained ONNX file with --start")
    network = network.to(options.device)
    if options.start is None and not file.exists():
        data = load("train", options.device, 28, options.images)
        losses = fit(network, None, data, recipe, options.seed)
    return network, losses


def record(
    options: argparse.Namespace,
    stage: Stage,
    network: nn.Module,
    test: Split,
    facts: dict[str, Any],
) -> None:
    """Measure a network on the test images and write it down."""
    found, loads = answers(network, test)
    right = (found == test.labels).cpu().numpy()
    written = {
        "network": options.network,
        "stage": stage,
        "seed": options.seed,
        "accuracy": float(right.mean()),
        "test_images": len(right),
        "loads": [round(load, 4) for load in loads],
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        **facts,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / f"{options.network}-{stage}-{options.seed}"
    np.savez_compressed(stem.with_suffix(".npz"), **state_of(network))  # type: ignore[arg-type]
    np.save(stem.with_suffix(".right.npy"), np.packbits(right))
    stem.with_suffix(".json").write_text(
        json.dumps(written, indent=1) + "\n", encoding="utf-8"
    )
    print(json.dumps({k: v for k, v in written.items() if k != "loss"}), flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=sorted(MAKE), required=True)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="ONNX file of the trained float network")
    for name in ("epochs", "batch"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("rate", "distill", "balance"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--images", type=int, help="of each split; all if left out")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("build/shiftadd"))
    return parser.parse_args()


def main() -> None:
    """Train the asked stages, each from the one before."""
    options = parsed()
    torch.manual_seed(options.seed)
    torch.backends.cudnn.allow_tf32 = False
    given = {k: getattr(options, k) for k in ("epochs", "batch", "rate", "distill", "balance")}
    given = {k: v for k, v in given.items() if v is not None}
    recipe = Recipe(**{**vars(RECIPES[options.network]), **given})
    size = 28 if options.network in NETWORKS else INPUT[1]
    train, test = (load(s, options.device, size, options.images) for s in ("train", "test"))
    epochs = {"epochs": recipe.epochs} if "epochs" in given else {}
    network, losses = start_of(options, Recipe(**{**vars(FLOAT), **epochs}))
    teacher = copy.deepcopy(network).eval().requires_grad_(False)
    stages = options.stages.split(",")
    if "float" in stages:
        record(options, "float", network, test, {"loss": losses})
    for stage in (s for s in STAGES[1:] if s in stages):
        torch.manual_seed(options.seed)
        made = copy.deepcopy(network) if stage == "control" else converted(network, stage)
        made = made.to(options.device)
        start = time.perf_counter()
        before = float((answers(made, test)[0] == test.labels).float().mean())
        losses = fit(made, teacher, train, recipe, options.seed)
        seconds = round(time.perf_counter() - start, 1)
        facts = {"before": before, "loss": losses, "seconds": seconds, **vars(recipe)}
        record(options, stage, made, test, {**facts, "latencies": LATENCIES})


if __name__ == "__main__":
    main()
