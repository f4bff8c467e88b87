"""Importance of output channels: measured at the exits of bridges, carried back inside.

Two ways measure the same diagonal: ``forward`` (``output_weights``: passes of a tail only, by
ONNX Runtime) and ``gradient`` (``edgevit.torchgraph.curvature``: backward passes of the whole
network, extra ``[torch]``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import onnx_ir as ir

from edgevit.bridges import Bridge, bridges
from edgevit.calibration import DataSource
from edgevit.errors import UnsupportedModelError
from edgevit.model import shape_of
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.check_canonical import check_canonical
from edgevit.passes.facts import Array
from edgevit.passes.output_weights import (
    Loss,
    Probe,
    at_logits,
    forward_weights,
    weighted_loss,
)
from edgevit.passes.output_weights import output_loss as at_output
from edgevit.passes.subgraphs import between
from edgevit.statistics import stream
from edgevit.torchgraph.curvature import Draws, Exit, between_channels
from edgevit.torchgraph.curvature import curvatures as by_gradients

__all__ = ["WAYS", "curvatures", "gradient_curvatures", "gradient_products", "importance"]

WAYS = ("forward", "gradient")
# Backward passes a sample for whole matrices: many samples say more than many draws.
_DRAWS = 2
_Values = Sequence[ir.Value]


class _Ruler(Protocol):
    """A way to measure curvature, mean ``H_ii`` of every channel of values by name."""

    def at_output(self, values: _Values) -> dict[str, Array]:
        """Of the divergence at the network's output."""

    def at_exit(self, end: ir.Value, weights: Array, values: _Values) -> dict[str, Array]:
        """Of half the weighted squared error of another value."""


def importance(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    samples: DataSource,
    probe: Probe,
    mode: str,
    way: str = "forward",
) -> dict[str, Array]:
    """Layer name -> importance of its output channels, mean 1, ``[C_out]``.

    Args:
        model: Canonical model.
        layers: Layers with constant weights.
        samples: Calibration samples; the first few are used.
        probe: How curvature is measured.
        mode: ``none``: all 1; ``bridges``: of layers inside of bridge blocks, at their exit;
            ``layers``: of every layer, at the network's output.
        way: One of ``WAYS``.

    Raises:
        BackendMissingError: The way is ``gradient``, and torch is not installed.
        UnsupportedModelError: The way is ``gradient``, and it does not know an operator.
    """
    found = {layer.name: np.ones(layer.outputs) for layer in layers}
    if mode == "none":
        return found
    ruler = _ruler(model, samples, probe, way)
    if mode == "layers":
        measured = ruler.at_output([layer.out for layer in layers])
    else:
        measured = _through_bridges(model, layers, ruler)
    return {**found, **{name: _normalized(weights) for name, weights in measured.items()}}


def gradient_curvatures(
    model: ir.Model, layers: Sequence[ChannelLayer], samples: DataSource, probe: Probe
) -> dict[str, Array]:
    """Curvature of the output's divergence along every layer's output, ``[C_out]``.

    Raises:
        BackendMissingError: torch is not installed.
        UnsupportedModelError: An operator has no gradient way.
    """
    ruler = _ruler(model, samples, probe, "gradient")
    return ruler.at_output([layer.out for layer in layers])


def gradient_products(
    model: ir.Model, layers: Sequence[ChannelLayer], samples: DataSource, probe: Probe
) -> dict[str, Array]:
    """Layer name -> mean ``E[g g^T]`` of gradients at its output, float32 ``[C_out, C_out]``.

    Raises:
        BackendMissingError: torch is not installed.
        UnsupportedModelError: An operator has no gradient way.
    """
    _require_canonical(model)
    axes = {str(layer.out.name): _axis(layer.out) for layer in layers}
    draws = Draws(_DRAWS, probe.seed)
    found = between_channels(model, axes, _First(samples, probe.samples), draws)
    return {layer.name: found[str(layer.out.name)] for layer in layers}


def _ruler(model: ir.Model, samples: DataSource, probe: Probe, way: str) -> _Ruler:
    chosen = _First(samples, probe.samples)
    if way == "forward":
        return _Forward(model, chosen, probe)
    _require_canonical(model)
    return _Gradients(model, chosen, probe)


def _require_canonical(model: ir.Model) -> None:
    """The interpreter knows canonical forms only: others it would take for those."""
    problems = check_canonical(model)
    if problems:
        raise UnsupportedModelError(
            f"gradients go through canonical graphs only: {problems[0]}",
            hint="measure without gradients: only those need that",
        )


def _through_bridges(
    model: ir.Model, layers: Sequence[ChannelLayer], ruler: _Ruler
) -> dict[str, Array]:
    """Curvature at outputs of layers inside of bridges, of the error at the bridge's exit."""
    values = {str(o.name): o for node in model.graph for o in node.outputs}
    found: dict[str, Array] = {}
    inside = _inside(layers, bridges(model))
    ends = list(dict.fromkeys(values[bridge.exit] for bridge, _ in inside))
    exits = {n: _normalized(w) for n, w in ruler.at_output(ends).items()} if ends else {}
    for bridge, members in inside:
        end = values[bridge.exit]
        outs = [layer.out for layer in members if layer.out is not end]
        if outs:
            found.update(ruler.at_exit(end, exits[bridge.exit], outs))
        if len(outs) < len(members):
            found[bridge.exit] = exits[bridge.exit]
    return found


def _inside(
    layers: Sequence[ChannelLayer], found: Sequence[Bridge]
) -> list[tuple[Bridge, list[ChannelLayer]]]:
    """Bridges that hold layers; a layer counts for the last one that it lies in."""
    by_node = {node: bridge for bridge in found for node in bridge.nodes}
    held: dict[str, tuple[Bridge, list[ChannelLayer]]] = {}
    for layer in layers:
        bridge = by_node.get(str(layer.node.name))
        if bridge is not None:
            held.setdefault(bridge.exit, (bridge, []))[1].append(layer)
    return list(held.values())


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
    """Channels are the axis 1 of an image, and the last of tokens and of linear layers."""
    rank = len(shape_of(value))
    return 1 if rank == 4 and not _is_linear(value) else rank - 1


def _is_linear(value: ir.Value) -> bool:
    """Whether it is what a linear layer gives, its bias included."""
    node = value.producer()
    if node is not None and node.op_type == "Add":
        makers = (v.producer() for v in node.inputs if v is not None)
        return any(maker is not None and maker.op_type == "MatMul" for maker in makers)
    return node is not None and node.op_type == "MatMul"


def curvatures(
    model: ir.Model, value: ir.Value, found: Sequence[Mapping[str, Array]], probe: Probe
) -> Array:
    """Curvature of the output's divergence along a value, given what its tail reads."""
    end = model.graph.outputs[0]
    if value is end:
        return at_logits([sample[str(end.name)] for sample in found])
    return forward_weights(between(model, value, [end]), _axis(value), found, probe)


@dataclass(frozen=True, eq=False)
class _Gradients:
    """Backward passes, one set for all values."""

    model: ir.Model
    samples: DataSource
    probe: Probe

    def at_output(self, values: _Values) -> dict[str, Array]:
        return self._measured(values, None)

    def at_exit(self, end: ir.Value, weights: Array, values: _Values) -> dict[str, Array]:
        return self._measured(values, Exit(str(end.name), weights, _axis(end)))

    def _measured(self, values: _Values, end: Exit | None) -> dict[str, Array]:
        axes = {str(value.name): _axis(value) for value in values}
        draws = Draws(seed=self.probe.seed)
        return by_gradients(self.model, axes, self.samples, draws, end)


@dataclass(frozen=True, eq=False)
class _Forward:
    """Central differences, value by value."""

    model: ir.Model
    samples: DataSource
    probe: Probe

    def at_output(self, values: _Values) -> dict[str, Array]:
        end = self.model.graph.outputs[0]
        return {str(v.name): self._measured(v, end, at_output) for v in values}

    def at_exit(self, end: ir.Value, weights: Array, values: _Values) -> dict[str, Array]:
        loss = weighted_loss(weights, _axis(end))
        return {str(v.name): self._measured(v, end, loss) for v in values}

    def _measured(self, value: ir.Value, end: ir.Value, loss: Loss) -> Array:
        if value is end:
            found = stream(self.model, samples=self.samples, values=[str(end.name)])
            return at_logits([sample[str(end.name)] for sample in found])
        piece = between(self.model, value, [end])
        seen: Sequence[Mapping[str, Array]] = list(
            stream(self.model, samples=self.samples, values=list(piece.inputs))
        )
        return forward_weights(piece, _axis(value), seen, self.probe, loss)
