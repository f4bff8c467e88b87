"""Export trained weights to ONNX with functions of ``ai.edgevit``, or as plain operators.

    python -m examples.shiftadd_training.export build/shiftadd/vit-mixture-0.npz

Writes ``vit-mixture-0.onnx`` beside the weights: ``ShiftLinear``, ``ShiftConv``,
``BinaryLinearAttention`` and ``MixtureOfPrimitives``, each with a body of standard operators,
so that any ONNX runtime runs it and ``edgevit compile`` compiles it. ``--plain-attention``
writes attention in standard operators, thresholds computed from the data as the paper's code
does: what the pass ``binary-attention`` recognizes.
"""

from __future__ import annotations

import argparse
import copy
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from benchmarks.corpus.store import write_atomic
from edgevit.opset import raise_opset
from edgevit.passes.functions import DOMAIN, ensure_function
from examples.fixtures.networks import NETWORKS
from examples.shiftadd_training.convert import STAGES, Stage, of_stage, replaced
from examples.shiftadd_training.data import load
from examples.shiftadd_training.operators import exported_form
from examples.shiftadd_training.primitives import BinaryAttention
from examples.shiftadd_training.pvt import INPUT
from examples.shiftadd_training.train import MAKE

OPSET = 17
# Largest difference between torch and the file, as a share of the largest logit: of sums of
# float32 in another order; and where there are choices (stage ``mixture``): one of thousands
# of tokens at the edge of a capacity changes its expert, a query at its threshold its code.
LIMIT, EDGE = 1e-5, 1e-2

_LOG = logging.getLogger(__name__)


def network_of(weights: Path) -> nn.Module:
    """The network of a weights file, named ``NETWORK-STAGE-SEED.npz``."""
    name, stage, _ = weights.stem.rsplit("-", 2)
    if name not in MAKE or stage not in STAGES:
        raise SystemExit(f"{weights}: expected a name as vit-mixture-0.npz")
    kept: Stage = "float" if stage == "control" else stage
    network = of_stage(MAKE[name], kept)
    with np.load(weights) as stored:
        network.load_state_dict({k: torch.from_numpy(stored[k]) for k in stored.files})
    return network.eval()


def exported(network: nn.Module, x: torch.Tensor, plain: bool) -> bytes:
    """The serialized ONNX model of a network in evaluation mode.

    Args:
        network: The network.
        x: One sample.
        plain: Whether attention is written in standard operators.
    """
    network = copy.deepcopy(network)
    _call_functions(network, plain)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The torch-script exporter is deprecated; it is the one with ``symbolic``.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (x,),
            stream,
            dynamo=False,
            opset_version=OPSET,
            input_names=["x"],
            output_names=["logits"],
            custom_opsets={DOMAIN: 1},
        )
    model = ir.from_proto(onnx.load_model_from_string(stream.getvalue()))
    called = sorted({node.op_type for node in model.graph if node.domain == DOMAIN})
    if called:  # their bodies are of operator set 23, and a file has one
        raise_opset(model, OPSET, "the export")
    for name in called:
        ensure_function(model, name)
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _call_functions(network: nn.Module, plain: bool) -> None:
    def form(module: nn.Module) -> nn.Module | None:
        kept = plain and isinstance(module, BinaryAttention)
        return None if kept else exported_form(module)

    replaced(network, form)
    # Projections and last layers of the attentions are layers of shifts themselves.
    for module in list(network.modules()):
        if isinstance(getattr(module, "whole", None), BinaryAttention):
            replaced(module.whole, exported_form)
    network.eval().requires_grad_(False)


def differences(content: bytes, network: nn.Module, x: torch.Tensor) -> list[float]:
    """Of each image between the file in ONNX Runtime and the network, ascending."""
    options = onnxruntime.SessionOptions()
    # Else weights stored as codes are multiplied with activations rounded to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = np.concatenate([network(one[None]).numpy() for one in x])
    found = np.concatenate([session.run(None, {"x": one[None].numpy()})[0] for one in x])
    return sorted((np.abs(found - wanted).max(1) / np.abs(wanted).max()).tolist())


def main() -> None:
    """Export each file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--plain-attention", action="store_true", help="as standard operators")
    options = parser.parse_args()
    for weights in options.weights:
        network = network_of(weights)
        size = 28 if weights.stem.split("-")[0] in NETWORKS else INPUT[1]
        data = load("train", "cpu", size, 9)
        x = data.sized(data.images)
        for module in network.modules():
            if isinstance(module, BinaryAttention):
                module.frozen = not options.plain_attention
        content = exported(network, x[:1], options.plain_attention)
        off = differences(content, network, x)
        middle, worst = off[len(off) // 2], off[-1]
        path = weights.with_suffix(".plain.onnx" if options.plain_attention else ".onnx")
        limit = EDGE if "-mixture-" in weights.name else LIMIT
        if worst > limit:
            raise SystemExit(f"{path.name}: expected max_rel <= {limit}, found {worst:.1e}")
        write_atomic(path, content)
        said = "%s: max_rel to torch %.1e (median image), %.1e (worst), %d bytes"
        _LOG.info(said, path.name, middle, worst, len(content))


if __name__ == "__main__":
    main()
