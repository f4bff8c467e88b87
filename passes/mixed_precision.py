"""Bits where they matter: a width for every layer, under a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.cost import node_cost
from edgevit.edits import Edit, QuantizeActivation, QuantizeWeight
from edgevit.errors import UsageError
from edgevit.estimate import NEEDED, Load, latency_ms
from edgevit.passes.allocate_bits import Option, allocate
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.bridge_weights import WAYS, curvatures, gradient_curvatures
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.facts import Array
from edgevit.passes.layer_losses import (
    LayerEdits,
    by_layer,
    layer_losses,
    layer_output,
    tail_reads,
)
from edgevit.passes.output_weights import Probe
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import CalibratedPass, Context, Outcome
from edgevit.statistics import stream

__all__ = ["MixedPrecision"]

_UNITS = {"bytes": "bytes", "bit-operations": "bit operations", "latency": "ms"}


@dataclass(frozen=True)
class MixedPrecision(CalibratedPass):
    """Give every layer its own width of weights and activations.

    The loss of a layer at a width is measured, the rest is an allocation under a budget:

    1. ``rank=greedy``: the divergence of the network's output with this layer alone quantized
       (MPTQ-ViT, arXiv 2401.14895, ranks layers by what they do to the result).
    2. ``rank=relevance``: a relevance of each layer, measured once, times its error at the
       width (LRP-QViT, arXiv 2401.11243, ranks by relevance; there it is propagated backward,
       here it is the curvature of the output's divergence along the layer's output: of all
       channels together by forward passes, of each by gradients).

    Attributes:
        bits: Widths that may be chosen, separated by ``|``.
        budget: Largest cost, as a share of what the widest choice costs.
        measure: Of cost: ``bytes`` of weights, ``bit-operations`` (multiply-accumulates times
            both widths), or ``latency`` (the device's roofline with narrower numbers; an
            estimate that knows no integer kernels).
        rank: Case 1 or 2.
        curvature: How case 2 measures it, ``forward`` or ``gradient`` (extra ``[torch]``).
        samples: Calibration samples on which losses are measured.
        exclude: Patterns of layer names that stay float, separated by ``|``.
    """

    name: ClassVar[str] = "mixed-precision"
    quantizes: ClassVar[bool] = True

    bits: str = "4|6|8"
    budget: float = 0.75
    measure: str = "bytes"
    rank: str = "greedy"
    curvature: str = "forward"
    samples: int = 4
    exclude: str = ""

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Measure every layer at every width, allocate, and put one plan together."""
        widths = self._widths()
        plans = {b: self._uniform(b).plan(model, context) for b in widths}
        layers = list(channel_layers(model))
        parts = {b: by_layer(plans[b], layers) for b in widths}
        quantized = [x for x in layers if all(x.name in parts[b] for b in widths)]
        losses = self._losses(model, quantized, parts, context)
        options = {
            layer.name: [
                Option(b, self._cost(layer, b, context), losses[layer.name][b]) for b in widths
            ]
            for layer in quantized
        }
        whole = sum(options[x.name][-1].cost for x in quantized)
        chosen = allocate(options, self.budget * whole, _UNITS[self.measure])
        bits = {name: option.bits for name, option in chosen.items()}
        return tuple(_assembled(plans[widths[-1]], parts, bits, quantized))

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Put the quantizers in."""
        return apply(model, edits, self.name)

    def _widths(self) -> list[int]:
        for field, known in (
            ("measure", tuple(_UNITS)),
            ("rank", ("greedy", "relevance")),
            ("curvature", WAYS),
        ):
            if getattr(self, field) not in known:
                raise UsageError(
                    f"pass {self.name!r}: {field} is {getattr(self, field)!r}",
                    hint="it can be: " + ", ".join(known),
                )
        try:
            widths = sorted({int(b) for b in self.bits.split("|")})
        except ValueError as e:
            raise UsageError(f"pass {self.name!r}: bits is {self.bits!r}, not '4|6|8'") from e
        if not widths or widths[0] < 2 or widths[-1] > 8:
            raise UsageError(f"pass {self.name!r}: bits expects 2 to 8, found {self.bits!r}")
        return widths

    def _uniform(self, bits: int) -> Quantize:
        return Quantize(weights=bits, activations=bits, exclude=self.exclude)

    def _cost(self, layer: ChannelLayer, bits: int, context: Context) -> float:
        if self.measure == "bytes":
            return layer.weight.size * bits / 8
        if self.measure == "bit-operations":
            return float(layer.macs * bits * bits)
        figures = {} if context.target is None else context.target.figures
        missing = sorted(set(NEEDED) - set(figures))
        if missing:
            raise UsageError(
                f"the device file has no figure {missing[0]!r}: latency cannot be estimated",
                hint="measure=bytes or measure=bit-operations",
            )
        cost = node_cost(layer.node)
        kind = "depthwise" if layer.depthwise else "conv" if layer.is_conv else "matmul"
        load = Load(kind, 2 * cost.macs, cost.moved_bytes + cost.weight_bytes)
        values = {n: figures[n].value for n in NEEDED} | {"program": 0.0}
        return latency_ms([load], values, bits / 32)

    def _losses(
        self,
        model: ir.Model,
        layers: Sequence[ChannelLayer],
        parts: Mapping[int, Mapping[str, LayerEdits]],
        context: Context,
    ) -> dict[str, dict[int, float]]:
        widths = list(parts)
        found = {}
        given = self._gradients(model, layers, context)
        for layer in layers:
            wanted = tail_reads(model, layer) if layer.name not in given else _ends(layer)
            source = stream(model, samples=context.data(str(self)), values=wanted)
            seen = list(islice(source, self.samples))
            plans = [parts[b][layer.name] for b in widths]
            if self.rank == "greedy":
                losses = [x.divergence for x in layer_losses(model, layer, plans, seen)]
            else:
                worth = given.get(layer.name)
                if worth is None:
                    probe = Probe(len(seen), 1, context.seed)
                    worth = curvatures(model, layer.out, seen, probe)
                losses = _weighed(layer, plans, seen, worth)
            found[layer.name] = dict(zip(widths, losses, strict=True))
        return found

    def _gradients(
        self, model: ir.Model, layers: Sequence[ChannelLayer], context: Context
    ) -> dict[str, Array]:
        """Layer name -> curvature of every channel, where gradients measure it."""
        if self.rank != "relevance" or self.curvature != "gradient":
            return {}
        probe = Probe(self.samples, seed=context.seed)
        return gradient_curvatures(model, layers, context.data(str(self)), probe)


def _ends(layer: ChannelLayer) -> list[str]:
    return list(dict.fromkeys((str(layer.x.name), layer.name)))


def _weighed(
    layer: ChannelLayer,
    plans: Sequence[LayerEdits],
    seen: Sequence[Mapping[str, Array]],
    worth: Array,
) -> list[float]:
    """Half the squared error of a layer's output, each channel times its curvature.

    Of a sample: summed over positions, mean over samples.
    """
    axis = 1 if layer.is_conv else -1
    errors = []
    for plan in plans:
        off = [layer_output(layer, s[str(layer.x.name)], plan) - s[layer.name] for s in seen]
        squares = [np.square(np.moveaxis(x, axis, -1)).reshape(-1, len(worth)) for x in off]
        errors.append(0.5 * float(np.mean([(x @ worth).sum() for x in squares])))
    return errors


def _assembled(
    base: Sequence[Edit],
    parts: Mapping[int, Mapping[str, LayerEdits]],
    bits: Mapping[str, int],
    layers: Sequence[ChannelLayer],
) -> Iterator[Edit]:
    """The widest plan's edits, with each layer's own in their place.

    A quantizer that everything reads (an integer kernel's result) keeps the widest plan's.
    """
    names = {str(x.node.outputs[0].name) for x in layers}
    everywhere = {
        e.value for e in base if isinstance(e, QuantizeActivation) and not e.consumers
    }
    for edit in base:
        mine = isinstance(edit, QuantizeWeight | QuantizeActivation)
        if not mine or not set(getattr(edit, "consumers", ())) & names:
            yield edit
    shared: dict[tuple[str, int], list[str]] = {}
    for layer in layers:
        part = parts[bits[layer.name]][layer.name]
        if part.weight is not None:
            yield part.weight
        if part.activation is not None and part.activation.value not in everywhere:
            shared.setdefault((part.activation.value, bits[layer.name]), []).append(layer.name)
    by_name = {layer.name: layer for layer in layers}
    for (_, width), readers in shared.items():
        keys = tuple(str(by_name[n].node.outputs[0].name) for n in readers)
        activation = parts[width][readers[0]].activation
        if activation is not None:
            yield QuantizeActivation(activation.value, activation.params, keys)
