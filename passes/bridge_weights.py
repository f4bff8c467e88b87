"""Importance of output channels: measured at the exits of bridges, carried back inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import onnx_ir as ir

from edgevit.bridges import Bridge, bridges
from edgevit.calibration import DataSource
from edgevit.model import shape_of
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.output_weights import Loss, Probe, forward_weights, weighted_loss
from edgevit.passes.output_weights import output_loss as at_output
from edgevit.passes.subgraphs import between
from edgevit.statistics import stream

__all__ = ["curvatures", "importance"]


def importance(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    samples: DataSource,
    probe: Probe,
    mode: str,
) -> dict[str, Array]:
    """Layer name -> importance of its output channels, mean 1, ``[C_out]``.

    Args:
        model: Canonical model.
        layers: Layers with constant weights.
        samples: Calibration samples; the first few are used.
        probe: How curvature is measured.
        mode: ``none``: all 1; ``bridges``: of layers inside of bridge blocks, at their exit;
            ``forward``: of every layer, at the network's output.
    """
    found = {layer.name: np.ones(layer.outputs) for layer in layers}
    if mode == "none":
        return found
    chosen = _First(samples, probe.samples)
    if mode == "forward":
        for layer in layers:
            found[layer.name] = _normalized(_at_output(model, layer.out, chosen, probe))
        return found
    by_node = {node: bridge for bridge in bridges(model) for node in bridge.nodes}
    exits: dict[str, Array] = {}
    for layer in layers:
        bridge = by_node.get(str(layer.node.name))
        if bridge is not None:
            weights = _inside(model, layer, bridge, exits, chosen, probe)
            found[layer.name] = _normalized(weights)
    return found


class _First:
    """The first samples of a source, as a source."""

    def __init__(self, samples: DataSource, count: int) -> None:
        self._samples, self._count = samples, count
        self.name, self.synthetic = samples.name, samples.synthetic

    def digest(self) -> str:
        return self._samples.digest()

    def __len__(self) -> int:
        return min(self._count, len(self._samples))

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return islice(iter(self._samples), self._count)


def _normalized(weights: Array) -> Array:
    """Mean 1; channels without measured curvature keep a hundredth, so that none is free."""
    mean = float(weights.mean())
    if not np.isfinite(mean) or mean <= 0:
        return np.ones_like(weights)
    return np.asarray(np.maximum(weights / mean, 0.01))


def _axis(value: ir.Value) -> int:
    """Channels are the axis 1 of an image, and the last of tokens."""
    rank = len(shape_of(value))
    return 1 if rank == 4 else rank - 1


def curvatures(
    model: ir.Model, value: ir.Value, found: Sequence[Mapping[str, Array]], probe: Probe
) -> Array:
    """Curvature of the output's divergence along a value, given what its tail reads."""
    end = model.graph.outputs[0]
    if value is end:
        return np.ones(shape_of(value)[_axis(value)])
    return forward_weights(between(model, value, [end]), _axis(value), found, probe)


def _at_output(model: ir.Model, value: ir.Value, samples: DataSource, probe: Probe) -> Array:
    return _measured(model, value, model.graph.outputs[0], samples, probe, at_output)


def _inside(
    model: ir.Model,
    layer: ChannelLayer,
    bridge: Bridge,
    exits: dict[str, Array],
    samples: DataSource,
    probe: Probe,
) -> Array:
    """Curvature at a layer's output, of the weighted error at the bridge's exit."""
    values = {str(o.name): o for node in model.graph for o in node.outputs}
    end = values[bridge.exit]
    if bridge.exit not in exits:
        exits[bridge.exit] = _normalized(_at_output(model, end, samples, probe))
    if layer.out is end:
        return exits[bridge.exit]
    loss = weighted_loss(exits[bridge.exit], _axis(end))
    return _measured(model, layer.out, end, samples, probe, loss)


def _measured(
    model: ir.Model,
    value: ir.Value,
    end: ir.Value,
    samples: DataSource,
    probe: Probe,
    loss: Loss,
) -> Array:
    if value is end:
        return np.ones(shape_of(value)[_axis(value)])
    piece = between(model, value, [end])
    found: Sequence[Mapping[str, Array]] = list(
        stream(model, samples=samples, values=list(piece.inputs))
    )
    return forward_weights(piece, _axis(value), found, probe, loss)
