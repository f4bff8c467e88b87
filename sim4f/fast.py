"""The fast path: what a frame's camera reads, by matrix products instead of transforms.

Elements are matched by the pixels that they stand on (``matching``), so every read-out is what
the frame really holds; nothing knows which layer it is. Noise is drawn per pixel that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgevit.sim4f.effects import IDEAL, Effects, converted
from edgevit.sim4f.errors import ParameterError, unknown_full_scale
from edgevit.sim4f.gather import Gather
from edgevit.sim4f.joint_fast import JointFields
from edgevit.sim4f.light import light_of_step
from edgevit.sim4f.matching import Match, match
from edgevit.sim4f.moves import apply, index_of
from edgevit.sim4f.perturb import MaskErrors, narrowed, taper
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import Optical, sizes
from edgevit.sim4f.readout import Counter, count_quickly, estimate
from edgevit.sim4f.signs import PartName, part_of

__all__ = ["FastProduct", "Plan", "plan"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Labels:
    """Frame axes by what they are to the matrix product."""

    batch: str
    rows: str
    columns: str
    summed: str

    @property
    def kept(self) -> str:
        """Axes of the product."""
        return self.batch + self.rows + self.columns


@dataclass(frozen=True, eq=False)
class Plan:
    """A step as one batched matrix product.

    Attributes:
        displayed: Tensor -> ``[batch, rows, length]``.
        masked: Kernel -> ``[batch, length, columns]``.
        read: Product -> ``[sums, *output]``; the first axis is added up.
        terms: Labels of the sums, in order.
    """

    displayed: Gather
    masked: Gather
    read: Gather
    terms: str


def plan(step: Optical, shapes: Mapping[str, Sequence[int]], apart: bool) -> Plan:
    """Match a step's lattices.

    Args:
        step: The step.
        shapes: Of its tensors.
        apart: Keep the terms of an electronic sum apart, as each is detected by itself.

    Raises:
        ParameterError: Input elements leave the plane or share a pixel.
        ValueError: Operands do not fit their lattices.
    """
    size = sizes(step, shapes)
    labels = _labels(step, apart)
    rows, columns = (
        match(a, b, c, n)
        for a, b, c, n in zip(
            (step.displayed.rows, step.displayed.columns),
            (step.masked.rows, step.masked.columns),
            (step.read.rows, step.read.columns),
            step.plane,
            strict=True,
        )
    )
    x = _operand(
        index_of(step.displayed.moves, shapes[step.source]),
        step.displayed.labels,
        (rows.inputs, columns.inputs),
        (labels.batch, labels.rows, labels.summed),
        size,
    )
    k = _operand(
        index_of(step.masked.moves, shapes[step.kernel]),
        step.masked.labels,
        (rows.kernels, columns.kernels),
        (labels.batch, labels.columns, labels.summed),
        size,
    )
    terms = "".join(s for s in labels.kept if s not in step.read.labels)
    read = _read(step, labels, size, rows, columns, terms)
    return Plan(Gather.of(x), Gather.of(k.transpose(0, 2, 1)), Gather.of(read), terms)


def _labels(step: Optical, apart: bool) -> Labels:
    shown, masked = step.displayed.labels, step.masked.labels
    shared = [label for label in step.order if label in shown and label in masked]
    lonely = [s for s in step.summed if s not in shared]
    if lonely:
        raise ValueError(f"step {step.name!r}: label {lonely[0]!r} is summed of one operand")
    summed = "" if apart else "".join(s for s in shared if s in step.summed)
    return Labels(
        batch="".join(s for s in shared if s not in summed),
        rows="".join(s for s in shown if s not in masked),
        columns="".join(s for s in masked if s not in shown),
        summed=summed,
    )


def _operand(
    index: Array,
    labels: str,
    lists: tuple[Array, Array],
    roles: tuple[str, str, str],
    size: Mapping[str, int],
) -> Array:
    """Indices ``[batch, own, summed * length]`` of an operand's elements."""
    down, across = lists
    dark = (down < 0)[:, None, :, None] | (across < 0)[None, :, None, :]
    found = index[..., down[:, None, :, None], across[None, :, None, :]]
    found = np.where(dark, -1, found)
    batch, own, summed = roles
    n = len(labels)
    order = [labels.index(s) for s in batch + own] + [n, n + 1]
    order += [labels.index(s) for s in summed] + [n + 2, n + 3]
    outer = _count(batch, size)
    inner = _count(summed, size) * down.shape[1] * across.shape[1]
    return found.transpose(order).reshape(outer, -1, inner)


def _count(labels: str, size: Mapping[str, int]) -> int:
    return int(np.prod([size[s] for s in labels], dtype=np.int64))


def _read(
    step: Optical,
    labels: Labels,
    size: Mapping[str, int],
    rows: Match,
    columns: Match,
    terms: str,
) -> Array:
    """Where each output element is in the product; terms that are added come first."""
    down, across = len(rows.inputs), len(columns.inputs)
    classes = (len(rows.kernels), len(columns.kernels))
    first = labels.batch + labels.rows
    shape = (*(size[s] for s in first), down, across)
    shape = (*shape, *(size[s] for s in labels.columns), *classes)
    made = np.arange(int(np.prod(shape))).reshape(shape)
    place = {s: i for i, s in enumerate(first)}
    place |= {s: len(first) + 2 + i for i, s in enumerate(labels.columns)}
    order = [place[s] for s in terms + step.read.labels]
    order += [len(first), len(first) + 1, made.ndim - 2, made.ndim - 1]
    distinct = (rows.row[:, None], columns.row[None, :])
    classes_at = (rows.class_of[:, None], columns.class_of[None, :])
    seen = made.transpose(order)[(..., *distinct, *classes_at)]
    seen = seen.reshape(_count(terms, size), *seen.shape[len(terms) :])
    return np.stack([apply(step.read.moves, term, dark=-1) for term in seen])


class FastProduct:
    """Multiplies the operands of optical steps; keeps what can be prepared.

    Args:
        shapes: Of every tensor and weight.
        effects: Departures from the ideal.
        rng: Needed if there is noise.
        full_scales: Step name -> largest field expected; found anew in each run if absent,
            as an ideal automatic exposure would.
        prepared: Of other products of the same program and weights, to be shared.

    Raises:
        ParameterError: An effect without a closed form.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        effects: Effects = IDEAL,
        rng: np.random.Generator | None = None,
        full_scales: Mapping[str, float] | None = None,
        prepared: Prepared | None = None,
    ) -> None:
        _check(effects)
        self._shapes = shapes
        self._effects = effects
        self._rng = rng if rng is not None else np.random.default_rng(0)
        self._count: Counter = count_quickly(self._rng)
        self._full = dict(full_scales or {})
        self._plans: dict[str, Plan] = {}
        self._ready = prepared if prepared is not None else Prepared()
        self._errors = MaskErrors(effects, self._ready)
        self._joint: dict[str, JointFields] = {}

    def __call__(self, step: Optical, x: Array, kernel: Array) -> Array:
        """The output tensor of a step, without its bias.

        Args:
            step: The step.
            x: What is displayed, of the source's shape; or ``[samples, *shape]``.
            kernel: What is masked; computed kernels have samples if ``x`` has.

        Raises:
            ParameterError: Samples share a full scale, and none is known.
        """
        alone = x.ndim == len(self._shapes[step.source])
        shown = converted(x[None] if alone else x, self._effects.display_bits)
        masks = kernel[None] if alone or step.static else kernel
        if any(step.joint):
            masks = converted(masks, self._effects.display_bits)
        fields = _Fields(self._field, step, self._plan(step), shown, masks)
        full = self._full_scale(step, fields)
        light = light_of_step(
            step,
            sizes(step, self._shapes),
            self._plan(step).terms,
            self._effects,
            len(shown),
            self._rng,
        )
        found = estimate(step.signs, fields, full, self._effects, self._count, light)
        # Terms of an electronic sum come first in each sample.
        summed = found[:, 0] if found.shape[1] == 1 else found.sum(axis=1)
        return np.asarray(summed[0] if alone else summed)

    def _full_scale(self, step: Optical, fields: _Fields) -> float:
        if self._effects.plain and step.signs.linear:
            return 1.0
        known = self._full.get(step.name)
        if known is not None:
            return known
        if fields.samples > 1 and not self._effects.plain:
            raise unknown_full_scale(step.name, fields.samples)
        first = step.signs.exposures[0]
        return float(np.abs(fields(first.displayed, first.masked)).max(initial=0)) or 1.0

    def _plan(self, step: Optical) -> Plan:
        if step.name not in self._plans:
            noisy = not self._effects.plain or self._errors.present or any(step.joint)
            apart = noisy or not step.signs.linear
            self._plans[step.name] = self._shared_plan(step, apart)
        return self._plans[step.name]

    def _shared_plan(self, step: Optical, apart: bool) -> Plan:
        """The plan of a step; layers that are laid out alike have the same one."""
        shapes = (tuple(self._shapes[step.source]), tuple(self._shapes[step.kernel]))
        alike = replace(step, name="", source="x", kernel="k", bias="", static=False)
        key = (alike, apart, *shapes)
        if key not in self._ready.plans:
            try:
                named = dict(zip("xk", shapes, strict=True))
                self._ready.plans[key] = plan(alike, named, apart)
            except ValueError as e:
                raise ParameterError(f"step {step.name!r}: {e}") from e
        found: Plan = self._ready.plans[key]
        return found

    def _field(
        self,
        step: Optical,
        ready: Plan,
        x: Array,
        kernel: Array,
        displayed: PartName,
        masked: PartName,
    ) -> Array:
        """Fields at the read pixels, ``[samples, terms, *output]``."""
        seen = self._seen(step, ready, x, kernel, displayed, masked)
        if any(step.joint):
            add = self._joint_fields(step, ready)
            return add(part_of(x, displayed), part_of(kernel, masked), seen, self._rng)
        return self._errors.added(step, self._shapes, x, kernel[0], seen, self._rng)

    def _seen(
        self,
        step: Optical,
        ready: Plan,
        x: Array,
        kernel: Array,
        displayed: PartName,
        masked: PartName,
    ) -> Array:
        """What is read, before errors of the mask's levels."""
        left = ready.displayed(part_of(x, displayed))
        right = self._kernel(step, ready, kernel, masked)
        return ready.read(_multiplied(left, right))

    def _joint_fields(self, step: Optical, ready: Plan) -> JointFields:
        if step.name not in self._joint:
            made = JointFields(step, self._shapes, self._effects, ready.terms)
            self._joint[step.name] = made
        return self._joint[step.name]

    def _kernel(self, step: Optical, ready: Plan, kernel: Array, masked: PartName) -> Array:
        key = (step.name, masked, *_of_mask(self._effects), ready.terms)
        if key in self._ready.kernels:
            return self._ready.kernels[key]
        found = ready.masked(self._displaced(step, part_of(kernel, masked)))
        if step.static:
            self._ready.kernels[key] = np.ascontiguousarray(found)
        return found

    def _displaced(self, step: Optical, kernels: Array) -> Array:
        """Kernels as the mask shows them where it stands."""
        effects = self._effects
        if not (any(effects.shift) or effects.dimmed) or any(step.joint):
            return kernels
        key = (step.name, *_of_mask(effects))
        factor = self._ready.tapers.get(key)
        if factor is None:
            shape = self._shapes[step.kernel]
            factor = taper(step, shape, effects.shift)
            if effects.dimmed:
                factor = factor * narrowed(step, shape, effects)
            factor = factor.astype(kernels.dtype)
            if not step.static:
                self._ready.tapers[key] = factor
        return np.asarray(kernels * factor)


def _of_mask(effects: Effects) -> tuple[object, ...]:
    """What weakens a kernel's elements."""
    return effects.shift, effects.fill_factor, effects.crosstalk


def _check(effects: Effects) -> None:
    """Refuse what has no closed form."""
    absent = {
        "aberration (defocus)": effects.aberration,
        "rotation": effects.rotation,
        "magnification": effects.magnification != 1,
        "crosstalk of a mask with levels": effects.crosstalk and effects.mask.kind != "ideal",
        "fill_factor of a mask with levels": effects.dimmed and effects.mask.levels,
    }
    for name, asked in absent.items():
        if asked:
            raise ParameterError(
                f"{name}: the fast path has no closed form for it; use the wave path"
            )


def _multiplied(left: Array, right: Array) -> Array:
    """``[samples, batch, rows, length] @ [samples or 1, batch, length, columns]``."""
    samples, batch, rows, length = left.shape
    if len(right) == 1 and batch == 1:
        flat = left.reshape(samples * rows, length)
        return np.asarray(np.matmul(flat, right[0, 0])).reshape(samples, batch, rows, -1)
    return np.asarray(np.matmul(left, right))


class _Fields:
    """The fields of a step by parts of its operands, each computed once."""

    def __init__(
        self, field: Callable[..., Array], step: Optical, ready: Plan, x: Array, kernel: Array
    ) -> None:
        self._field, self._step, self._ready = field, step, ready
        self._x, self._kernel = x, kernel
        self._done: dict[tuple[PartName, PartName], Array] = {}
        self.samples = len(x)

    def __call__(self, displayed: PartName, masked: PartName) -> Array:
        key = (displayed, masked)
        if key not in self._done:
            self._done[key] = self._field(self._step, self._ready, self._x, self._kernel, *key)
        return self._done[key]
