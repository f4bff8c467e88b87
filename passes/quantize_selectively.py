"""Quantization that leaves the most sensitive layers in float, by measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import onnx_ir as ir

from edgevit.edits import Edit, KeepFloat
from edgevit.errors import UsageError
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.channel_layers import channel_layers
from edgevit.passes.layer_losses import LayerLoss, by_layer, layer_losses, tail_reads
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import CalibratedPass, Context, Outcome
from edgevit.statistics import stream

__all__ = ["QuantizeSelectively", "sensitivity"]


@dataclass(frozen=True)
class QuantizeSelectively(CalibratedPass):
    """Quantize each layer alone, see what the network's output makes of it, keep the worst.

    1. A layer stays float if the output has less than ``least-db`` of signal to noise with
       this layer alone quantized; at most ``keep`` layers, the worst first.
    2. The rest is quantized as ``quantize`` does it. The report's first refusal spells the
       ``quantize{exclude=...}`` that a recipe can name instead: same result, no measuring.

    Attributes:
        keep: Layers that may stay float.
        least_db: Case 1.
        samples: Calibration samples on which layers are judged.
        weights: Bits of weight codes; 0: the device's scheme decides.
        activations: Bits of activation codes; 0: the device's scheme decides.
    """

    name: ClassVar[str] = "quantize-selectively"
    quantizes: ClassVar[bool] = True

    keep: int = 4
    least_db: float = 25.0
    samples: int = 4
    weights: int = 0
    activations: int = 0

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Judge every layer, then plan once more without the worst."""
        if self.keep < 0 or self.samples < 1:
            raise UsageError(f"pass {self.name!r}: keep and samples expect positive numbers")
        base = Quantize(weights=self.weights, activations=self.activations)
        judged = sensitivity(model, base.plan(model, context), context, self.samples)
        worst = sorted(judged.items(), key=lambda item: (item[1].sqnr_db, item[0]))
        out = [(n, x) for n, x in worst if x.sqnr_db < self.least_db][: self.keep]
        if not out:
            return base.plan(model, context)
        exclude = "|".join(name for name, _ in out)
        rest = Quantize(
            weights=self.weights, activations=self.activations, exclude=exclude
        ).plan(model, context)
        said = f"the same without measuring: quantize{{exclude={exclude}}}"
        reasons = [
            KeepFloat(n, f"{x.sqnr_db:.1f} dB at the output with this layer alone quantized")
            for n, x in out
        ]
        return (KeepFloat(out[0][0], said), *reasons, *rest)

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Put the quantizers in."""
        return apply(model, edits, self.name)


def sensitivity(
    model: ir.Model, edits: Sequence[Edit], context: Context, samples: int
) -> Mapping[str, LayerLoss]:
    """Layer name -> what a plan's edits of this layer alone do to the network's output.

    Args:
        model: Canonical model.
        edits: A plan of ``quantize``.
        context: With calibration samples.
        samples: How many of them are used.
    """
    layers = list(channel_layers(model))
    parts = by_layer(edits, layers)
    found = {}
    for layer in layers:
        if layer.name not in parts:
            continue
        source = stream(
            model, samples=context.data("sensitivity"), values=tail_reads(model, layer)
        )
        seen = list(islice(source, samples))
        (found[layer.name],) = layer_losses(model, layer, [parts[layer.name]], seen)
    return found
