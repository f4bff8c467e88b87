"""Which layer gets how many bits, under a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgevit.errors import GateError

__all__ = ["Option", "allocate"]


@dataclass(frozen=True)
class Option:
    """One width for one layer.

    Attributes:
        bits: Width.
        cost: In the budget's unit.
        loss: What it does to the network's output; additive over layers.
    """

    bits: int
    cost: float
    loss: float


def allocate(
    options: Mapping[str, Sequence[Option]], budget: float, unit: str
) -> dict[str, Option]:
    """Start with the best option of every layer and give up where it costs least.

    Each step takes the one change, of any layer to any cheaper option, that adds the least
    loss for what it saves, until the budget holds: greedy on the lower convex hull, which is
    optimal for additive losses at every budget that a step ends on (Everett, "Generalized
    Lagrange Multiplier Method", 1963).

    Args:
        options: Layer name -> its options; at least one each.
        budget: Largest total cost.
        unit: Of the budget, for the message.

    Raises:
        GateError: Even the cheapest options cost more; the message names what they cost.
    """
    least = sum(min(o.cost for o in mine) for mine in options.values())
    if least > budget:
        raise GateError(
            f"a budget of {budget:.4g} {unit} cannot be met: the best reachable is "
            f"{least:.4g} {unit}, every layer at its cheapest",
            hint="raise the budget, or allow fewer bits",
        )
    chosen = {n: min(mine, key=lambda o: (o.loss, o.cost)) for n, mine in options.items()}
    total = sum(o.cost for o in chosen.values())
    while total > budget:
        name, option = _cheapest_step(options, chosen)
        total += option.cost - chosen[name].cost
        chosen[name] = option
    return chosen


def _cheapest_step(
    options: Mapping[str, Sequence[Option]], chosen: Mapping[str, Option]
) -> tuple[str, Option]:
    steps = [
        ((o.loss - chosen[name].loss) / (chosen[name].cost - o.cost), name, o)
        for name, mine in options.items()
        for o in mine
        if o.cost < chosen[name].cost
    ]
    _, name, option = min(steps, key=lambda step: (step[0], step[1]))
    return name, option
