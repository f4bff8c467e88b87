"""How far roundings to float16 move a model of the zoo, whatever compiles it.

    .venv-torch/bin/python -m benchmarks.corpus.conditioning NAME ...

Weights and input are rounded to float16 once; all arithmetic is float64. Where that alone
leaves less than the 50 dB of the float16 gate, no float16 program can keep the gate: such
models are ``zoo_list.FRAGILE``.
"""

from __future__ import annotations

import argparse
import copy
import math

import torch
from torch import nn

from benchmarks.corpus.zoo_models import create

__all__ = ["psnr_of_rounding"]


def psnr_of_rounding(model: nn.Module, x: torch.Tensor) -> float:
    """PSNR in dB, as verification forms it, of the model with float16 weights and input.

    Args:
        model: In evaluation mode; not changed.
        x: An input, float32.
    """
    exact, rounded = copy.deepcopy(model).double(), copy.deepcopy(model)
    for tensor in (*rounded.parameters(), *rounded.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.half().float()
    with torch.no_grad():
        wanted = exact(x.double())
        found = rounded.double()(x.half().double())
    error = ((found - wanted) ** 2).mean()
    return 10 * math.log10(float(wanted.abs().max() ** 2 / error))


def main() -> None:
    """Print one line a model."""
    parser = argparse.ArgumentParser(description="Condition of the zoo's models.")
    parser.add_argument("names", nargs="+", metavar="NAME")
    for name in parser.parse_args().names:
        print(f"{name}: {psnr_of_rounding(*create(name)):.1f} dB", flush=True)


if __name__ == "__main__":
    main()
