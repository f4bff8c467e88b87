"""Granularity, scheme and scales of the tensors around one activation, chosen together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from edgevit.edits import FoldChannels
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.fold_channels import Place, places
from edgevit.passes.fold_norm_scales import norm_scales
from edgevit.passes.joint_search import (
    Format,
    Reader,
    search_input,
    search_weight,
    with_weight,
)
from edgevit.passes.layer_rows import Seen, change_rows
from edgevit.passes.smooth_quant import smoothing
from edgevit.quantization import QParams, Range, fake

__all__ = ["Choice", "Group", "choose", "groups_of", "worst"]

# An operator of its own has to take a fifth of the error away, 1 dB.
_WORTH = 0.8


@dataclass(frozen=True, eq=False)
class Group:
    """Layers whose inputs change together.

    Attributes:
        place: Where channels could be changed; ``None`` if nowhere.
        readers: The layers.
        seen: Their calibration data.
        weights: Layer name -> importance of its output channels, ``[C_out]``.
    """

    place: Place | None
    readers: tuple[ChannelLayer, ...]
    seen: Seen
    weights: Mapping[str, Array]

    @property
    def values(self) -> tuple[str, ...]:
        """Names of what the readers read."""
        return tuple(dict.fromkeys(str(r.x.name) for r in self.readers))


@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen for a group.

    Attributes:
        group: The group.
        fold: Channel granularity, or ``None`` for layer granularity.
        inputs: Value name (before folding) -> parameters.
        scales: Layer name -> scale of every output channel, ``[g, o]``; empty: float weights.
        high: Largest weight code.
        error: Weighted error that is left, over the weighted power of the outputs.
    """

    group: Group
    fold: FoldChannels | None
    inputs: Mapping[str, QParams]
    scales: Mapping[str, Array]
    high: int
    error: float

    def overflows(self, value: str) -> bool:
        """Whether an asymmetric zero point would overflow without zero in the range."""
        span = self.group.seen.ranges[value]
        params = self.inputs[value]
        asymmetric = int(params.zero_point) in (params.low, params.high)
        one_sided = span.low.min() > 0 or span.high.max() < 0
        return bool(one_sided and asymmetric and self.fold is None)


@dataclass(frozen=True, eq=False)
class _Trial:
    """One granularity: rows, weights and ranges as they would be; what each layer reads."""

    fold: FoldChannels | None
    readers: Mapping[str, Reader]
    float_weights: Mapping[str, Array]
    spans: Mapping[str, Range]
    values: Mapping[str, str]


@dataclass
class _State:
    inputs: dict[str, QParams] = field(default_factory=dict)
    scales: dict[str, Array] = field(default_factory=dict)
    error: float = np.inf


def groups_of(
    model: ir.Model,
    layers: Sequence[ChannelLayer],
    seen: Seen,
    weights: Mapping[str, Array],
    explicit: bool,
) -> tuple[Group, ...]:
    """Layers by the change of channels that would touch them; each layer occurs once."""
    names = {layer.name: layer for layer in layers}
    left = dict(names)
    found: list[Group] = []
    for place in places(model, explicit):
        if not isinstance(place, Place) or place.layer.name not in names:
            continue
        mine = {r.name for r in place.site.readers}
        readers = tuple(left.pop(n) for n in list(left) if n in mine)
        if readers and mine <= set(names):
            found.append(Group(place, readers, seen, weights))
        elif readers:
            found.append(Group(None, readers, seen, weights))
    alone: dict[str, list[ChannelLayer]] = {}
    for layer in left.values():
        alone.setdefault(str(layer.x.name), []).append(layer)
    found += [Group(None, tuple(readers), seen, weights) for readers in alone.values()]
    return tuple(found)


def choose(
    group: Group,
    form: Format,
    high: int,
    rounds: int,
    granularity: bool,
    rng: np.random.Generator,
) -> Choice:
    """Try layer granularity and changes of channels; refine the best.

    Args:
        group: The layers.
        form: Of the activation's codes.
        high: Largest weight code; 0: weights stay float.
        rounds: Alternating rounds for the one that is chosen.
        granularity: Whether changes of channels are tried.
        rng: Of random mixtures.
    """
    trials = list(_trials(group, form, granularity))
    states = [_alternate(trial, form, high, 1, rng) for trial in trials]
    best = 0
    for index in range(1, len(trials)):
        fold = trials[index].fold
        factor = _WORTH if fold is not None and fold.explicit else 1.0
        if states[index].error < states[best].error * factor:
            best = index
    trial, state = trials[best], states[best]
    if rounds > 1:
        again = _alternate(trial, form, high, rounds - 1, rng, state)
        state = min(state, again, key=lambda s: s.error)
    fold = trial.fold
    if fold is not None:
        gain = 10 * np.log10(max(state.error, 1e-30) / max(states[0].error, 1e-30))
        detail = f"channel granularity: error of the outputs {gain:+.1f} dB"
        names = tuple(reader.name for reader in group.readers)
        gains = (round(-float(gain), 2),) * len(names)
        fold = replace(fold, detail=detail, readers=names, gains_db=gains)
    return Choice(group, fold, state.inputs, state.scales, high, state.error)


def worst(choices: Sequence[Choice], share: float) -> list[int]:
    """Groups whose rounding costs most, by index: greedy, within a share of all products.

    Args:
        choices: One for each group.
        share: Of the multiplications of all groups' layers, 0 to 1.
    """
    products = [sum(layer.macs for layer in c.group.readers) for c in choices]
    left = share * sum(products)
    chosen = []
    for index in sorted(range(len(choices)), key=lambda i: -choices[i].error):
        if products[index] <= left:
            left -= products[index]
            chosen.append(index)
    return chosen


def _trials(group: Group, form: Format, granularity: bool) -> Iterator[_Trial]:
    yield _trial(group, None)
    if granularity and group.place is not None:
        for scale, offset in _changes(group, form):
            site = group.place.site
            own = site.norm is None and site.layer is None
            yield _trial(group, FoldChannels(group.place.layer.name, scale, offset, own))


def _changes(group: Group, form: Format) -> Iterator[tuple[Array, Array]]:
    if group.place is None:
        return
    site = group.place.site
    seen = group.seen.ranges[str(site.value.name)]
    shifts = site.shifts and "asymmetric" in form.schemes
    if site.norm is not None:
        yield norm_scales(seen, "mean", form.bits or 8, shifts)
    yield smoothing(site, seen, 0.5, shifts)


def _trial(group: Group, fold: FoldChannels | None) -> _Trial:
    readers: dict[str, Reader] = {}
    weights: dict[str, Array] = {}
    for layer in group.readers:
        rows, weight = group.seen.rows[layer.name], layer.matrix()
        if fold is not None:
            rows = change_rows(rows, layer, fold.scale, fold.offset)
            changed = ChannelLayer(
                layer.node, layer.add, layer.scale_inputs(fold.scale), None, layer.group
            )
            weight = changed.matrix()
        weight = weight.astype(np.float32)
        worth = group.weights[layer.name].reshape(weight.shape[:2])
        target = rows @ weight.swapaxes(1, 2)
        readers[layer.name] = Reader(rows, weight, target, worth)
        weights[layer.name] = weight
    spans = {value: _span(group, value, fold) for value in group.values}
    values = {layer.name: str(layer.x.name) for layer in group.readers}
    return _Trial(fold, readers, weights, spans, values)


def _span(group: Group, value: str, fold: FoldChannels | None) -> Range:
    seen = group.seen.ranges[value]
    low, high = seen.low, seen.high
    if fold is not None:
        low, high = (low - fold.offset) / fold.scale, (high - fold.offset) / fold.scale
    return Range(np.asarray(low.min()), np.asarray(high.max()))


def _alternate(
    trial: _Trial,
    form: Format,
    high: int,
    rounds: int,
    rng: np.random.Generator,
    start: _State | None = None,
) -> _State:
    """Input given weight, then weight given input, ``rounds`` times."""
    state = _State() if start is None else _State(dict(start.inputs), dict(start.scales))
    readers = {
        name: _now(reader, trial.float_weights[name], state.scales.get(name), high)
        for name, reader in trial.readers.items()
    }
    for _ in range(rounds):
        error = 0.0
        for value, names in _by_value(trial).items():
            if form.dtype:
                mine = [readers[n] for n in names]
                state.inputs[value], _ = search_input(mine, trial.spans[value], form, rng)
            for name in names:
                rows = _quantized(readers[name].rows, state.inputs.get(value))
                if high:
                    given = trial.float_weights[name]
                    state.scales[name] = search_weight(readers[name], given, high, rows)
                    readers[name] = _now(readers[name], given, state.scales[name], high)
                error += readers[name].error(rows)
        state.error = error / max(_power(readers), 1e-30)
    return state


def _by_value(trial: _Trial) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {value: [] for value in trial.spans}
    for name, value in trial.values.items():
        found[value].append(name)
    return found


def _now(reader: Reader, given: Array, scale: Array | None, high: int) -> Reader:
    """The reader with its weight as it would be stored."""
    if scale is None:
        return reader
    step = scale[:, :, None].astype(np.float32)
    return with_weight(reader, np.clip(np.rint(given / step), -high, high) * step)


def _quantized(rows: Array, params: QParams | None) -> Array:
    return rows if params is None else fake(rows, params)


def _power(readers: Mapping[str, Reader]) -> float:
    total = 0.0
    for reader in readers.values():
        square = np.square(reader.target).mean(axis=1)
        total += float((square * reader.importance).sum())
    return total
