"""Multiplications by constants as shifts and additions, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.edits import Edit, KeepFloat, Remark, ReplaceConstant, ShiftWeight
from edgevit.errors import UsageError
from edgevit.model import constant
from edgevit.passes.answer_bias import Pair, fitted_bias
from edgevit.passes.apply_shifts import apply_shifts
from edgevit.passes.channel_layers import ChannelLayer, channel_layers
from edgevit.passes.compensate import input_stream
from edgevit.passes.exclusion import check_excluded, check_named, excluded, is_named
from edgevit.passes.facts import given, operand
from edgevit.passes.output_worth import OutputWorth, Worth
from edgevit.passes.quantizable import quantizable
from edgevit.passes.quantize import scheme_of
from edgevit.passes.relay import Relay, Replaced, walk
from edgevit.passes.second_moments import Moments, moments
from edgevit.passes.shift_budget import (
    MEASURES,
    allocated,
    as_integers,
    corrected,
    losses,
)
from edgevit.passes.shift_rounding import Form, How, Rounded, form_of, round_layer
from edgevit.pipeline import CalibratedPass, Context, Effect, Outcome
from edgevit.shift_codes import encode

__all__ = ["ShiftAdd", "ShiftRound"]

# |sum of q x| of an int32 accumulator; activations have 8 bits, unsigned at worst.
_ACCUMULATOR, _LARGEST_CODE = 2**31 - 1, 255


@dataclass(frozen=True)
class ShiftAdd(CalibratedPass):
    """Weights of linear layers and convolutions as sums of signed powers of two.

    ``MatMul(x, W)``  ->  ``ShiftLinear(x, codes, 2^e)``, ``Conv(x, W, b)``  ->  ``ShiftConv``:
    ``y_n = 2^(e_n) sum over k and t of sign_tkn (x_k << s_tkn)``, ``s >= 0``

    ShiftAddViT (arXiv 2306.06446) trains such weights of one term for hundreds of epochs. Here
    nothing is trained:

    1. Every channel's exponent is that which reaches its largest weight, or the one below;
       codes are chosen with error compensation (``compensated_rounding``) and coordinate
       descent.
    2. Layers are rounded in order, and each makes good for what the ones before it have done
       to its input (``relay``): weights are refitted to it, and what is left on average goes
       into the bias, where there is one. What quantizers of activations do is not among it:
       its mean is that of a few clipped numbers, and a constant for them moves all others.
       Where a softmax of the last layer ends the network, its bias makes every answer as
       likely as it is without any rounding (``answer_bias``).
    3. Forms separated by ``|`` are choices: each layer's are measured alone, by the divergence
       of the network's output, and allocated under ``budget``.
    4. With ``curvature=gradient`` outputs of a layer make good for each other's errors as far
       as the network's answers do not depend on them (``two_sided_rounding``): backward passes
       through torch, extra ``[torch]``. Layers of several groups, or more than 4,096 outputs,
       round each output by itself.
    5. A layer stays as it is where its weight is computed, shared with another layer or not
       finite, or where a sum of products could leave int32.

    Attributes:
        terms: Form of linear layers: shift terms ``1`` to ``3``, or ``int2`` to ``int8``,
            plain integers by the same method.
        conv: The same of convolutions; empty: as ``terms`` says.
        layers: Forms of single layers: ``pattern:form``, separated by ``;``; a pattern names
            something in the graph.
        budget: Of case 3; 0 without choices.
        measure: What ``budget`` bounds: the mean number of ``terms`` a weight (layers of
            integers do not count), ``bits`` a weight, ``shifts`` (terms a multiplication), or
            ``accuracy``: the sum of the divergences, at the fewest bits.
        wide: 15 octaves (5 bits a term) instead of 7 (4 bits): sums are no longer int8.
        scale: ``power``: scales are powers of two; ``free``: any number, folded into what
            follows.
        samples: Calibration samples on which case 3 measures.
        damping: Ridge of the rounding, as a share of the mean of ``E[x x^T]``'s diagonal.
        ridge: Ridge of refitting, likewise; negative: no refitting.
        order: ``sequential`` as in case 2, or ``parallel``: every layer reads the input that
            it has today, and only its own codes go into the bias. Half the time.
        sweeps: Rounds of coordinate descent; one where case 4 rounds.
        rows: Output positions of a sample that are looked at.
        curvature: ``none``, or ``gradient`` as in case 4.
        probes: Samples for the gradients.
        together: Ridge of case 4, as a share of the mean of ``E[g g^T]``'s diagonal.
        exclude: Patterns of layer names that are left alone, separated by ``|``.
    """

    name: ClassVar[str] = "shiftadd"
    quantizes: ClassVar[bool] = True
    compensates: ClassVar[bool] = True

    terms: str = "2"
    conv: str = ""
    layers: str = ""
    budget: float = 0.0
    measure: str = "terms"
    wide: bool = False
    scale: str = "power"
    samples: int = 4
    damping: float = 0.01
    ridge: float = 0.01
    order: str = "sequential"
    sweeps: int = 3
    rows: int = 512
    curvature: str = "none"
    probes: int = 256
    together: float = 0.1
    exclude: str = ""

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Choose codes, exponents, biases and numbers of terms."""
        check_excluded(model, self.exclude, self.name)
        check_named(model, self._own(), self.name, "layers")
        worth = self.worth(model, context)  # first: it may need what is not installed
        return self.plan_on(model, context, self.moments(model, context), {}, worth)

    @property
    def alone(self) -> bool:
        """Whether layers are looked at by themselves, on moments of their own."""
        return self.compensates and (self.order == "parallel" or self.budget > 0)

    def moments(self, model: ir.Model, context: Context) -> Mapping[str, Moments]:
        """What every layer reads today, where layers are looked at by themselves."""
        self._check()
        layers, _ = self._split(model)
        if not layers or not self.alone:
            return {}
        source = input_stream(model, layers, context, str(self))
        count = len(context.data(str(self)))
        return moments(layers, source, self.rows, count, context.seed)

    def plan_on(
        self,
        model: ir.Model,
        context: Context,
        seen: Mapping[str, Moments],
        known: dict[tuple[str, Form, How], Rounded],
        worth: Worth,
    ) -> tuple[Edit, ...]:
        """``plan`` where moments are known.

        Args:
            model: As in ``plan``.
            context: As in ``plan``.
            seen: What ``moments`` gives.
            known: Layers that were rounded before, for plans of other options on the same
                moments and ``worth``; what is rounded now is added.
            worth: What ``worth`` gives.
        """
        self._check()
        layers, edits = self._split(model)
        forms = {layer.name: self._forms(layer) for layer in layers}
        least = scheme_of(context).least_scale if context.target is not None else 0.0
        how = self._how(least)
        made: dict[str, dict[Form, Rounded]] = {}
        for layer in layers if self.alone or not self.compensates else ():
            made[layer.name] = {}
            for form in forms[layer.name]:
                key = (layer.name, form, how)
                if key not in known:
                    known[key] = round_layer(
                        layer, seen.get(layer.name), form, how, worth.get(layer.name)
                    )
                made[layer.name][form] = known[key]
        chosen = self._chosen(model, layers, forms, made, context)
        said: list[Remark] = []
        if self.order == "parallel" or not self.compensates:
            rounded = {name: made[name][form] for name, form in chosen.items()}
        else:
            rounded, said = self._in_order(model, layers, chosen, context, least, worth)
        for layer in layers:
            edits += _edits(layer, chosen[layer.name], rounded[layer.name])
        said += self._together.remarks(worth, len(layers), context)
        return (*self._unread(layers), *edits, *said)

    def worth(self, model: ir.Model, context: Context) -> Worth:
        """What errors of a layer's outputs are worth together (case 4)."""
        self._check()
        return self._together.measured(model, self._split(model)[0], context)

    @property
    def _together(self) -> OutputWorth:
        return OutputWorth(self.curvature, self.probes, self.together, str(self))

    def _how(self, least: float) -> How:
        """Of layers that are looked at by themselves."""
        how = How(self.damping, -1.0, self.sweeps, self.compensates, least)
        return replace(how, together=self.together)

    def _in_order(
        self,
        model: ir.Model,
        layers: Sequence[ChannelLayer],
        chosen: Mapping[str, Form],
        context: Context,
        least: float,
        worth: Worth,
    ) -> tuple[dict[str, Rounded], list[Remark]]:
        """Case 2, and what it says of the answers."""
        how = replace(self._how(least), ridge=self.ridge, aim=True)
        rounded: dict[str, Rounded] = {}
        said: list[Remark] = []

        def answer(layer: ChannelLayer, seen: Moments) -> Replaced:
            made = round_layer(layer, seen, chosen[layer.name], how, worth.get(layer.name))
            rounded[layer.name] = made
            if _overflow(made) is not None:
                return layer.weight, layer.bias
            weight = made.codes * made.grid.columns(made.codes.shape[2])
            return layer.from_matrix(weight), corrected(layer, made)

        def settle(layer: ChannelLayer, pairs: Sequence[Pair]) -> None:
            made = rounded[layer.name]
            if _overflow(made) is None:
                bias = fitted_bias(layer, made, pairs)
                rounded[layer.name] = replace(made, shift=made.shift + bias.shift)
                said.append(bias.remark(layer))

        if layers:
            data = context.data(str(self))
            walk(model, layers, data, Relay(self.rows, context.seed), answer, settle)
        return rounded, said

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Store codes and biases."""
        return apply_shifts(model, edits, self.name)

    def _check(self) -> None:
        for field, known in (
            ("measure", MEASURES),
            ("order", ("sequential", "parallel")),
            ("scale", ("power", "free")),
        ):
            if getattr(self, field) not in known:
                raise UsageError(
                    f"{self.name}: {field} is {getattr(self, field)!r}",
                    hint="it can be: " + ", ".join(known),
                )
        if not 0 < self.damping < np.inf or not self.ridge < np.inf:
            raise UsageError(
                f"{self.name}: damping and ridge are numbers, damping a positive one"
            )
        self._together.check(self.name)
        if self.sweeps < 0 or self.samples < 1 or self.rows < 1:
            raise UsageError(
                f"{self.name}: samples and rows are positive, sweeps is not negative"
            )
        for text in (self.terms, self.conv or self.terms, *self._own().values()):
            self._parsed(text)
        choices = "|" in self.terms + self.conv + "".join(self._own().values())
        if choices != (self.budget > 0):
            raise UsageError(
                f"{self.name}: forms to choose from need a budget, and a budget needs choices",
                hint="terms=1|2|3,budget=1.5",
            )

    def _forms(self, layer: ChannelLayer) -> tuple[Form, ...]:
        """What a layer's weights may be."""
        text = self.conv or self.terms if layer.is_conv else self.terms
        for pattern, form in self._own().items():
            if any(is_named(name, pattern) for name in _names(layer)):
                text = form
        return self._parsed(text)

    def _own(self) -> dict[str, str]:
        """Pattern -> form of single layers."""
        items = (item.rpartition(":") for item in self.layers.split(";") if item)
        return {pattern: form for pattern, _, form in items}

    def _unread(self, layers: Sequence[ChannelLayer]) -> Iterator[Remark]:
        """Forms of nodes that get no codes."""
        names = [name for layer in layers for name in _names(layer)]
        for pattern in self._own():
            if not any(is_named(name, pattern) for name in names):
                yield Remark(f"no layer called {pattern!r} gets codes: its form is not used")

    def _parsed(self, text: str) -> tuple[Form, ...]:
        free = self.scale == "free"
        where = f"pass {self.name!r}"
        return tuple(form_of(f.strip(), self.wide, free, where) for f in text.split("|"))

    def _split(self, model: ir.Model) -> tuple[list[ChannelLayer], list[Edit]]:
        """Layers that get codes, and refusals for the others (case 5)."""
        found = {str(x.node.outputs[0].name): x for x in channel_layers(model)}
        known = {q.key: q for q in quantizable(model)}
        chosen: list[ChannelLayer] = []
        kept: list[Edit] = []
        for node in model.graph:
            if node.domain or node.op_type not in ("Conv", "ConvTranspose", "MatMul"):
                continue
            key = str(node.outputs[0].name)
            layer = found.get(key)
            reason = _reason(node, layer)
            if layer is not None and reason is None:
                pattern = excluded(known[key], self.exclude)
                reason = None if pattern is None else f"excluded by {pattern!r}"
            if layer is None or reason is not None:
                kept.append(KeepFloat(key, reason or "its weight is stored in codes already"))
            else:
                chosen.append(layer)
        return chosen, kept

    def _chosen(
        self,
        model: ir.Model,
        layers: Sequence[ChannelLayer],
        forms: Mapping[str, tuple[Form, ...]],
        made: Mapping[str, Mapping[Form, Rounded]],
        context: Context,
    ) -> dict[str, Form]:
        """One form for every layer: the only one, or what the budget allows."""
        chosen = {name: mine[0] for name, mine in forms.items()}
        open_ = [x for x in layers if len(forms[x.name]) > 1]
        if not open_:
            return chosen
        found = losses(model, open_, made, context, self.samples, str(self))
        return chosen | allocated(open_, found, self.budget, self.measure)


@dataclass(frozen=True)
class ShiftRound(ShiftAdd):
    """The nearest sums of signed powers of two: no data, and a bound.

    ``|W - Q| <= 2^e / 2`` up to the first gap of the codes, a third of the weight behind one
    term's, and so on: each term bounds what the ones before it leave. The options mean what
    they mean in ``shiftadd``; choices need data and are refused.
    """

    name: ClassVar[str] = "shift-round"
    effect: ClassVar[Effect] = Effect.BOUNDED
    needs_samples: ClassVar[bool] = False
    compensates: ClassVar[bool] = False

    def _check(self) -> None:
        super()._check()
        if self.budget:
            raise UsageError(
                f"{self.name}: choices are measured on calibration data", hint="use shiftadd"
            )
        if self.curvature != "none":
            raise UsageError(
                f"{self.name}: gradients need calibration data", hint="use shiftadd"
            )


def _names(layer: ChannelLayer) -> tuple[str, ...]:
    """What patterns may call a layer: its result, its node's, its node."""
    return layer.name, str(layer.node.outputs[0].name), str(layer.node.name)


def _reason(node: ir.Node, layer: ChannelLayer | None) -> str | None:
    """Case 5: why a layer is left as it is."""
    if node.op_type == "ConvTranspose":
        return "a transposed convolution has no form of shifts"
    if layer is None:
        weight = given(node, 1)
        computed = constant(weight) is None and (weight is None or _computed(weight))
        if computed:
            return "its weight is computed, not constant: no codes can be stored"
        return "its weight is stored in codes already, or is no matrix"
    if len(operand(node, 1).uses()) > 1:
        return "its weight is shared with another layer"
    if not np.isfinite(layer.weight).all():
        return "its weight is not finite"
    return None


def _computed(weight: ir.Value) -> bool:
    maker = weight.producer()
    return maker is None or maker.op_type != "DequantizeLinear"


def _edits(layer: ChannelLayer, form: Form, made: Rounded) -> Iterator[Edit]:
    """The weights and the bias of one layer."""
    key = str(layer.node.outputs[0].name)
    reason = _overflow(made)
    if reason is not None:
        yield KeepFloat(key, reason)
        return
    if not form.terms:
        yield as_integers(layer, made)
    else:
        matrix = made.codes.reshape(layer.outputs, -1).T
        packed = encode(np.ascontiguousarray(matrix), form.terms, form.wide)
        detail = _detail(form, made)
        yield ShiftWeight(key, packed.codes, packed.signs, made.scale, packed.inputs, detail)
    bias = corrected(layer, made)
    if bias is not None:
        holder = layer.add or layer.node
        name = str(operand(holder, 2 if layer.is_conv else 1).name)
        yield ReplaceConstant(name, bias, (str(holder.outputs[0].name),))


def _largest(made: Rounded) -> int:
    """``sum |q|`` of the channel where it is most."""
    return int(np.abs(made.codes.astype(np.int64)).sum(axis=2).max(initial=0))


def _overflow(made: Rounded) -> str | None:
    """Why an int32 accumulator could overflow; ``None`` if it cannot."""
    # Kernels that want unsigned weights multiply q + 128, and take it back afterwards.
    bound = _LARGEST_CODE * (_largest(made) + 128 * made.codes.shape[2])
    if bound <= _ACCUMULATOR:
        return None
    return f"a sum of its products could be {bound:.3g}, beyond int32 accumulators"


def _detail(form: Form, made: Rounded) -> str:
    tiny = 1e-20
    after, before = (-10 * np.log10(max(e, tiny)) for e in (made.after, made.before))
    exponents = np.log2(made.scale.astype(np.float64))
    kind = "free scale" if form.free else "2^e"
    clipped = f", {made.clipped:.2%} clipped" if made.clipped else ""
    return (
        f"{form}, {form.bits} bits a weight, {kind} with e {exponents.min():.4g} to "
        f"{exponents.max():.4g}; output error {after:.1f} dB below it (nearest codes "
        f"{before:.1f}){clipped}; sum of |q| at most {_largest(made)}"
    )
