"""Export the zoo: one small member of each transformer family, with live random weights.

    .venv-torch/bin/python -m benchmarks.corpus.zoo_models [NAME ...]

Writes ``.cache/models/<name>_{ts,dynamo}.onnx``; files that are there are kept. What cannot
be exported, and why, is data: ``zoo_list.ZOO``. Each export runs in a process of its own, so
that its memory is free before the next one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import torch
from torch import nn

from benchmarks.corpus.store import CACHE
from benchmarks.corpus.timm_models import enliven, import_timm
from benchmarks.corpus.torch_export import export
from benchmarks.corpus.zoo_list import ZOO, Export, exports

__all__ = ["create"]

SEED = 0
# Of max|y|: random weights amplify the last bit more than trained ones, and the deepest model
# here has some hundred layers. A wrong export is wrong by percents.
LIMIT = 1e-4
_SHAPE = (3, 224, 224)


class _Logits(nn.Module):
    """A model of ``transformers`` that returns a tensor."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores ``[B, classes]`` of images ``[B, 3, H, W]``."""
        scores: torch.Tensor = self.inner(pixel_values=x).logits
        return scores


def create(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model of the zoo with live weights, and an input of batch size one."""
    timm = import_timm()
    torch.manual_seed(SEED)
    if name == "cvt":
        return enliven(_cvt(), _SHAPE)
    if name == "lookvit":
        return enliven(_lookvit(), (3, 240, 240))
    options = {"img_size": 224} if "dinov2" in name else {}
    model = timm.create_model(name, pretrained=False, **options)
    shape = _SHAPE if options else model.default_cfg["input_size"]
    return enliven(model, shape)


def _cvt() -> nn.Module:
    """CvT-13 with a half of its widths."""
    from transformers import CvtConfig, CvtForImageClassification

    config = CvtConfig(embed_dim=[32, 96, 192], num_labels=100)
    return _Logits(CvtForImageClassification(config))


def _lookvit() -> nn.Module:
    from vit_pytorch.look_vit import LookViT

    model: nn.Module = LookViT(
        dim=128, image_size=240, num_classes=100, depth=3, heads=4, dim_head=32
    )
    return model


def export_one(task: Export) -> None:
    """Write one file of the zoo."""
    model, x = create(task.name)
    if task.name.startswith("volo"):  # dynamo finds parameters under training otherwise
        model.requires_grad_(False)
    export(model, x, CACHE / "models" / task.file, task.exporter, LIMIT)


def main() -> int:
    """Export the named models, the whole zoo by default."""
    parser = argparse.ArgumentParser(description="Export the zoo.")
    parser.add_argument("names", nargs="*", default=list(ZOO), metavar="NAME")
    parser.add_argument("--one", metavar="EXPORTER", help="this exporter, in this process")
    options = parser.parse_args()
    failed = 0
    for task in exports(options.names):
        if options.one == task.exporter:
            export_one(task)
        elif not options.one and not (CACHE / "models" / task.file).is_file():
            failed += _child(task)
    return 1 if failed else 0


def _child(task: Export) -> bool:
    command = [sys.executable, "-m", "benchmarks.corpus.zoo_models", task.name]
    done = subprocess.run(
        [*command, "--one", task.exporter], capture_output=True, text=True, check=False
    )
    tail = done.stderr.strip().splitlines()[-1:] if done.returncode else ["exported"]
    print(f"{task.file}: {tail[0] if tail else f'status {done.returncode}'}", flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    sys.exit(main())
