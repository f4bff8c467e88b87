"""What can be wrong with an optical set-up, said with the inequality that it breaks.

The compiler turns these into its own errors at its border; this package knows none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DeviceFileError",
    "Finding",
    "OpticsError",
    "ParameterError",
    "SamplingError",
    "SaturationError",
    "require",
    "unknown_full_scale",
]


class OpticsError(ValueError):
    """Base of everything that this package raises on purpose."""


class ParameterError(OpticsError):
    """A parameter is outside of what physics or the device allows."""


class DeviceFileError(OpticsError):
    """A device file has an unknown key, an unknown unit, or lacks something."""


class SaturationError(OpticsError):
    """Camera pixels collect more electrons than they hold."""


class SamplingError(OpticsError):
    """A grid is too coarse, or a plane too small; ``finding`` holds the inequality."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True)
class Finding:
    """A condition on the sampling, and whether it holds.

    Attributes:
        name: What the condition protects, for example ``"Fresnel transfer function"``.
        inequality: The condition in symbols, ``left <= right``.
        left: Value of its left side, in ``unit``.
        right: Value of its right side, in ``unit``.
        unit: SI unit of both sides; empty for a ratio.
        advice: What to change if it does not hold.
    """

    name: str
    inequality: str
    left: float
    right: float
    unit: str
    advice: str

    @property
    def holds(self) -> bool:
        """True if left <= right, up to the rounding of the two sides."""
        return self.left <= self.right * (1.0 + 1e-9)

    def require(self) -> None:
        """Raise ``SamplingError`` unless the condition holds."""
        if not self.holds:
            raise SamplingError(self)

    def __str__(self) -> str:
        """The condition with numbers, and the advice if it fails."""
        sides = f"{self.left:.6g} <= {self.right:.6g} {self.unit}".rstrip()
        state = "holds" if self.holds else f"violated: {self.advice}"
        return f"{self.name}: {self.inequality} ({sides}) {state}"


def require(holds: bool, parameter: str, inequality: str, found: object) -> None:
    """Raise ``ParameterError`` naming the parameter and the inequality unless it holds."""
    if not holds:
        raise ParameterError(f"{parameter}: expected {inequality}, found {found!r}")


def unknown_full_scale(step: str, samples: int) -> ParameterError:
    """Samples that are exposed together share a full scale, and there is none."""
    return ParameterError(
        f"step {step!r}: expected a known full scale for {samples} samples at once, found "
        f"none; calibrate, or run them one by one"
    )
