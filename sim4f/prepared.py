"""What a study of one program prepares once, whatever the device is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Prepared"]

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class Prepared:
    """Shared by the fast products of one program with the same weights; it fills as they run.

    Attributes:
        plans: Of steps that are laid out alike, by layout.
        kernels: Stored kernels as the matrix product takes them, by step, part and
            what the mask does to them.
        tapers: What the mask does to a computed kernel, by step, shift and pixels.
        peaks: Step name -> largest modulus of its transfer functions, root mean square.
        examples: Step name -> a computed kernel for which the mask's driver is set up; of
            other steps the first one that is displayed.
    """

    plans: dict[object, Any] = field(default_factory=dict)
    kernels: dict[object, Array] = field(default_factory=dict)
    tapers: dict[object, Array] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    examples: dict[str, Array] = field(default_factory=dict)
