"""Export trained weights to ONNX, shared layers as ``ai.edgevit.SharedConv``.

    .venv-torch/bin/python -m examples.convshare_training.export build/convshare/valid-0.npz

Writes ``valid-0.onnx`` beside the weights. The exporter writes plain convolutions, as any
user's would; the pass ``trained-convshare`` recognizes them. It refuses the plain
transformer's layers (``linear-*.npz``), which then stay what they are.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch

from benchmarks.corpus.fashion import load_slice, preprocess
from benchmarks.corpus.store import write_atomic
from benchmarks.corpus.torch_export import export
from edgevit.loading import load
from edgevit.passes.trained_convshare import TrainedConvShare
from examples.convshare_training.network import KINDS, ConvShareViT

_LOG = logging.getLogger(__name__)


def network_of(weights: Path) -> ConvShareViT:
    """The network of a weights file, whose name starts with its kind."""
    kinds = [kind for kind in KINDS if weights.stem.startswith(f"{kind}-")]
    if not kinds:
        raise SystemExit(f"{weights}: expected a name as {KINDS[0]}-0.npz, of {KINDS}")
    network = ConvShareViT(kinds[0])
    with np.load(weights) as stored:
        network.load_state_dict({k: torch.from_numpy(stored[k]) for k in stored.files})
    network.eval()
    return network


def main() -> None:
    """Export each file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", type=Path)
    for weights in parser.parse_args().weights:
        network = network_of(weights)
        network.as_convolutions()
        probe = torch.from_numpy(preprocess(load_slice().images[:1]))
        path = weights.with_suffix(".onnx")
        export(network, probe, path, "ts")
        model = load(path).model
        done = TrainedConvShare().call(model)
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        write_atomic(path, proto.SerializeToString(deterministic=True))
        _LOG.info(
            "%s: %d shared layers, %d refused",
            path.name,
            len(done.changes),
            len(done.refusals),
        )


if __name__ == "__main__":
    main()
