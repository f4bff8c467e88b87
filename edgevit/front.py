"""The latency-energy-accuracy front of swept optical devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgevit import registry
from edgevit.report import table

__all__ = ["front_of", "nondominated", "text_of_front"]

_OPTICAL = "edgevit.targets.optical"
_SUMS = ("right", "samples", "accuracy", "standard_error")


def nondominated(costs: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which entries nothing else beats: at most as much of every cost, and less of one."""
    return [
        not any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine
            for other in costs
        )
        for mine in costs
    ]


def front_of(
    subject: Any, rows: Sequence[Mapping[str, Any]], setups: Sequence[str]
) -> dict[str, Any]:
    """Cost every row on every set-up, and pick out what nothing beats.

    Args:
        subject: Opened and calibrated bundle.
        rows: Of a sweep: fields of a point and its accuracy.
        setups: Names of set-ups.

    Returns:
        ``headlines`` of the set-ups, and ``points`` in order of latency, each with
        ``optimal``. Points of unlimited light cost nothing finite and are left out.
    """
    load = registry.load_attribute
    make, price = load(f"{_OPTICAL}.study:Point"), load(f"{_OPTICAL}.pareto:point_cost")
    chosen = [load(f"{_OPTICAL}.account:setup_of")(name) for name in setups]
    found = []
    for row in rows:
        fields = {k: v for k, v in row.items() if k not in _SUMS}
        for one in chosen:
            paid = price(subject, one, make(**fields))
            if paid is not None:
                point = {k: row[k] for k in ("accuracy", "standard_error")}
                cost = {"seconds": paid[0], "joules": paid[1]}
                found.append({"setup": one.name, "point": fields, **point, **cost})
    best = nondominated([(p["seconds"], p["joules"], -p["accuracy"]) for p in found])
    for point, optimal in zip(found, best, strict=True):
        point["optimal"] = optimal
    found.sort(key=lambda p: (p["seconds"], p["joules"]))
    return {"headlines": [one.headline() for one in chosen], "points": found}


def text_of_front(front: Mapping[str, Any]) -> str:
    """For a terminal: what is hypothetical first, then the front."""
    cells = [
        (
            p["setup"],
            " ".join(f"{k}={v:g}" for k, v in p["point"].items()),
            f"{p['seconds'] * 1e3:.4g}",
            f"{p['joules'] * 1e3:.4g}",
            f"{p['accuracy']:.4f} +- {p['standard_error']:.4f}",
        )
        for p in front["points"]
        if p["optimal"]
    ]
    head = ("set-up", "device", "optics ms", "mJ", "accuracy")
    title = (
        f"nothing beats these {len(cells)} of {len(front['points'])} in latency, energy and "
        f"accuracy (sign factor, mask writes, read-out and link included; electronics not)"
    )
    return "\n".join([*front["headlines"], title, table(head, cells)])
