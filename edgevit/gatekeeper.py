"""``--verify-each``: compare the model with its source after every pass that changed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.errors import GateError
from edgevit.parity import compare
from edgevit.pipeline import Effect, PassRecord
from edgevit.reference import Arrays, run_reference

__all__ = ["PassGate"]

# An EXACT pass reassociates sums at most: the whole-network bound of float32 (design.md).
EXACT_MAX_REL = 1e-4


@dataclass(frozen=True)
class PassGate:
    """An observer that runs source and model and stops at the first pass that differs."""

    source: bytes
    samples: Sequence[Arrays]

    def after(self, record: PassRecord, model: ir.Model) -> None:
        """Check the model after an EXACT pass that changed something.

        Raises:
            GateError: The model no longer computes what the source does.
        """
        if record.effect is not Effect.EXACT or not record.changes:
            return
        content = ir.to_proto(model).SerializeToString()
        expected = run_reference(self.source, self.samples).outputs
        found = run_reference(content, self.samples).outputs
        for r, y in zip(expected, found, strict=True):
            for name in r:
                metrics = compare(r[name], np.reshape(y[name], r[name].shape))
                if metrics.exact:
                    continue
                if (
                    metrics.broken
                    or metrics.max_rel is None
                    or metrics.max_rel > EXACT_MAX_REL
                ):
                    raise GateError(
                        f"after pass {record.spec!r} output {name!r} is off by "
                        f"{metrics.max_rel} of its maximum, limit {EXACT_MAX_REL}"
                    )
