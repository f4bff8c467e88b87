"""Export the timm architectures whose latency on a phone is published, for shapes only.

    .venv-torch/bin/python -m benchmarks.corpus.phone_models [NAME ...]

Writes ``.cache/models/phone/<name>.onnx``, opset 17, batch size one, at the resolution of the
published figure (timm's default). Weights are what the constructor draws: the cost of a graph
follows from its shapes. Branches that exist for training only are merged, as they are in the
models that were timed.
"""

from __future__ import annotations

import argparse
import io
import logging
import warnings

import torch

from benchmarks.corpus.store import CACHE, write_atomic
from benchmarks.corpus.timm_models import import_timm
from benchmarks.phone_latencies import PUBLISHED

__all__ = ["FOLDER", "export"]

FOLDER = CACHE / "models" / "phone"
_LOG = logging.getLogger(__name__)


def export(name: str) -> bytes:
    """One model as an ONNX file."""
    import_timm()
    from timm.models import create_model
    from timm.utils import reparameterize_model

    torch.manual_seed(0)
    model = reparameterize_model(create_model(name, pretrained=False).eval())
    if hasattr(model, "fuse"):
        model.fuse()
    x = torch.zeros(1, *model.default_cfg["input_size"])
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The torch-script exporter is deprecated; it is the fast one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (x,),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["logits"],
        )
    return stream.getvalue()


def main() -> None:
    """Export what is not there yet."""
    parser = argparse.ArgumentParser(description="Export architectures of the phone tables.")
    names = sorted({entry.model for entry in PUBLISHED})
    parser.add_argument("names", nargs="*", default=names, metavar="NAME")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    for name in options.names:
        path = FOLDER / f"{name}.onnx"
        if not path.exists():
            write_atomic(path, export(name))
            print(path.relative_to(CACHE.parent), flush=True)


if __name__ == "__main__":
    main()
