"""How many shift terms each layer gets, from what each number of terms does to the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import onnx_ir as ir

from edgevit.edits import QuantizeWeight
from edgevit.passes.allocate_bits import Option, allocate
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array, operand
from edgevit.passes.layer_losses import LayerEdits, layer_losses, tail_reads
from edgevit.passes.shift_rounding import Form, Rounded
from edgevit.pipeline import Context
from edgevit.quantization import QParams
from edgevit.statistics import stream

__all__ = ["MEASURES", "allocated", "as_integers", "corrected", "losses"]

MEASURES = ("terms", "bits", "shifts", "accuracy")


def as_integers(layer: ChannelLayer, made: Rounded) -> QuantizeWeight:
    """New weights as codes behind a DequantizeLinear: integers, whatever their form."""
    scale = made.scale
    wide = made.grid.high > 127
    low, high = made.grid.low, made.grid.high
    dtype, axis = "int16" if wide else "int8", 0 if layer.is_conv else 1
    params = QParams(scale, np.zeros(scale.shape, np.int32), dtype, low, high, axis)
    codes = layer.from_matrix(made.codes).astype(np.int32)
    key = (str(layer.node.outputs[0].name),)
    return QuantizeWeight(str(operand(layer.node, 1).name), params, key, codes)


def corrected(layer: ChannelLayer, made: Rounded) -> Array | None:
    """The bias with the mean of the output's error taken out; ``None`` without a bias."""
    if layer.bias is None:
        return None
    return np.asarray((layer.bias.astype(np.float64) + made.shift).astype(layer.bias.dtype))


def losses(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    tried: Mapping[str, Mapping[Form, Rounded]],
    context: Context,
    samples: int,
    spec: str,
) -> dict[str, dict[Form, float]]:
    """Divergence of the network's output with one layer's weights changed, in nats a sample.

    Args:
        model: With its activation quantizers in place.
        layers: Each is changed alone.
        tried: Layer name -> what its weights may become.
        context: Calibration samples.
        samples: How many of them are looked at.
        spec: Of the pass, for messages.
    """
    found = {}
    for layer in layers:
        forms = tried[layer.name]
        source = stream(model, samples=context.data(spec), values=tail_reads(model, layer))
        seen = list(islice(source, samples))
        plans = [
            LayerEdits(as_integers(layer, made), None, corrected(layer, made))
            for made in forms.values()
        ]
        scored = layer_losses(model, layer, plans, seen)
        pairs = zip(forms, scored, strict=True)
        found[layer.name] = {form: loss.divergence for form, loss in pairs}
    return found


def allocated(
    layers: Sequence[ChannelLayer],
    found: Mapping[str, Mapping[Form, float]],
    budget: float,
    measure: str,
) -> dict[str, Form]:
    """A form for every layer under a budget.

    Args:
        layers: What is decided on.
        found: Layer name -> loss of each form.
        budget: Largest mean of terms a weight (``terms``), bits a weight (``bits``), terms a
            multiplication (``shifts``); or largest sum of losses (``accuracy``), and the
            fewest bits that keep it.
        measure: Which.

    Raises:
        GateError: The budget cannot be met.
    """
    options: dict[str, list[Option]] = {}
    chosen: dict[str, dict[tuple[float, float], Form]] = {}
    whole = sum(_unit(layer, measure) for layer in layers) or 1.0
    for layer in layers:
        options[layer.name], chosen[layer.name] = [], {}
        for form, loss in found[layer.name].items():
            cost = _unit(layer, measure) * _each(form, measure) / whole
            pair = (loss, cost) if measure == "accuracy" else (cost, loss)
            options[layer.name].append(Option(form.bits, *pair))
            chosen[layer.name][pair] = form
    unit = {"accuracy": "nats", "bits": "bits a weight"}.get(measure, "terms a weight")
    made = allocate(options, budget, unit)
    return {name: chosen[name][(o.cost, o.loss)] for name, o in made.items()}


def _unit(layer: ChannelLayer, measure: str) -> float:
    return float(layer.macs if measure == "shifts" else layer.weight.size)


def _each(form: Form, measure: str) -> float:
    return float(form.bits if measure in ("bits", "accuracy") else form.terms)
