"""Whole-network gates: the device file's, with the recipe's budget over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgevit.errors import UsageError
from edgevit.parity import HIGHER_IS_BETTER, Gate, Metrics
from edgevit.target import Target

__all__ = ["AGREEMENT", "gates", "judged", "selfcheck_gates"]

# Judged on class scores, not by a metric of single outputs; needs real samples.
AGREEMENT = "top1_agreement"
# What a device may lose against the compile's own figure on the same sample: other integer
# kernels tip other ties.
SLACK_DB = 3.0


def gates(target: Target, precision: str, budget: Mapping[str, float]) -> tuple[Gate, ...]:
    """The limits of a precision; a recipe's budget replaces the device's metric by metric.

    Raises:
        UsageError: Neither says anything.
    """
    found = target.tolerance.get(precision)
    limits = {} if found is None else found.model_dump(exclude_none=True)
    limits |= budget
    if not limits:
        raise UsageError(
            f"device file {target.name}: no tolerance for precision {precision!r}",
            hint="give the recipe a budget: [budget] sqnr_db = ..., top1_agreement = ...",
        )
    return tuple(Gate(metric, limit) for metric, limit in sorted(limits.items()))


def judged(found: Sequence[Gate], synthetic: bool) -> tuple[tuple[Gate, ...], tuple[str, ...]]:
    """The gates that can be measured, and the names of those that cannot.

    Agreement on made-up samples says nothing about a task: it is not measured there.
    """
    left_out = tuple(g.metric for g in found if synthetic and g.metric == AGREEMENT)
    return tuple(g for g in found if g.metric not in left_out), left_out


def selfcheck_gates(
    found: Sequence[Gate], measured: Mapping[str, Metrics] | None
) -> dict[str, float]:
    """Limits of a device's self-check.

    Args:
        found: Whole-network gates.
        measured: What the compile measured on the self-check's sample, by output. A made-up
            sample may lie outside of what was calibrated: there the limit is that figure
            less ``SLACK_DB``. ``None``: not measured, or not quantized.
    """
    limits = {g.metric: g.limit for g in found if g.metric != AGREEMENT}
    for metric in [m for m in limits if m.endswith("_db") and measured is not None]:
        values = [getattr(m, metric) for m in (measured or {}).values() if not m.exact]
        known = [float(v) for v in values if v is not None]
        if known and metric in HIGHER_IS_BETTER:
            limits[metric] = min(limits[metric], round(min(known) - SLACK_DB, 1))
    return limits
