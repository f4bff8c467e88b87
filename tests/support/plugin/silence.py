"""A third party's plug-in: a pass that silences the model, and a device file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.pipeline import Change, Effect, Outcome, Pass
from edgevit.registry import Plugin

__all__ = ["PLUGIN", "Silence"]


@dataclass(frozen=True)
class Silence(Pass):
    """Multiply every float32 weight by ``level``."""

    name: ClassVar[str] = "silence"
    effect: ClassVar[Effect] = Effect.EXACT

    level: float = 0.0

    def call(self, model: ir.Model) -> Outcome:
        """Edit the initializers in place."""
        changes = []
        for name, value in model.graph.initializers.items():
            array = constant(value)
            if array is not None and array.dtype == np.float32:
                value.const_value = ir.tensor(array * np.float32(self.level), name=name)
                changes.append(Change(self.name, name))
        return Outcome(model, bool(changes), tuple(changes))


PLUGIN = Plugin(
    name="silence",
    passes={"silence": "silence:Silence"},
    targets={"toaster": "silence_devices:toaster.toml"},
)
