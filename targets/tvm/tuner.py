"""Measured search: tiles of a program's products, timed in turns with the machine's own.

Nothing is guessed: a tile is kept only where the distribution-free 95 % interval of its paired
ratios is below one. Every product that was measured stays in the file, those that kept their
tile too, so that the next run measures new ones only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from edgevit.bench import median_interval
from edgevit.targets.tvm.machine import Machine
from edgevit.targets.tvm.single import Single
from edgevit.targets.tvm.tiles import Tile, candidates, name_of, with_tile

__all__ = ["measured", "products"]

# Rounds, and the seconds that a subject runs in each.
_ROUNDS, _SECONDS = 25, 1e-3


def products(steps: Iterable[Any]) -> dict[str, Any]:
    """The first kernel of each product of a program."""
    found: dict[str, Any] = {}
    for step in steps:
        name = name_of(step.kernel)
        if name is not None:
            found.setdefault(name, step.kernel)
    return found


def measured(
    wanted: Mapping[str, Any],
    machine: Machine,
    trials: int,
    tick: Callable[[int, int], None],
) -> dict[str, dict[str, Any]]:
    """Time up to ``trials`` tiles of each product.

    Args:
        wanted: Name of a product -> a kernel of it.
        machine: This one.
        trials: Tiles of each product.
        tick: Told of products as they are done.

    Returns:
        Name of a product -> ``tile`` (``[vectors, rows]``, or empty: its own stays), the
        paired ``ratio`` of the best tile to its own with the interval, and ``tried``.
    """
    found = {}
    for i, (name, kernel) in enumerate(wanted.items()):
        found[name] = _product(kernel, machine, trials)
        tick(i + 1, len(wanted))
    return found


def _product(kernel: Any, machine: Machine, trials: int) -> dict[str, Any]:
    tiles = candidates(kernel, machine)[:trials]
    if not tiles:
        return {"tile": [], "ratio": [1.0, 1.0, 1.0], "tried": 0}
    arrays = _data(kernel)
    calls = [Single(one, machine, arrays) for one in (kernel, *_tiled(kernel, tiles))]
    times = _interleaved(calls)
    ratios = [median_interval(list(times[i] / times[0])) for i in range(1, len(calls))]
    best = min(range(len(tiles)), key=lambda i: ratios[i][1])
    low, middle, high = (round(float(r), 3) for r in ratios[best])
    kept = [tiles[best].vectors, tiles[best].rows] if high < 1 else []
    return {"tile": kept, "ratio": [low, middle, high], "tried": len(tiles)}


def _tiled(kernel: Any, tiles: Iterable[Tile]) -> list[Any]:
    return [with_tile(kernel, tile) for tile in tiles]


def _data(kernel: Any) -> list[np.ndarray[Any, Any]]:
    """Operands of a kernel; packed weights of any tile are as many numbers."""
    rng = np.random.default_rng(0)
    found = []
    for operand in kernel.operands:
        if operand.written:
            continue
        if operand.dtype == "float32":
            found.append(rng.standard_normal(operand.size).astype(np.float32))
        else:
            found.append(rng.integers(0, 100, operand.size).astype(operand.dtype))
    return found


def _interleaved(calls: list[Single]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Seconds of a call, [subject, round]: every subject in every round."""
    import tvm

    tvm.get_global_func("runtime.config_threadpool")(0, 1)
    for call in calls:
        call()
    begin = time.perf_counter()
    calls[0]()
    once = max(1e-7, time.perf_counter() - begin)
    repeats = max(1, round(_SECONDS / once))
    times = np.empty((len(calls), _ROUNDS))
    for turn in range(_ROUNDS):
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            times[i, turn] = (time.perf_counter() - begin) / repeats
    return times
