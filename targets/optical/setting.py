"""What a device file and its overrides say to the optical backend."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevit.errors import UsageError
from edgevit.sim4f.signs import SCHEMES, Signs
from edgevit.target import Target
from edgevit.targets.optical.joint import JOINT
from edgevit.targets.optical.planner import MAPPINGS, Goal

__all__ = ["Setting", "setting"]


@dataclass(frozen=True)
class Setting:
    """How to plan.

    Attributes:
        plane: Rows and columns of both planes, in pixels.
        signs: Exposures of each frame.
        goal: What the plan is to be good at.
    """

    plane: tuple[int, int]
    signs: Signs
    goal: Goal


def setting(target: Target) -> Setting:
    """Read a target.

    Raises:
        UsageError: A figure is missing or not a whole positive number of pixels; a floor
            without a displacement that could break it.
    """
    options = target.options
    plane = _plane(options["plane"]) if "plane" in options else _figures(target)
    mapping = options.get("mapping", "auto")
    shift = float(options.get("misalignment", _number(target, "misalignment")))
    floor = float(options.get("floor", "-inf"))
    if math.isfinite(floor) and not shift:
        raise UsageError(
            f"floor={floor:g}: expected misalignment > 0 mask pixels beside it, found none",
            hint=f"for example optical-4f:floor={floor:g},misalignment=0.2",
        )
    allowed = MAPPINGS if mapping == "auto" else (mapping,)
    return Setting(
        plane,
        SCHEMES[options.get("signs", "homodyne")],
        Goal(
            mappings=allowed,
            dynamic=(JOINT,) if options.get("attention") == "joint" else allowed,
            frame_cost=1.0,
            mask_cost=_cost(options.get("goal", "latency")),
            floor_db=floor,
            shift=(shift, shift),
        ),
    )


def _plane(text: str) -> tuple[int, int]:
    rows, _, columns = text.partition("x")
    return int(rows), int(columns)


def _cost(goal: str) -> float:
    """A mask is written while the camera reads in ``latency``, and extra otherwise."""
    return {"latency": 1e-3, "energy": 0.5, "throughput": 1e-3}[goal]


def _number(target: Target, name: str) -> float:
    return target.figures[name].value if name in target.figures else 0.0


def _figures(target: Target) -> tuple[int, int]:
    found = []
    for name in ("plane_rows", "plane_columns"):
        figure = target.figures.get(name)
        value = math.nan if figure is None else figure.value
        if figure is None or figure.unit != "px" or value < 1 or value != int(value):
            raise UsageError(
                f"device file {target.name}: expected figure {name!r} >= 1 px, a whole "
                f"number, found {f'{figure.value:g} {figure.unit}' if figure else 'none'}"
            )
        found.append(int(value))
    return found[0], found[1]
