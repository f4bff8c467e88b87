"""A network walked layer by layer, once as it is and once with new weights so far.

A layer that is rounded changes what all behind it read. Rounded one after the other, each can
make good for what the ones before it have done: it is given both inputs, the true one and the
one that is left of it (Li et al., "GPTAQ", arXiv 2504.02692). What lies between two layers is
run for all samples at a time, so that no part of the network runs more than twice; once more
where the last layer wants to know what it reads without any quantizers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from edgevit.calibration import DataSource, Slice
from edgevit.model import Names, constant, dtype_of, shape_of
from edgevit.passes.answer_bias import Pair, gives_answers
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.second_moments import (
    Moments,
    enough,
    filter_inputs,
    float_input,
    no_samples,
    positions,
    require_finite,
)
from edgevit.reference_stream import Pieces

__all__ = ["Relay", "Replaced", "walk"]

# What lives between two layers is held for all samples, true and left: how many, how many
# bytes.
_MOST, _HELD = 512, 1 << 30
State = dict[str, Array]
# What a layer becomes: its weight in the stored layout, and its bias.
Replaced = tuple[Array, Array | None]


@dataclass(frozen=True)
class Relay:
    """How layers are looked at.

    Attributes:
        rows: Output positions of a sample that are looked at, at most.
        seed: Of their choice.
        rounded: Whether the true network has the quantizers of activations too; without them
            layers make good for what those have done.
    """

    rows: int
    seed: int
    rounded: bool = True


def walk(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    samples: DataSource,
    how: Relay,
    replace: Callable[[ChannelLayer, Moments], Replaced],
    settle: Callable[[ChannelLayer, Sequence[Pair]], None] | None = None,
) -> None:
    """Hand every layer, in order, the moments of what it reads, and go on with its answer.

    Args:
        model: Canonical model, activation quantizers in place.
        layers: In the order of the graph; their weights belong to nobody else.
        samples: Of the model's inputs; the first 512, or as many of them as a gigabyte
            holds.
        how: Settings.
        replace: Layer and moments (``t``: true, ``x``: with the new weights before it) -> what
            its weight and bias become.
        settle: Called behind ``replace`` for the layer that gives the network's answers, with
            what it reads: with the new weights before it; without them and all quantizers of
            activations.

    Raises:
        InputError: There are no samples, or what a layer reads is not finite on them.
    """
    cuts = _Cuts(model, layers)
    fitting = max(1, min(_MOST, _HELD // (2 * cuts.widest)))
    some = Slice(samples, 0, min(len(samples), fitting))
    true: list[State] = [dict(s) for s in some]
    left = list(true)
    new: dict[str, Array] = {}
    with Pieces() as engine:
        for at, stage in enumerate(cuts.stages):
            if piece := cuts.piece(at):
                _advance(engine, piece, true, {}, how.rounded)
                _advance(engine, piece, left, new, True)
            for layer in stage:
                weight, bias = replace(layer, _moments(layer, true, left, how))
                new[cuts.weights[layer.name]] = weight.astype(np.float32)
                if bias is not None:
                    new[cuts.biases[layer.name]] = bias.astype(np.float32)
                if settle is not None and gives_answers(layer):
                    exact = _exact(engine, cuts, at, some) if how.rounded else true
                    pairs = _pairs(layer, exact, left, how)
                    settle(layer, [(x[0], t[0]) for x, t in pairs])


def _exact(engine: Pieces, cuts: _Cuts, at: int, samples: DataSource) -> list[State]:
    """What lives in front of a stage without quantizers and new weights."""
    states: list[State] = [dict(s) for s in samples]
    if piece := cuts.piece(at, 0):
        _advance(engine, piece, states, {}, False)
    return states


def _pairs(
    layer: ChannelLayer, true: Sequence[State], left: Sequence[State], how: Relay
) -> Iterator[Pair]:
    """What a layer reads on every sample, with new weights before it and truly."""
    name = str(layer.x.name)
    for count, pair in enumerate(zip(left, true, strict=True)):
        rng = np.random.default_rng([how.seed, count])
        at = positions(layer, enough(layer, how.rows, len(true)), rng)
        x, t = (filter_inputs(state[name], layer, at) for state in pair)
        yield x, t


def _moments(
    layer: ChannelLayer, true: Sequence[State], left: Sequence[State], how: Relay
) -> Moments:
    seen = None
    for x, t in _pairs(layer, true, left, how):
        seen = seen or Moments.empty(x.shape[0], x.shape[2], True)
        seen.add(x, t)
    if seen is None:
        raise no_samples()
    require_finite(layer.name, seen)
    return seen


def _advance(
    engine: Pieces, piece: _Piece, states: list[State], new: State, rounded: bool
) -> None:
    """Run a piece on every state, in place: what nothing reads any more is let go."""
    answers = engine.run(
        piece.content(new, rounded), ({n: s[n] for n in piece.given} for s in states)
    )
    for i, found in enumerate(answers):
        before = states[i]
        states[i] = {n: found[n] if n in found else before[n] for n in piece.live}


class _Cuts:
    """Where a network is cut: in front of every stage of layers that can be seen at once.

    Attributes:
        model: The network.
        nodes: Its nodes.
        values: Its inputs and what its nodes make, by name.
        shell: A model of its opsets and functions, without a graph.
        layers: Node -> the layer it is.
        holders: Node that has the bias -> the layer.
        weights: Layer -> what its new weight is called, as nothing in the network is.
        biases: Layer -> what its new bias is called.
        stages: Layers that are seen at once.
        starts: Where the first node of each stage stands.
        lives: What lives in front of each stage.
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
        names = Names(model.graph)
        self.weights = {x.name: names.fresh(f"{x.name}.weight") for x in layers}
        self.biases = {x.name: names.fresh(f"{x.name}.bias") for x in layers}
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
        self.lives = [self._live(start) for start in self.starts]

    @property
    def widest(self) -> int:
        """Most bytes of one sample that live in front of a stage."""
        return max(sum(_nbytes(self.values[n]) for n in live) for live in self.lives)

    def _live(self, start: int) -> list[str]:
        """Values made in front of a node that it or others behind it read."""
        inputs = [str(v.name) for v in self.model.graph.inputs]
        made = {str(o.name) for n in self.nodes[:start] for o in n.outputs} | set(inputs)
        return [n for n in _read(self.nodes[start:]) if n in made]

    def piece(self, at: int, since: int | None = None) -> _Piece | None:
        """What stands between a cut, by default the one before, and stage ``at``, if any."""
        since = at if since is None else since
        nodes = self.nodes[self.starts[since - 1] if since else 0 : self.starts[at]]
        inside = set(_read(nodes))
        before = self.lives[since - 1] if since else self._live(0)
        given = [n for n in before if n in inside]
        return _Piece(self, nodes, given, self.lives[at]) if nodes else None


class _Piece:
    """Nodes between two cuts as a model.

    Attributes:
        given: Names of what goes in.
        live: Names of what is read behind it, made in it or before.
    """

    def __init__(
        self, cuts: _Cuts, nodes: Sequence[ir.Node], given: Sequence[str], live: Sequence[str]
    ) -> None:
        self._cuts, self._nodes = cuts, nodes
        self.given, self.live = given, live

    def content(self, new: Mapping[str, Array], rounded: bool) -> bytes:
        """The serialized model.

        Args:
            new: Weights and biases in the place of layers' own.
            rounded: With quantizers of activations; else without.
        """
        graph = onnx.GraphProto(name="piece")
        held: dict[str, Array] = {}
        for node in self._nodes:
            out = node.outputs[0]
            source = float_input(out)
            if not rounded and source is not out:
                passed = onnx.helper.make_node("Identity", [str(source.name)], [str(out.name)])
                graph.node.append(passed)
                continue
            proto = ir.to_proto(node)
            for index, value in enumerate(node.inputs):
                array = None if value is None else constant(value)
                if value is None or array is None:
                    continue
                name = self._parameter(node, index)
                if name in new:
                    proto.input[index] = name
                    held[name] = new[name]
                else:
                    held[str(value.name)] = array
            graph.node.append(proto)
        for name, array in held.items():
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        made = {str(o.name) for n in self._nodes for o in n.outputs}
        values = self._cuts.values
        graph.input.extend(_info(n, values[n]) for n in self.given)
        graph.output.extend(_info(n, values[n]) for n in self.live if n in made)
        return self._wrapped(graph)

    def _wrapped(self, graph: onnx.GraphProto) -> bytes:
        made = onnx.ModelProto()
        made.CopyFrom(self._cuts.shell)
        made.graph.CopyFrom(graph)
        return bytes(made.SerializeToString())

    def _parameter(self, node: ir.Node, index: int) -> str:
        """The name of a layer's new weight or bias; of no meaning for other constants."""
        layer = self._cuts.layers.get(id(node))
        if layer is not None and index == 1:
            return self._cuts.weights[layer.name]
        holder = self._cuts.holders.get(id(node))
        if holder is not None and index == (2 if holder.add is None else 1):
            return self._cuts.biases[holder.name]
        return ""


def _read(nodes: Sequence[ir.Node]) -> list[str]:
    """What nodes read, with quantizers of activations and without."""
    found: dict[str, None] = {}
    for node in nodes:
        floats = (float_input(out) for out in node.outputs)
        others = (v for v in floats if v not in node.outputs)
        read = (v for v in (*node.inputs, *others) if v is not None)
        found |= dict.fromkeys(str(v.name) for v in read)
    return list(found)


def _nbytes(value: ir.Value) -> int:
    return math.prod(shape_of(value)) * np.dtype(dtype_of(value)).itemsize


def _info(name: str, value: ir.Value) -> onnx.ValueInfoProto:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype_of(value)))
    return onnx.helper.make_tensor_value_info(name, kind, list(shape_of(value)))
