"""Weights rounded so that what they compute on data changes least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, QuantizeWeight, Remark, ReplaceConstant
from edgevit.errors import UsageError
from edgevit.layer_rules import float_reason
from edgevit.passes.answer_bias import Pair, fitted_bias
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.exclusion import check_excluded, excluded
from edgevit.passes.facts import Array, operand
from edgevit.passes.output_worth import OutputWorth, Worth
from edgevit.passes.quantizable import quantizable
from edgevit.passes.quantize import scheme_of
from edgevit.passes.reconstruct_weights import Reconstruction, Settings, held, reconstruct
from edgevit.passes.relay import Relay, Replaced, walk
from edgevit.passes.second_moments import Moments, float_input, moments
from edgevit.pipeline import CalibratedPass, Context, Outcome
from edgevit.quantization import QParams
from edgevit.statistics import stream
from edgevit.target import QuantScheme

__all__ = ["Compensate", "CorrectBias", "in_scheme", "input_stream"]

_WIDEST = 8192  # inputs of a layer whose second moments are taken


@dataclass(frozen=True)
class Compensate(CalibratedPass):
    """Store weights as codes that are chosen together, and correct the bias for the rest.

    ``Layer(x, W, b)``  ->  ``Layer(x, DequantizeLinear(W.codes), b')``

    1. Each column's rounding error is carried on to those after it by the inverse of
       ``H = E[x x^T]`` (``compensated_rounding``).
    2. Where the input is quantized already, weights are first refitted by least squares to
       the input without quantizers (``reconstruct_weights``): run ``quantize{weights=-1}``
       before.
    3. What is left on average goes into the bias, where there is one.

    4. In ``order=sequential`` each layer is given what the layers in front of it, as they are
       by then, and the quantizers of activations have left of its input (``relay``): case 2
       refits it to the input in the float network, so that layers make good for what happens
       before them, none for what another one has made good for. Where a softmax of the last
       layer ends the network, its bias makes every answer as likely as it was
       (``answer_bias``).
    5. With ``curvature=gradient`` outputs of a layer make good for each other's errors as far
       as the network's answers do not depend on them (``two_sided_rounding``): backward passes
       through torch, extra ``[torch]``. Layers of several groups, or more than 4,096 outputs,
       round each output by itself.
    6. With ``widen``, layers whose outputs suffer most for the bytes they save get 8 bits
       after all: greedy by error over bytes, as MPTQ-ViT (arXiv 2401.14895) weighs accuracy
       against compressibility.

    A weight that several layers read is left for ``quantize``, and so are layers whose second
    moments would not fit (8,192 inputs: half a gigabyte in float64) and convolutions over
    volumes. Activations stay as they are.

    Attributes:
        weights: Bits of weight codes; 0: the device's scheme decides.
        block: Inputs of a linear layer that share a scale; 0: the device's scheme decides.
        damping: Ridge of the rounding, as a share of the mean of H's diagonal.
        ridge: Ridge of case 2, likewise; negative: no refitting.
        rows: Output positions of a sample that are looked at.
        order: ``parallel`` or ``sequential`` (case 4).
        widen: Bytes that case 6 may add, as a share of the weights' bytes without it.
        curvature: ``none``, or ``gradient`` as in case 5.
        probes: Samples for the gradients.
        together: Ridge of case 5, as a share of the mean of ``E[g g^T]``'s diagonal.
        exclude: Patterns of layer names that are left alone, separated by ``|``.
    """

    name: ClassVar[str] = "compensate"
    rounds: ClassVar[bool] = True

    weights: int = 0
    block: int = 0
    damping: float = 0.01
    ridge: float = 0.01
    rows: int = 512
    order: str = "parallel"
    widen: float = 0.0
    curvature: str = "none"
    probes: int = 256
    together: float = 0.1
    exclude: str = ""

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose codes, scales and biases of every layer from the moments of its input."""
        check_excluded(model, self.exclude, self.name)
        scheme = scheme_of(context)
        settings = self._settings(scheme)
        layers = list(self._layers(model, scheme))
        if not layers:
            return ()
        samples = context.data(str(self))
        worth = self._together.measured(model, layers, context)
        build = partial(self._rebuilt, settings=settings, scheme=scheme, worth=worth)
        widened = partial(_widened, settings=settings, scheme=scheme, worth=worth)
        found: dict[str, Reconstruction] = {}
        wide: set[str] = set()
        said = self._together.remarks(worth, len(layers), context)
        if self.order == "parallel" or self.widen:
            source = input_stream(model, layers, context, str(self))
            seen = moments(layers, source, self.rows, len(samples), context.seed)
            found = {x.name: build(x, seen[x.name]) for x in layers}
            wide = _worst(layers, found, settings.bits, self.widen)
        if self.order == "sequential":
            ways = {x.name: widened if x.name in wide else build for x in layers}
            found, answers = self._in_order(model, layers, ways, context)
            said += answers
        else:
            for layer in (x for x in layers if x.name in wide):
                found[layer.name] = widened(layer, seen[layer.name])
        return (*self._edits(layers, found, scheme), *said)

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Store the codes and the biases."""
        return apply(model, edits, self.name)

    def _settings(self, scheme: QuantScheme) -> Settings:
        bits = self.weights or scheme.bits_of("MatMul")
        if not 2 <= bits <= 8:
            raise UsageError(f"{self.name}: weights expects 2 to 8 bits, found {bits}")
        if self.widen < 0:
            raise UsageError(f"{self.name}: widen expects a share, found {self.widen}")
        if self.order not in ("parallel", "sequential"):
            raise UsageError(
                f"{self.name}: order is {self.order!r}",
                hint="it can be: parallel, sequential",
            )
        if self.damping <= 0:
            raise UsageError(f"{self.name}: damping expects a positive share")
        self._together.check(self.name)
        if not self.rounds and self.curvature != "none":
            raise UsageError(
                f"{self.name}: nearest codes take no gradients", hint="use compensate"
            )
        block = self.block or scheme.block
        return Settings(
            bits, block, self.rounds, self.damping, self.ridge, together=self.together
        )

    def _layers(self, model: ir.Model, scheme: QuantScheme) -> Iterator[ChannelLayer]:
        keys = {q.key: q for q in quantizable(model)}
        for layer in channel_layers(model):
            found = keys.get(str(layer.node.outputs[0].name))
            shared = len(operand(layer.node, 1).uses()) > 1
            if found is None or shared or not in_scheme(layer, scheme) or not _fits(layer):
                continue
            if excluded(found, self.exclude) is None:
                yield layer

    def _in_order(
        self,
        model: ir.Model,
        layers: Sequence[ChannelLayer],
        ways: Mapping[str, Callable[[ChannelLayer, Moments], Reconstruction]],
        context: Context,
    ) -> tuple[dict[str, Reconstruction], list[Remark]]:
        """Case 4, and what it says of the answers."""
        found: dict[str, Reconstruction] = {}
        said: list[Remark] = []

        def answer(layer: ChannelLayer, seen: Moments) -> Replaced:
            made = found[layer.name] = ways[layer.name](layer, seen)
            weight = made.codes * made.grid.columns(made.codes.shape[2])
            return layer.from_matrix(weight), _corrected(layer, made)

        def settle(layer: ChannelLayer, pairs: Sequence[Pair]) -> None:
            made = found[layer.name]
            bias = fitted_bias(layer, made, pairs)
            found[layer.name] = replace(made, shift=made.shift + bias.shift)
            said.append(bias.remark(layer))

        samples = context.data(str(self))
        relay = Relay(self.rows, context.seed, rounded=False)
        walk(model, layers, samples, relay, answer, settle)
        return found, said

    def _edits(
        self,
        layers: Sequence[ChannelLayer],
        found: Mapping[str, Reconstruction],
        scheme: QuantScheme,
    ) -> Iterator[Edit]:
        for layer in layers:
            made = found[layer.name]
            key = (str(layer.node.outputs[0].name),)
            codes = layer.from_matrix(made.codes)  # int8: a bundle keeps them as they are
            params = _params(layer, made, scheme.weights if made.grid.high <= 7 else "int8")
            yield QuantizeWeight(str(operand(layer.node, 1).name), params, key, codes)
            bias = _corrected(layer, made)
            if bias is None:
                continue
            holder = layer.add or layer.node
            name = str(operand(holder, 2 if layer.is_conv else 1).name)
            yield ReplaceConstant(name, bias, (str(holder.outputs[0].name),))

    @property
    def _together(self) -> OutputWorth:
        return OutputWorth(self.curvature, self.probes, self.together, str(self))

    def _rebuilt(
        self,
        layer: ChannelLayer,
        seen: Moments,
        settings: Settings,
        scheme: QuantScheme,
        worth: Worth,
    ) -> Reconstruction:
        """Blocks are for linear layers: a filter's inputs are few."""
        if layer.is_conv:
            bits = self.weights or scheme.bits_of("Conv")
            settings = replace(settings, bits=bits, blocks=0)
        made = reconstruct(layer, seen, settings, worth.get(layer.name))
        return held(made, scheme.least_scale)


@dataclass(frozen=True)
class CorrectBias(Compensate):
    """Plain rounding of weights, with the expected error of the output in the bias.

    ``Layer(x, W, b)``  ->  ``Layer(x', Q, b + W E[x] - Q E[x'])``: Nagel, van Baalen,
    Blankevoort and Welling (arXiv 1906.04721), section 4.2, with expectations from data; x'
    is the input behind its quantizer, where it has one. The options mean what they mean in
    ``compensate`` (case 4's last bias too); weights are neither refitted nor compensated.
    """

    name: ClassVar[str] = "correct-bias"
    rounds: ClassVar[bool] = False

    ridge: float = -1.0


def _fits(layer: ChannelLayer) -> bool:
    """Whether second moments of its input can be taken: of images or rows, not too many."""
    inputs = layer.weight.size // layer.outputs
    return inputs <= _WIDEST and (not layer.is_conv or layer.weight.ndim == 4)


def in_scheme(layer: ChannelLayer, scheme: QuantScheme) -> bool:
    """Whether an engine's scheme has integers for a layer."""
    return float_reason(layer.node, layer.weight.shape, scheme) is None


def _widened(
    layer: ChannelLayer, seen: Moments, settings: Settings, scheme: QuantScheme, worth: Worth
) -> Reconstruction:
    """8 bits, one scale a channel."""
    wide = replace(settings, bits=8, blocks=0)
    made = reconstruct(layer, seen, wide, worth.get(layer.name))
    return held(made, scheme.least_scale)


def _corrected(layer: ChannelLayer, made: Reconstruction) -> Array | None:
    """The bias that makes good for what is left on average."""
    if layer.bias is None:
        return None
    return (layer.bias.astype(np.float64) + made.shift).astype(layer.bias.dtype)


def _worst(
    layers: Sequence[ChannelLayer],
    found: Mapping[str, Reconstruction],
    bits: int,
    share: float,
) -> set[str]:
    """Layers with the most error for the bytes that 8 bits would add, within the share."""
    left = share * sum(layer.weight.size for layer in layers) * bits / 8
    if bits >= 8 or left <= 0:
        return set()
    order = sorted(layers, key=lambda x: (-found[x.name].after / x.weight.size, x.name))
    chosen = set()
    for layer in order:
        added = layer.weight.size * (8 - bits) / 8
        if added <= left:
            left -= added
            chosen.add(layer.name)
    return chosen


def _params(layer: ChannelLayer, made: Reconstruction, dtype: str) -> QParams:
    scale, low, high = made.grid.scale, made.grid.low, made.grid.high
    blocks = scale.shape[2]
    if blocks == 1:
        line = scale.reshape(-1)
        zero = np.zeros(line.shape, np.int32)
        return QParams(line, zero, dtype, low, high, 0 if layer.is_conv else 1)
    table = np.ascontiguousarray(scale[0].T)  # [K / block, N]
    zero = np.zeros(table.shape, np.int32)
    return QParams(table, zero, dtype, low, high, 0, layer.inputs // blocks)


def input_stream(
    model: ir.Model, layers: Sequence[ChannelLayer], context: Context, spec: str
) -> Iterator[Mapping[str, Array]]:
    """Inputs of layers before and behind their quantizers, sample by sample.

    Both come from the one quantized network: each layer then makes good for its own input's
    rounding. Against a network without any quantizers every layer would make good for all
    that happens before it, as if no other did: measured, it is worse than doing nothing.
    """
    names = [str(v.name) for layer in layers for v in (layer.x, float_input(layer.x))]
    return stream(model, samples=context.data(spec), values=list(dict.fromkeys(names)))
