"""What quantizing one layer alone does to the network's output, for several plans at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, QuantizeActivation, QuantizeWeight
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.output_weights import output_loss
from edgevit.passes.second_moments import filter_inputs
from edgevit.passes.subgraphs import between
from edgevit.quantization import dequantize, fake
from edgevit.reference_stream import run_stream

__all__ = ["LayerEdits", "LayerLoss", "by_layer", "layer_losses", "layer_output", "tail_reads"]


@dataclass(frozen=True, eq=False)
class LayerEdits:
    """What a plan does to one layer.

    Attributes:
        weight: Of its weight, or ``None``.
        activation: Of its input, for this layer alone; ``None`` without.
        bias: In the place of its bias; ``None``: it keeps it.
    """

    weight: QuantizeWeight | None
    activation: QuantizeActivation | None
    bias: Array | None = None


@dataclass(frozen=True)
class LayerLoss:
    """What one layer costs.

    Attributes:
        divergence: Mean KL divergence of the output distribution, in nats a sample.
        sqnr_db: Signal to quantization noise at the network's output.
    """

    divergence: float
    sqnr_db: float


def by_layer(edits: Sequence[Edit], layers: Sequence[ChannelLayer]) -> dict[str, LayerEdits]:
    """A plan taken apart: layer name -> its edits."""
    found = {}
    for layer in layers:
        key, x = str(layer.node.outputs[0].name), str(layer.x.name)
        weight = activation = None
        for edit in edits:
            if isinstance(edit, QuantizeWeight) and key in edit.consumers:
                weight = replace(edit, consumers=(key,))
            mine = isinstance(edit, QuantizeActivation) and edit.value == x
            if isinstance(edit, QuantizeActivation) and mine:
                activation = replace(edit, consumers=(key,))
        if weight is not None or activation is not None:
            found[layer.name] = LayerEdits(weight, activation)
    return found


def layer_output(layer: ChannelLayer, x: Array, edits: LayerEdits) -> Array:
    """What a layer computes when only it is quantized, in the shape of its output."""
    if edits.activation is not None:
        x = fake(x, edits.activation.params)
    weight = layer.weight
    if edits.weight is not None:
        params, codes = edits.weight.params, edits.weight.codes
        weight = fake(weight, params) if codes is None else dequantize(codes, params)
    changed = replace(layer, weight=weight.astype(np.float32))
    out = layer.node.outputs[0].shape
    shape = tuple(int(d) for d in out.numpy()) if out is not None else ()
    count = int(np.prod(shape)) // layer.outputs
    rows = filter_inputs(x, layer, np.arange(count))
    made = rows @ changed.matrix().swapaxes(1, 2)  # [g, rows, o]
    flat = made.transpose(1, 0, 2).reshape(count, layer.outputs)
    bias = layer.bias if edits.bias is None else edits.bias
    if bias is not None:
        flat = flat + bias
    if not layer.is_conv:
        return np.asarray(flat.reshape(shape), np.float32)
    n, c, h, w = shape
    return np.ascontiguousarray(flat.reshape(n, h, w, c).transpose(0, 3, 1, 2), np.float32)


def tail_reads(model: ir.Model, layer: ChannelLayer) -> list[str]:
    """Names of what ``layer_losses`` needs of a sample."""
    end = model.graph.outputs[0]
    names = [str(layer.x.name), str(layer.out.name)]
    if layer.out is not end:
        names += between(model, layer.out, [end]).inputs
    return list(dict.fromkeys(names))


def layer_losses(
    model: ir.Model,
    layer: ChannelLayer,
    plans: Sequence[LayerEdits],
    found: Sequence[Mapping[str, Array]],
) -> tuple[LayerLoss, ...]:
    """The cost of each plan for one layer, by running only what lies behind the layer.

    Args:
        model: Canonical model; its first output is judged.
        layer: The layer.
        plans: What is tried.
        found: For each sample the layer's input and everything that the tail reads.
    """
    end = model.graph.outputs[0]
    if layer.out is end:
        pairs = (
            (sample[str(end.name)], layer_output(layer, sample[str(layer.x.name)], plan))
            for sample in found
            for plan in plans
        )
        return _scored(list(pairs), len(plans))
    piece = between(model, layer.out, [end])
    start = str(layer.out.name)

    def feeds() -> Iterator[dict[str, Array]]:
        for sample in found:
            base = {name: sample[name] for name in piece.inputs}
            yield base
            for plan in plans:
                yield {**base, start: layer_output(layer, sample[str(layer.x.name)], plan)}

    answers = (answer[piece.outputs[0]] for answer in run_stream(piece.content, feeds()))
    pairs_run = []
    for _ in found:
        true = next(answers)
        pairs_run += [(true, next(answers)) for _ in plans]
    return _scored(pairs_run, len(plans))


def _scored(pairs: Sequence[tuple[Array, Array]], plans: int) -> tuple[LayerLoss, ...]:
    scored = []
    for index in range(plans):
        mine = pairs[index::plans]
        loss = float(np.mean([output_loss(true, off) for true, off in mine]))
        signal = sum(float(np.square(t.astype(np.float64)).sum()) for t, _ in mine)
        noise = sum(float(np.square(t.astype(np.float64) - o).sum()) for t, o in mine)
        tiny = np.finfo(np.float64).tiny
        ratio = 10 * float(np.log10(max(signal, tiny) / max(noise, signal * 1e-20, tiny)))
        scored.append(LayerLoss(loss, ratio))
    return tuple(scored)
