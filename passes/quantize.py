"""Static quantization of layers with constant weights, as the engine wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.edits import (
    Edit,
    KeepFloat,
    QuantizeActivation,
    QuantizeAsRun,
    QuantizeWeight,
    Remark,
)
from edgevit.errors import UsageError
from edgevit.layer_rules import float_reason, writes_codes
from edgevit.model import constant, shape_of
from edgevit.passes.answering import answering
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.attention_products import scored
from edgevit.passes.choose_layers import cheaper, doubted, undoubting
from edgevit.passes.choose_ranges import divergences, split
from edgevit.passes.costly_inputs import keep_costly
from edgevit.passes.elementwise import only_reader
from edgevit.passes.exclusion import check_excluded, excluded
from edgevit.passes.quantizable import Quantizable, dequantized, quantizable
from edgevit.passes.weight_parameters import weight_parameters
from edgevit.pipeline import CalibratedPass, Context, Outcome
from edgevit.quantization import Scheme
from edgevit.quantizers import quantized_as_run
from edgevit.ranges import METHODS, activation_parameters
from edgevit.statistics import Statistics, collect
from edgevit.target import QuantScheme

__all__ = ["Quantize", "scheme_of"]

_CHOOSING = 8  # bits of activations at which ``auto`` asks the network
Function = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class _Draft:
    """A plan without the ranges of its activations.

    Attributes:
        scheme: What it follows.
        edits: Weights, layers that stay float, layers that quantize as they run.
        wanted: Activations that need ranges: value -> the layers that read it quantized.
        scored: Queries and keys that do: value -> the attentions that read it quantized.
    """

    scheme: QuantScheme
    edits: tuple[Edit, ...]
    wanted: dict[str, tuple[str, ...]]
    scored: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Quantize(CalibratedPass):
    """Quantize weights and activations of linear layers and convolutions.

    ``Layer(X, W)`` -> ``Layer(DQ(Q(X)), DQ(W.codes))``, and ``DQ(Q(.))`` behind the result of
    operators in the scheme's ``outputs``.

    1. The operator is in the device's scheme, its weight constant, the layer not excluded.
    2. A weight or input that is dequantized already, in front of operators that only move
       elements or right here, is left as it is; so is a result that only quantizers read.
    3. Values that are only constant zero in calibration keep their layer float: nothing says
       what their range is.
    4. Queries and keys of an ``Attention`` where the device's scheme has codes for them,
       symmetric ones, by ``observer=auto`` of the whole range; the values that it weights
       stay float.
    5. ``observer=auto``: at 8 bits the network itself chooses between ``mse`` and ``minmax``,
       by the divergence of its output on samples that are kept out for that; with too few of
       them, and below 8 bits, ``mse``; above, ``percentile``.
    6. Layers that a rule of the device leaves float because they are "less exact" become
       integers where this network's output is hardly further off for it, on the same samples.
    7. Linear layers whose results the network gives out have kernels that quantize rows as
       they run, where the device's scheme says so (``answering``).
    8. With ``widen``, inputs that the network bears worst in codes stay float after all, for
       at most this share of the layers' multiplications: only of a network that is far off
       (``costly_inputs``), judged on the same samples.

    Attributes:
        weights: Bits of weight codes; 0: the device's scheme decides; -1: float.
        activations: Bits of activation codes; 0: the device's scheme decides; -1: float.
        observer: ``minmax``, ``percentile``, ``mse`` or ``entropy``, of activations; ``auto``
            (case 5).
        percentile: Share kept on each side by ``percentile``, in percent.
        weight_observer: ``minmax`` or ``mse``.
        weight_axis: ``channel`` or ``tensor``.
        scheme: ``symmetric`` or ``asymmetric`` activations; empty: the device's.
        exclude: Patterns of layer names that stay float, separated by ``|``.
        operators: Operators, separated by ``|``; empty: the device's.
        outputs: Operators whose results are quantized too, so that engines which write codes
            run them as integers throughout, separated by ``|``; empty: the device's.
        attention: Codes of queries and keys, ``int8`` or ``float``; empty: the device's.
        rules: Whether the device's rules of where integers pay are followed.
        widen: Case 8, 0 to 1.
    """

    name: ClassVar[str] = "quantize"
    quantizes: ClassVar[bool] = True

    weights: int = 0
    activations: int = 0
    observer: str = "auto"
    percentile: float = 99.99
    weight_observer: str = "mse"
    weight_axis: str = "channel"
    scheme: str = ""
    exclude: str = ""
    operators: str = ""
    outputs: str = ""
    attention: str = ""
    rules: bool = True
    widen: float = 0.0

    def plan(self, model: ir.Model, context: Context) -> tuple[Edit, ...]:
        """Weights first, then the activations they meet."""
        self._check()
        check_excluded(model, self.exclude, self.name)
        scheme = self._scheme(context)
        drafts = [self._draft(model, scheme)]
        chooses = self._chooses(scheme)
        if chooses and self.weights >= 0 and doubted(model, scheme):
            drafts.append(self._draft(model, undoubting(scheme)))
        values = dict.fromkeys(n for draft in drafts for n in (*draft.wanted, *draft.scored))
        if not values:
            return drafts[0].edits  # a model that came quantized needs no samples
        samples = context.data(str(self))
        samples, judges = split(samples) if chooses or self.widen else (samples, None)
        seen = collect(model, samples, values)
        plan = self._ranged(model, drafts[0], seen, judges if chooses else None)
        if judges is not None and len(drafts) > 1:
            other = self._ranged(model, drafts[1], seen, judges)
            plan = cheaper(model, plan, other, judges)
        return keep_costly(model, plan, self.widen, judges) if self.widen else plan

    def _chooses(self, scheme: QuantScheme) -> bool:
        """Whether samples are kept out, on which the network itself decides."""
        wide = bool(scheme.activations) and _bits(scheme) == _CHOOSING
        return self.observer == "auto" and wide

    def _draft(self, model: ir.Model, scheme: QuantScheme) -> _Draft:
        chosen, kept = self._split(list(quantizable(model)), scheme)
        weights = self._weights(chosen, scheme) if self.weights >= 0 else ()
        as_run = answering(chosen, scheme)
        static = [
            layer
            for layer in chosen
            if layer.key not in as_run and not quantized_as_run(layer.node)
        ]
        wanted = _wanted(static, scheme) if scheme.activations else {}
        products = scored(model, self.exclude) if scheme.attention else {}
        edits: tuple[Edit, ...] = (*kept, *weights, *map(QuantizeAsRun, as_run))
        return _Draft(scheme, edits, wanted, products)

    def perform(self, model: ir.Model, edits: Sequence[Edit]) -> Outcome:
        """Put the quantizers in."""
        return apply(model, edits, self.name)

    def _check(self) -> None:
        for field, known in (
            ("observer", ("auto", *METHODS)),
            ("weight_observer", ("minmax", "mse")),
            ("weight_axis", ("channel", "tensor")),
            ("scheme", ("", "symmetric", "asymmetric")),
            ("attention", ("", "float", "int8")),
        ):
            if getattr(self, field) not in known:
                raise UsageError(
                    f"pass 'quantize': {field.replace('_', '-')} is {getattr(self, field)!r}",
                    hint="it can be: " + ", ".join(known),
                )
        if not 0 <= self.widen <= 1:
            raise UsageError(f"pass {self.name!r}: widen expects 0 to 1, found {self.widen}")

    def _scheme(self, context: Context) -> QuantScheme:
        given = scheme_of(context)
        changes: dict[str, object] = {}
        if self.weights > 0:
            changes |= {"weight_bits": self.weights, "conv_weight_bits": 0}
        if self.weights > 4:
            changes["weights"] = "int8"
        if self.activations > 0:
            changes["activation_bits"] = self.activations
        if self.attention:
            changes["attention"] = "" if self.attention == "float" else self.attention
        if self.activations < 0:
            changes |= {"activations": "", "attention": ""}
        if self.scheme:
            changes["scheme"] = self.scheme
        if self.operators:
            changes["operators"] = tuple(self.operators.split("|"))
        if self.outputs:
            changes["outputs"] = tuple(self.outputs.split("|"))
        if not self.rules:
            changes["layers"] = ()
        return given.model_copy(update=changes)

    def _split(
        self, layers: Sequence[Quantizable], scheme: QuantScheme
    ) -> tuple[list[Quantizable], list[KeepFloat]]:
        chosen, kept = [], []
        for layer in layers:
            reason = self._reason(layer, scheme)
            if reason is None:
                chosen.append(layer)
            else:
                kept.append(KeepFloat(layer.key, reason))
        return chosen, kept

    def _reason(self, layer: Quantizable, scheme: QuantScheme) -> str | None:
        """Why a layer stays float; ``None`` if it does not."""
        reason = float_reason(layer.node, shape_of(layer.weight), scheme)
        if reason is not None:
            return reason
        pattern = excluded(layer, self.exclude)
        return None if pattern is None else f"excluded by {pattern!r}"

    def _weights(
        self, layers: Sequence[Quantizable], scheme: QuantScheme
    ) -> Iterable[QuantizeWeight]:
        done: set[str] = set()
        for layer in layers:
            array, name = constant(layer.weight), str(layer.weight.name)
            if layer.ready or array is None or name in done:
                continue
            done.add(name)
            readers = [x for x in layers if x.weight is layer.weight]
            consumers = tuple(x.key for x in readers)
            params = weight_parameters(
                array,
                layer,
                scheme,
                per_tensor=self.weight_axis == "tensor",
                search=self.weight_observer == "mse",
            )
            yield QuantizeWeight(name, params, consumers)

    def _ranged(
        self, model: ir.Model, draft: _Draft, seen: Statistics, judges: DataSource | None
    ) -> tuple[Edit, ...]:
        """The plan with ranges by the observer that is asked for, or by the better one."""
        readers = {name: only_reader(value) for name, value in _values(model).items()}
        auto = "percentile" if _bits(draft.scheme) > _CHOOSING else "mse"
        first = auto if self.observer == "auto" else self.observer
        plans = {first: tuple(self._ranges(first, draft, seen, readers))}
        edits = (*draft.edits, *self._scored(draft, seen))
        if judges is None:
            return (*edits, *plans[first])
        plans["minmax"] = tuple(self._ranges("minmax", draft, seen, readers))
        found = divergences(model, plans, judges)
        best = min(found, key=lambda name: found[name])
        said = ", ".join(f"{name} {loss:.3g}" for name, loss in found.items())
        text = f"ranges: {best}; divergence on {len(judges)} samples kept out, nats: {said}"
        return (*edits, Remark(text), *plans[best])

    def _scored(self, draft: _Draft, seen: Statistics) -> Iterable[Edit]:
        """Queries and keys, apart from the choice of ranges, which they would blur.

        The largest scores are what a softmax looks at: clipping them is no small error.
        """
        observer = "minmax" if self.observer == "auto" else self.observer
        codes: tuple[str, Scheme, int | None] = (draft.scheme.attention, "symmetric", None)
        for name, consumers in draft.scored.items():
            yield self._range(observer, name, consumers, seen, codes, None)

    def _ranges(
        self,
        observer: str,
        draft: _Draft,
        seen: Statistics,
        readers: Mapping[str, Function | None],
    ) -> Iterable[Edit]:
        scheme = draft.scheme
        codes = (scheme.activations, scheme.scheme, scheme.activation_bits or None)
        for name, consumers in draft.wanted.items():
            # An output quantizer is read by what follows; others by their layers alone.
            through = None if consumers else readers.get(name)
            yield self._range(observer, name, consumers, seen, codes, through)

    def _range(
        self,
        observer: str,
        name: str,
        consumers: tuple[str, ...],
        seen: Statistics,
        codes: tuple[str, Scheme, int | None],
        through: Function | None,
    ) -> Edit:
        """Of one value, in codes of a dtype, a scheme and bits."""
        found = seen.values[name]
        if not found.count or found.low == found.high == 0:
            return KeepFloat(name, "zero on every calibration sample: its range is unknown")
        params = activation_parameters(found, observer, *codes, self.percentile, through)
        return QuantizeActivation(name, params, consumers)


def _bits(scheme: QuantScheme) -> int:
    """Of codes of activations."""
    return scheme.activation_bits or 8 * np.dtype(str(scheme.activations)).itemsize


def scheme_of(context: Context) -> QuantScheme:
    """The device's scheme for the precision that is made.

    Raises:
        UsageError: It has none.
    """
    target, precision = context.target, context.precision
    if target is not None:
        special = f"{precision}:{target.options.get('cpu', '')}"
        special = special if special in target.quantization else precision
        if special in target.quantization:
            rules = (r for r in target.layers if not r.precisions or precision in r.precisions)
            return target.quantization[special].model_copy(update={"layers": tuple(rules)})
    name = "no target" if target is None else target.name
    known = [] if target is None else sorted(target.quantization)
    raise UsageError(
        f"{name} has no quantization scheme for precision {precision!r}",
        hint="give --precision; it has: " + (", ".join(known) or "none"),
    )


def _wanted(layers: Sequence[Quantizable], scheme: QuantScheme) -> dict[str, tuple[str, ...]]:
    """Value -> the layers that read its quantized form; none named: everything does."""
    found: dict[str, tuple[str, ...]] = {}
    everywhere: set[str] = set()
    for layer in layers:
        if not dequantized(layer.x):
            name = str(layer.x.name)
            found[name] = (*found.get(name, ()), layer.key)
        codes = writes_codes(layer.node, shape_of(layer.weight), scheme)
        if codes and not _quantized(layer.result):
            everywhere.add(str(layer.result.name))
            found.setdefault(str(layer.result.name), ())
    return {name: () if name in everywhere else found[name] for name in found}


def _values(model: ir.Model) -> dict[str, ir.Value]:
    return {str(out.name): out for node in model.graph for out in node.outputs}


def _quantized(value: ir.Value) -> bool:
    """Whether only quantizers read a value."""
    readers = [use.node.op_type for use in value.uses()]
    return bool(readers) and set(readers) == {"QuantizeLinear"} and not value.is_graph_output()
