"""Export timm models with random weights that are alive, from both torch exporters.

    .venv-torch/bin/python -m benchmarks.corpus.timm_models [NAME ...]

Writes ``.cache/models/<name>_ts.onnx`` and ``.cache/models/<name>_dynamo.onnx`` with the same
weights, unless both are there. The weights are random: these files test a compiler and
measure no accuracy.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.corpus.store import CACHE
from benchmarks.corpus.torch_export import export_both
from benchmarks.corpus.zoo_list import EXPORTERS

__all__ = ["MODELS", "create_live", "enliven", "import_timm"]

MODELS = ("deit_tiny_patch16_224", "mobilevit_xxs")

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_CALIBRATION_BATCHES = 4
_CALIBRATION_SIZE = 8


def import_timm() -> Any:
    """Import timm where torchvision's compiled operators are missing (a CPU-only torch).

    timm imports torchvision, whose import fails unless its operators are at least declared.
    Only the declarations are made here: nothing that timm's models run needs them.
    """
    try:
        import timm
    except RuntimeError:
        _declare_operators()
        import timm
    return timm


@functools.cache  # the library has to outlive the call, and can be made only once
def _declare_operators() -> Any:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def create_live(name: str, seed: int) -> tuple[nn.Module, torch.Tensor]:
    """Create a model of timm with live random weights, see ``enliven``.

    Args:
        name: Name of the model in timm.
        seed: Seed of weights and statistics.

    Returns:
        The model in evaluation mode and an input of batch size one.
    """
    torch.manual_seed(seed)
    model = import_timm().create_model(name, pretrained=False)
    return enliven(model, model.default_cfg["input_size"])


def enliven(model: nn.Module, shape: tuple[int, int, int]) -> tuple[nn.Module, torch.Tensor]:
    """Give a model weights whose outputs are of order one and depend on the input.

    Convolution weights are drawn with variance ``2 / fan_in``, linear ones with
    ``1 / fan_in``, biases and norms a little off their defaults; batch-norm statistics come
    from forward passes in training mode.

    Args:
        model: Changed in place; torch's generator is seeded by the caller.
        shape: Of one image: channels, height, width.

    Returns:
        The model in evaluation mode and an input of batch size one.
    """
    _randomize(model)
    model.train()
    for norm in (m for m in model.modules() if isinstance(m, _BATCH_NORMS)):
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the calibration batches
    with torch.no_grad():
        for _ in range(_CALIBRATION_BATCHES):
            model(torch.randn(_CALIBRATION_SIZE, *shape))
    return model.eval(), torch.randn(1, *shape)


def _randomize(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            _fill(module, name, parameter)


def _fill(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    with torch.no_grad():
        if isinstance(module, nn.Conv2d | nn.Linear) and name == "weight":
            gain = 2.0 if isinstance(module, nn.Conv2d) else 1.0
            parameter.normal_(std=math.sqrt(gain / parameter[0].numel()))
        elif name == "weight":  # of a norm
            parameter.normal_(mean=1.0, std=0.1)
        else:  # biases, class tokens, position embeddings
            parameter.normal_(std=0.1)


def main() -> None:
    """Export the named models, all of ``MODELS`` by default."""
    parser = argparse.ArgumentParser(
        description="Export timm models with live random weights."
    )
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for name in options.names:
        stem = CACHE / "models" / name
        if all(Path(f"{stem}_{exporter}.onnx").is_file() for exporter in EXPORTERS):
            continue  # what was measured with a file stays true of it
        model, x = create_live(name, options.seed)
        for path in export_both(model, x, stem):
            print(path.relative_to(CACHE.parent))


if __name__ == "__main__":
    main()
