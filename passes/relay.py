"""A network walked layer by layer, once as it is and once with new weights so far.

A layer that is rounded changes what all behind it read. Rounded one after the other, each can
make good for what the ones before it have done: it is given both inputs, the true one and the
one that is left of it (Li et al., "GPTAQ", arXiv 2504.02692). What lies between two layers is
run for all samples at a time, so that no part of the network runs more than twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.model import constant, dtype_of, shape_of
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.second_moments import Moments, enough, filter_inputs, positions
from edgevit.reference_stream import Pieces

__all__ = ["Relay", "Replaced", "walk"]

State = dict[str, Array]
# What a layer becomes: its weight in the stored layout, and its bias.
Replaced = tuple[Array, Array | None]


@dataclass(frozen=True)
class Relay:
    """How layers are looked at.

    Attributes:
        rows: Output positions of a sample that are looked at, at most.
        seed: Of their choice.
    """

    rows: int
    seed: int


def walk(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    samples: DataSource,
    how: Relay,
    replace: Callable[[ChannelLayer, Moments], Replaced],
) -> None:
    """Hand every layer, in order, the moments of what it reads, and go on with its answer.

    Args:
        model: Canonical model, activation quantizers in place.
        layers: In the order of the graph; their weights belong to nobody else.
        samples: Of the model's inputs.
        how: Settings.
        replace: Layer and moments (``t``: true, ``x``: with the new weights before it) -> what
            its weight and bias become.
    """
    cuts = _Cuts(model, layers)
    states: list[tuple[State, State]] = [(dict(s), dict(s)) for s in samples]
    new: dict[str, Array] = {}
    with Pieces() as engine:
        for at, stage in enumerate(cuts.stages):
            states = _advanced(engine, cuts, at, states, new)
            for layer in stage:
                weight, bias = replace(layer, _moments(layer, states, how))
                new[f"{layer.name}.weight"] = weight.astype(np.float32)
                if bias is not None:
                    new[f"{layer.name}.bias"] = bias.astype(np.float32)


def _moments(
    layer: ChannelLayer, states: Sequence[tuple[State, State]], how: Relay
) -> Moments:
    name, seen = str(layer.x.name), None
    for count, (true, left) in enumerate(states):
        rng = np.random.default_rng([how.seed, count])
        at = positions(layer, enough(layer, how.rows, len(states)), rng)
        x, t = (filter_inputs(state[name], layer, at) for state in (left, true))
        seen = seen or Moments.empty(x.shape[0], x.shape[2], True)
        seen.add(x, t)
    assert seen is not None
    return seen


def _advanced(
    engine: Pieces,
    cuts: _Cuts,
    at: int,
    states: Sequence[tuple[State, State]],
    new: Mapping[str, Array],
) -> list[tuple[State, State]]:
    """Run the nodes up to stage ``at`` on both states of every sample."""
    nodes = cuts.between(at)
    if not nodes:
        return list(states)
    given, wanted = cuts.borders(at)
    piece = _Piece(cuts, nodes, given, wanted)

    def feeds() -> Iterator[State]:
        for true, left in states:
            yield {**{n: true[n] for n in given}, **piece.parameters({})}
            if at:
                yield {**{n: left[n] for n in given}, **piece.parameters(new)}

    answers = engine.run(piece.content(), feeds())
    made = []
    for true, left in states:
        first = next(answers)
        second = next(answers) if at else first
        made.append((_kept(true, first, wanted), _kept(left, second, wanted)))
    return made


def _kept(before: State, found: State, wanted: Sequence[str]) -> State:
    return {n: found[n] if n in found else before[n] for n in wanted}


class _Cuts:
    """Where a network is cut: in front of every stage of layers that can be seen at once.

    Attributes:
        model: The network.
        nodes: Its nodes.
        values: Its inputs and what its nodes make, by name.
        shell: A model of its opsets and functions, without a graph.
        layers: Node -> the layer it is.
        holders: Node that has the bias -> the layer.
        stages: Layers that are seen at once.
        starts: Where the first node of each stage stands.
    """

    def __init__(self, model: ir.Model, layers: Sequence[ChannelLayer]) -> None:
        self.model = model
        self.nodes = list(model.graph)
        self.values = {str(v.name): v for v in model.graph.inputs}
        self.values |= {str(o.name): o for n in self.nodes for o in n.outputs}
        whole = ir.to_proto(model)
        self.shell = onnx.ModelProto(ir_version=whole.ir_version)
        self.shell.opset_import.extend(whole.opset_import)
        self.shell.functions.extend(whole.functions)
        self._place = {id(n): i for i, n in enumerate(self.nodes)}
        self.layers = {id(x.node): x for x in layers}
        self.holders = {id(x.add or x.node): x for x in layers if x.bias is not None}
        ordered = sorted(layers, key=lambda x: self._place[id(x.node)])
        self.stages: list[list[ChannelLayer]] = []
        self.starts: list[int] = []
        for layer in ordered:
            maker = layer.x.producer()
            known = self.starts and (maker is None or self._place[id(maker)] < self.starts[-1])
            if known:
                self.stages[-1].append(layer)
                continue
            self.stages.append([layer])
            self.starts.append(self._place[id(layer.node)])

    def between(self, at: int) -> list[ir.Node]:
        """The nodes behind the cut before, in front of stage ``at``."""
        return self.nodes[self.starts[at - 1] if at else 0 : self.starts[at]]

    def _live(self, start: int) -> list[str]:
        """Values made in front of a node that it or others behind it read."""
        inputs = [str(v.name) for v in self.model.graph.inputs]
        made = {str(o.name) for n in self.nodes[:start] for o in n.outputs} | set(inputs)
        read = (v for n in self.nodes[start:] for v in n.inputs if v is not None)
        return list(dict.fromkeys(str(v.name) for v in read if str(v.name) in made))

    def borders(self, at: int) -> tuple[list[str], list[str]]:
        """What goes into the piece in front of stage ``at``, and what lives behind it."""
        inside = {str(v.name) for n in self.between(at) for v in n.inputs if v is not None}
        before = self._live(self.starts[at - 1]) if at else self._live(0)
        return [n for n in before if n in inside], self._live(self.starts[at])


class _Piece:
    """Nodes between two cuts as a model; weights and biases of layers are inputs."""

    def __init__(
        self,
        cuts: _Cuts,
        nodes: Sequence[ir.Node],
        given: Sequence[str],
        wanted: Sequence[str],
    ) -> None:
        self._cuts, self._nodes, self._given = cuts, nodes, given
        made = {str(o.name) for n in nodes for o in n.outputs}
        self._wanted = [n for n in wanted if n in made]
        self._true: State = {}
        for node in nodes:
            if id(node) in cuts.layers:
                layer = cuts.layers[id(node)]
                self._true[f"{layer.name}.weight"] = layer.weight
            if id(node) in cuts.holders:
                layer = cuts.holders[id(node)]
                assert layer.bias is not None
                self._true[f"{layer.name}.bias"] = layer.bias

    def parameters(self, new: Mapping[str, Array]) -> State:
        """Weights and biases: the new ones, else the layers' own."""
        return {name: new.get(name, own) for name, own in self._true.items()}

    def content(self) -> bytes:
        """The serialized model."""
        values = self._cuts.values
        graph = onnx.GraphProto(name="piece")
        held: dict[str, Array] = {}
        for node in self._nodes:
            proto = ir.to_proto(node)
            for index, value in enumerate(node.inputs):
                array = None if value is None else constant(value)
                if array is None:
                    continue
                name = self._parameter(node, index)
                if name is not None:
                    proto.input[index] = name
                else:
                    held[str(value.name)] = array  # type: ignore[union-attr]
            graph.node.append(proto)
        for name, array in held.items():
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        for name in self._given:
            graph.input.append(_info(name, values[name]))
        for name, array in self._true.items():
            shape = list(array.shape)
            kind = onnx.TensorProto.FLOAT
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
        for name in self._wanted:
            graph.output.append(_info(name, values[name]))
        return self._wrapped(graph)

    def _wrapped(self, graph: onnx.GraphProto) -> bytes:
        made = onnx.ModelProto()
        made.CopyFrom(self._cuts.shell)
        made.graph.CopyFrom(graph)
        return bytes(made.SerializeToString())

    def _parameter(self, node: ir.Node, index: int) -> str | None:
        """The name under which a layer's weight or bias is fed."""
        layer = self._cuts.layers.get(id(node))
        if layer is not None and index == 1:
            return f"{layer.name}.weight"
        holder = self._cuts.holders.get(id(node))
        if holder is not None and index == (2 if holder.add is None else 1):
            return f"{holder.name}.bias"
        return None


def _info(name: str, value: ir.Value) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(value)))
    return onnx.helper.make_tensor_value_info(name, kind, list(shape_of(value)))
