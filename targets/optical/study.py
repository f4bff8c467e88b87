"""Accuracy of a bundle's frame program on devices that are not ideal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgevit import registry
from edgevit.bundle import open_bundle
from edgevit.errors import ArtifactError, InputError, UsageError
from edgevit.sim4f.effects import Effects
from edgevit.sim4f.errors import OpticsError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.moves import moved_shape
from edgevit.sim4f.prepared import Prepared
from edgevit.sim4f.program import Optical, frame_count
from edgevit.sim4f.wave import WaveProduct
from edgevit.studies import standard_error
from edgevit.targets.optical.device import PEDESTAL, Point, effects_of

__all__ = [
    "PEDESTAL",
    "Levels",
    "Outcome",
    "Point",
    "Subject",
    "check_shift",
    "effects_of",
    "evaluate",
    "open_subject",
    "product_of",
]

Array = np.ndarray[Any, Any]
PathName = Literal["fast", "wave"]
_WAVE = "edgevit simulate --path wave"
# Samples, and pixels read in one step, that go through the interpreter together.
MOST_AT_ONCE, READ_AT_ONCE = 32, 1 << 18


@dataclass(frozen=True)
class Outcome:
    """Right answers among samples; against the ideal device's where there are no labels."""

    right: int
    samples: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.samples

    @property
    def standard_error(self) -> float:
        """Of the share, not zero where all or none are right; see ``studies``."""
        return standard_error(self.right, self.samples)

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.right + other.right, self.samples + other.samples)


@dataclass(frozen=True)
class Levels:
    """Sizes of a step's tensors over the calibration samples, on the ideal device.

    Attributes:
        full: Largest product in modulus.
        rms: Root mean square of the products.
        top: Largest displayed element in modulus.
        shown: Root mean square of the displayed elements that are not zero.
        light: Mean over input planes of the sum of squares.
    """

    full: float
    rms: float
    top: float
    shown: float
    light: float


@dataclass
class Subject:
    """An opened bundle with its calibrated full scales, and what its devices share."""

    executor: Any
    output: str
    levels: dict[str, Levels] = field(default_factory=dict)
    prepared: Prepared = field(default_factory=Prepared)

    @property
    def program(self) -> Any:
        """The frame program."""
        return self.executor.program

    @property
    def full(self) -> dict[str, float]:
        """Full scale of each step."""
        return {name: levels.full for name, levels in self.levels.items()}

    @cached_property
    def at_once(self) -> int:
        """How many samples are run together: few enough to stay near the caches."""
        shapes = self.program.shapes
        most = max(
            frame_count(s, shapes) * len(s.read.rows) * len(s.read.columns)
            for s in self.program.optical
        )
        return max(1, min(MOST_AT_ONCE, READ_AT_ONCE // most))


def check_shift(subject: Subject, effects: Effects) -> None:
    """Refuse a mask that has left the light.

    Raises:
        UsageError: A displacement of more than half of the mask.
    """
    far = max(abs(e) for e in effects.shift)
    least = min(min(step.plane) for step in subject.program.optical)
    if far > least / 2:
        raise UsageError(
            f"shift: expected |shift| <= {least / 2:g}, half of the mask's {least} pixels, "
            f"found {far:g}"
        )


def open_subject(bundle: Path, threads: int = 1) -> Subject:
    """Open a bundle of the optical target.

    Raises:
        InputError: It is of another target, or has several parts.
    """
    manifest = open_bundle(bundle)
    parts = manifest.entries[0].parts
    if len(parts) != 1 or parts[0].engine != "optical":
        raise InputError(
            f"{bundle}: expected a bundle of an optical target, found engine "
            f"{', '.join(p.engine for p in parts)}",
            hint="compile with --target optical-4f",
        )
    engine = registry.load("engines", "optical")()
    executor = engine.open(bundle / parts[0].artifact, parts[0], threads=threads)
    return Subject(executor, parts[0].outputs[0].artifact)


def calibrate(subject: Subject, samples: Sequence[Mapping[str, Array]]) -> None:
    """Measure each step's levels over samples, on the ideal device.

    The mask's driver is set up for computed kernels of the first sample.
    """
    seen: dict[str, list[Levels]] = {}
    shapes, examples = subject.program.shapes, subject.prepared.examples

    def watch(step: Optical, x: Array, kernel: Array, product: Array) -> None:
        seen.setdefault(step.name, []).append(_levels(step, shapes, x, product))
        if not step.static:
            examples.setdefault(step.name, np.array(kernel[0]))

    product = FastProduct(shapes, prepared=subject.prepared)
    size = subject.at_once
    for start in range(0, len(samples), size):
        subject.executor.run_many(product, samples[start : start + size], watch)
    subject.levels = {name: _joined(found) for name, found in seen.items()}


def _levels(step: Optical, shapes: Mapping[str, Any], x: Array, product: Array) -> Levels:
    """Of some samples; nothing is zero, so that ratios exist."""
    planes = math.prod(moved_shape(step.displayed.moves, shapes[step.source])[:-2])
    light = float(np.square(x, dtype=np.float64).sum())
    lit = max(1, int(np.count_nonzero(x)))
    return Levels(
        full=float(np.abs(product).max(initial=0)) or 1.0,
        rms=math.sqrt(float(np.square(product, dtype=np.float64).mean())) or 1.0,
        top=float(np.abs(x).max(initial=0)) or 1.0,
        shown=math.sqrt(light / lit) or 1.0,
        light=light / (len(x) * planes),
    )


def _joined(found: Sequence[Levels]) -> Levels:
    """Of all samples: maxima, and means of squares."""

    def rms(name: str) -> float:
        return math.sqrt(sum(getattr(one, name) ** 2 for one in found) / len(found))

    return Levels(
        max(one.full for one in found),
        rms("rms"),
        max(one.top for one in found),
        rms("shown"),
        sum(one.light for one in found) / len(found),
    )


def product_of(
    subject: Subject, point: Point, seed: int, path: PathName = "fast"
) -> FastProduct | WaveProduct:
    """An interpreter of the program on the device of a point.

    Raises:
        UsageError: An impossible device, or one that the path cannot be.
    """
    effects, rng = effects_of(point), np.random.default_rng(seed)
    check_shift(subject, effects)
    shapes, full = subject.program.shapes, subject.full
    try:
        if path == "fast":
            return FastProduct(shapes, effects, rng, full, subject.prepared)
        return WaveProduct(shapes, effects, rng, full)
    except OpticsError as e:
        raise UsageError(str(e), hint=_WAVE) from e


def answers(
    subject: Subject,
    samples: Sequence[Mapping[str, Array]],
    point: Point,
    seed: int,
    path: PathName = "fast",
) -> Iterator[Array]:
    """The first output for each sample, on the device of a point.

    Raises:
        UsageError: A device that is impossible, or not modeled for some step.
    """
    product = product_of(subject, point, seed, path)
    size = subject.at_once
    for start in range(0, len(samples), size):
        some = samples[start : start + size]
        try:
            found = subject.executor.run_many(product, some)
        except ArtifactError as e:
            # The program itself has run, on the ideal device: the fault is the point's.
            if isinstance(e.__cause__, OpticsError):
                hint = _WAVE if path == "fast" else ""
                raise UsageError(str(e.__cause__), hint=hint) from e
            raise
        yield from found[subject.output]


def evaluate(
    subject: Subject,
    samples: Sequence[Mapping[str, Array]],
    labels: Sequence[Any],
    point: Point,
    seed: int,
    path: PathName = "fast",
) -> Outcome:
    """How often the largest output is the label; texts: how often all positions agree.

    Args:
        subject: Opened and calibrated.
        samples: Input name -> array.
        labels: The expected arg-max over the last axis, one for each sample.
        point: The device.
        seed: Of the noise.
        path: Which interpreter.
    """
    right = 0
    for found, label in zip(answers(subject, samples, point, seed, path), labels, strict=True):
        best = found.argmax(axis=-1)
        # The largest of numbers that are not finite is no answer.
        answered = bool(np.isfinite(found).all())
        same = np.array_equal(best.reshape(-1), np.asarray(label).reshape(-1))
        right += int(answered and same)
    return Outcome(right, len(samples))


def ideal_labels(subject: Subject, samples: Sequence[Mapping[str, Array]]) -> list[Array]:
    """What the ideal device says."""
    return [a.argmax(axis=-1) for a in answers(subject, samples, Point(), 0)]
