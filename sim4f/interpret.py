"""Run a program: steps in order on named tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgevit.sim4f.program import Electronic, Optical, Program

__all__ = ["Part", "Product", "run"]

Array = np.ndarray[Any, Any]
# A step, the displayed tensor and the kernel -> the product.
Product = Callable[[Optical, Array, Array], Array]
# Inputs of an electronic part by name -> its outputs by name.
Part = Callable[[Mapping[str, Array]], Mapping[str, Array]]
Watch = Callable[[Optical, Array, Array, Array], None]


def run(
    program: Program,
    weights: Mapping[str, Array],
    parts: Mapping[str, Part],
    product: Product,
    feeds: Mapping[str, Array],
    watch: Watch | None = None,
) -> dict[str, Array]:
    """Run once.

    Args:
        program: What to do.
        weights: Stored kernels and biases by name.
        parts: Electronic parts by name.
        product: The wave path or the fast path.
        feeds: Input name -> array.
        watch: Told of each optical step: displayed tensor, kernel, product.

    Returns:
        Output name -> array.
    """
    known: dict[str, Array] = dict(feeds)
    last = _last_use(program)
    for number, step in enumerate(program.steps):
        if isinstance(step, Electronic):
            found = parts[step.name]({inner: known[name] for inner, name in step.inputs})
            known.update((name, found[inner]) for inner, name in step.outputs)
        else:
            known[step.name] = _multiply(step, known, weights, product, watch)
        for name in last.get(number, ()):
            known.pop(name, None)
    return {t.name: known[t.name] for t in program.outputs}


def _multiply(
    step: Optical,
    known: Mapping[str, Array],
    weights: Mapping[str, Array],
    product: Product,
    watch: Watch | None,
) -> Array:
    kernel = weights[step.kernel] if step.static else known[step.kernel]
    shown = known[step.source]
    found = product(step, shown, kernel)
    if watch is not None:
        watch(step, shown, kernel, found)
    return found + weights[step.bias] if step.bias else found


def _last_use(program: Program) -> dict[int, list[str]]:
    """Step number -> tensors that nothing needs after it."""
    wanted = {t.name for t in program.outputs}
    last: dict[str, int] = {}
    for number, step in enumerate(program.steps):
        if isinstance(step, Electronic):
            used = [name for _, name in step.inputs]
        else:
            used = [step.source] if step.static else [step.source, step.kernel]
        last.update(dict.fromkeys(used, number))
    found: dict[int, list[str]] = {}
    for name, number in last.items():
        if name not in wanted:
            found.setdefault(number, []).append(name)
    return found
