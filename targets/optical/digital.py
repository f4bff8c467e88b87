"""What of an optical bundle stays electronic, timed here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.program import Optical
from edgevit.targets.optical.study import Subject

__all__ = ["electronic_seconds", "seeded"]

Array = np.ndarray[Any, Any]
ROUNDS = 15


def electronic_seconds(subject: Subject, sample: Mapping[str, Array]) -> float:
    """Median time of a run without its products: electronic parts, biases, passing arrays."""
    product = FastProduct(subject.program.shapes, prepared=subject.prepared)
    found = []
    for number in range(ROUNDS + 3):
        clock = _Clock(product)
        start = time.perf_counter()
        subject.executor.run_with(clock, sample)
        if number >= 3:
            found.append(time.perf_counter() - start - clock.seconds)
    return statistics.median(found)


class _Clock:
    """A product that counts its own seconds."""

    def __init__(self, product: FastProduct) -> None:
        self._product = product
        self.seconds = 0.0

    def __call__(self, step: Optical, x: Array, kernel: Array) -> Array:
        start = time.perf_counter()
        found = self._product(step, x, kernel)
        self.seconds += time.perf_counter() - start
        return found


def seeded(subject: Subject) -> dict[str, Array]:
    """Normal numbers for every input, where no sample is given."""
    rng = np.random.default_rng(0)
    return {
        t.name: rng.standard_normal(t.shape).astype(t.dtype) for t in subject.program.inputs
    }
