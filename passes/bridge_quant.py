"""Quantization that is judged where hybrids break: at the exit of their bridge blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, FoldChannels, KeepFloat, QuantizeActivation, QuantizeWeight
from edgevit.errors import UsageError
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.bridge_weights import WAYS, importance
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.compensate import in_scheme
from edgevit.passes.exclusion import check_excluded, excluded
from edgevit.passes.facts import operand
from edgevit.passes.fold_channels import fold_all, notes_of
from edgevit.passes.joint_choice import Choice, choose, groups_of, worst
from edgevit.passes.joint_search import Format
from edgevit.passes.layer_rows import gather
from edgevit.passes.output_weights import Probe
from edgevit.passes.quantizable import quantizable
from edgevit.passes.quantize import Quantize, scheme_of
from edgevit.pipeline import CalibratedPass, Context, Note, Outcome
from edgevit.quantization import QParams, Scheme
from edgevit.statistics import stream
from edgevit.target import QuantScheme

__all__ = ["BridgeQuant"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BridgeQuant(CalibratedPass):
    """Choose granularity, scheme and scale of every tensor together (Q-HyViT).

    Lee, Kim, Hwang and Moon, "Q-HyViT" (arXiv 2303.12557): for every layer the error
    ``E[dO^T diag(h) dO]`` is minimized over the scale of weight and input, the scheme
    (symmetric, asymmetric) and the granularity (layer, channel), where O is the exit of the
    bridge block that a layer belongs to, and its own output elsewhere.

    1. Bridges come from the graph (``edgevit.bridges``). The weight h of a channel at an exit
       is the curvature of the divergence of the network's outputs, by forward passes of the
       tail only; carried back from the exit to a layer inside by forward passes of the piece
       in between (``output_weights``). With ``curvature=gradient`` both are measured by
       backward passes (``edgevit.torchgraph.curvature``, extra ``[torch]``).
    2. Elsewhere h is 1; with ``hessian=layers`` it is measured for every layer.
    3. Channel granularity is a change of channels that is folded exactly into what makes and
       what reads the tensor (``channel_folds``), or, with ``explicit``, a ``Mul`` of its own:
       what is quantized stays one scale for the tensor, as every engine wants it.
    4. Ranges without zero would overflow their zero point: zero is included, and it is said.
    5. With ``widen``, inputs whose rounding costs their layers most get 8 bits after all, for
       at most this share of the layers' multiplications.

    Attributes:
        weights: Bits of weight codes; 0: the device's scheme decides; -1: chosen as the
            scheme says, but left in float for a pass that rounds better (``compensate``).
        activations: Bits of activation codes; 0: the device's scheme decides.
        rounds: Alternating rounds over weight and input.
        rows: Rows of each layer's input that are looked at, over all samples.
        hessian: ``bridges`` (case 1), ``layers`` (case 2) or ``none``.
        curvature: How h is measured, ``forward`` or ``gradient``.
        probes: Samples for h.
        granularity: Whether channel granularity is tried.
        explicit: Case 3.
        scheme: ``both``, the ``device``'s only, or one by name.
        widen: Case 5.
        exclude: Patterns of layer names that stay float, separated by ``|``.
    """

    name: ClassVar[str] = "bridge-quant"
    quantizes: ClassVar[bool] = True

    weights: int = 0
    activations: int = 0
    rounds: int = 3
    rows: int = 256
    hessian: str = "bridges"
    curvature: str = "forward"
    probes: int = 4
    granularity: bool = True
    explicit: bool = False
    scheme: str = "both"
    widen: float = 0.0
    exclude: str = ""

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose everything; the edits of quantizers name values as folds leave them."""
        self._check()
        check_excluded(model, self.exclude, self.name)
        given = scheme_of(context)
        layers = list(self._layers(model, given))
        if not layers:
            return self._rest(model, (), context)
        samples = context.data(str(self))
        wanted = list(dict.fromkeys(str(layer.x.name) for layer in layers))
        found = stream(model, samples=samples, values=wanted)
        seen = gather(layers, found, self.rows, len(samples), context.seed)
        probe = Probe(self.probes, seed=context.seed)
        weights = importance(model, layers, samples, probe, self.hessian, self.curvature)
        groups = groups_of(model, layers, seen, weights, self.explicit)
        rng = np.random.default_rng(context.seed)
        form, high = self._form(given), self._high(given)
        rules = (high, self.rounds, self.granularity, rng)
        choices = [choose(g, form, *rules) for g in groups]
        wide = replace(form, bits=None)
        for index in worst(choices, self.widen if form.bits else 0.0):
            choices[index] = choose(groups[index], wide, *rules)
        folds = tuple(f for c in choices if (f := c.fold) is not None)
        folded = model.clone()
        fold_all(folded, folds, self.name)
        edits = tuple(self._edits(model, folded, choices, given))
        return (*folds, *edits, *self._rest(folded, edits, context))

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Fold, then put the quantizers in."""
        folds = [edit for edit in edits if isinstance(edit, FoldChannels)]
        changes = fold_all(model, folds, self.name)
        rest = apply(model, [e for e in edits if not isinstance(e, FoldChannels)], self.name)
        both = (*changes, *rest.changes)
        notes = (Note("", self._importance()), *notes_of(folds))
        return Outcome(model, bool(both), both, rest.refusals, notes if both else ())

    def _importance(self) -> str:
        """How channels were weighed, for the report."""
        if self.hessian == "none":
            return "every output channel counts the same"
        where = {"bridges": "at exits of bridge blocks", "layers": "at every layer's output"}
        how = {"forward": "forward passes only", "gradient": "gradients through torch"}
        return (
            f"importance of output channels: curvature of the output's divergence "
            f"{where[self.hessian]}, by {how[self.curvature]}"
        )

    def _check(self) -> None:
        for field, known in (
            ("hessian", ("bridges", "layers", "none")),
            ("curvature", WAYS),
            ("scheme", ("both", "device", "symmetric", "asymmetric")),
        ):
            if getattr(self, field) not in known:
                raise UsageError(
                    f"pass {self.name!r}: {field} is {getattr(self, field)!r}",
                    hint="it can be: " + ", ".join(known),
                )
        if not 0 <= self.widen <= 1:
            raise UsageError(f"pass {self.name!r}: widen expects 0 to 1, found {self.widen}")

    def _form(self, given: QuantScheme) -> Format:
        bits = self.activations or given.activation_bits or None
        return Format(given.activations, bits, self._schemes(given.scheme))

    def _schemes(self, device: Scheme) -> tuple[Scheme, ...]:
        """What is tried; a device of symmetric codes alone has nothing to choose from."""
        if device == "symmetric" or self.scheme == "device":
            return (device,)
        tried: tuple[Scheme, ...] = ("asymmetric", "symmetric")
        return tried if self.scheme == "both" else tuple(s for s in tried if s == self.scheme)

    def _high(self, given: QuantScheme) -> int:
        """Largest weight code."""
        bits = max(self.weights, 0) or given.bits_of("MatMul")
        return int(2 ** (bits - 1) - 1)

    def _layers(self, model: ir.Model, given: QuantScheme) -> Iterator[ChannelLayer]:
        keys = {q.key: q for q in quantizable(model)}
        for layer in channel_layers(model):
            found = keys.get(_key(layer))
            wanted = found is not None and in_scheme(layer, given)
            if found is not None and wanted and excluded(found, self.exclude) is None:
                yield layer

    def _rest(
        self, folded: ir.Model, edits: Sequence[Edit], context: Context
    ) -> tuple[Edit, ...]:
        """What is left: results that integer kernels write, layers of other kinds."""
        done = {edit.value for edit in edits if isinstance(edit, QuantizeActivation)}
        quantized = folded.clone()
        apply(quantized, edits, self.name)
        filler = Quantize(self.weights, self.activations, exclude=self.exclude)
        rest = filler.plan(quantized, context)
        return tuple(e for e in rest if getattr(e, "value", None) not in done)

    def _edits(
        self,
        model: ir.Model,
        folded: ir.Model,
        found: Sequence[Choice],
        given: QuantScheme,
    ) -> Iterator[Edit]:
        now = _counterparts(model, folded)
        written = {
            str(q.result.name) for q in quantizable(folded) if q.node.op_type in given.outputs
        }
        for choice in found:
            for value, params in choice.inputs.items():
                readers = [now[r.name] for r in choice.group.readers if r.x.name == value]
                name = str(readers[0].x.name)
                keys = tuple(_key(reader) for reader in readers)
                if given.activations:
                    yield QuantizeActivation(name, params, () if name in written else keys)
                if choice.overflows(value):
                    yield KeepFloat(name, _OVERFLOW)
            for layer in choice.group.readers:
                if layer.name in choice.scales and self.weights >= 0:
                    yield _weight(now[layer.name], choice, layer.name, given)


_OVERFLOW = (
    "its range holds no zero, so that a zero point of its own would overflow: zero is "
    "included, and the step is coarser"
)


def _key(layer: ChannelLayer) -> str:
    return str(layer.node.outputs[0].name)


def _counterparts(model: ir.Model, folded: ir.Model) -> Mapping[str, ChannelLayer]:
    """Layer name -> the same layer after folding: folds keep the order of layers."""
    pairs = zip(channel_layers(model), channel_layers(folded), strict=True)
    return {old.name: new for old, new in pairs}


def _weight(
    layer: ChannelLayer, choice: Choice, name: str, given: QuantScheme
) -> QuantizeWeight:
    scale, high = choice.scales[name], choice.high
    line = np.maximum(scale.reshape(-1), scale.dtype.type(given.least_scale))
    axis = 0 if layer.is_conv else 1
    params = QParams(line, np.zeros(line.shape, np.int32), given.weights, -high, high, axis)
    return QuantizeWeight(str(operand(layer.node, 1).name), params, (_key(layer),))
