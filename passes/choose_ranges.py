"""Which ranges a network's activations get: those that held-out samples prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from edgevit.calibration import DataSource, Slice
from edgevit.edits import Edit
from edgevit.passes.apply_quantizers import apply
from edgevit.passes.facts import Array
from edgevit.passes.output_weights import output_loss
from edgevit.statistics import stream

__all__ = ["divergences", "split"]

_SHARE = 8  # one sample of so many is kept out
_FEWEST, _MOST = 3, 8  # samples that are kept out


def split(samples: DataSource) -> tuple[DataSource, DataSource | None]:
    """Samples for ranges, and those that judge them; ``None`` if there are too few."""
    count = len(samples)
    kept = min(count // _SHARE, _MOST)
    if kept < _FEWEST:
        return samples, None
    return Slice(samples, 0, count - kept), Slice(samples, count - kept, count)


def divergences(
    model: ir.Model, plans: Mapping[str, Sequence[Edit]], samples: DataSource
) -> dict[str, float]:
    """What each plan does to the network's first output, in nats a sample.

    The whole network decides, as errors of one layer do not say what they become: clipping the
    few large numbers of a pure transformer costs little of a layer's power, but moves the
    same tokens in the same direction in every layer.

    Args:
        model: Canonical model.
        plans: Name -> edits of activations.
        samples: Seen by none of the plans.
    """
    true = _answers(model, samples)
    found = {}
    for name, edits in plans.items():
        tried = model.clone()
        apply(tried, edits, "quantize")
        losses = [
            output_loss(t, y) for t, y in zip(true, _answers(tried, samples), strict=True)
        ]
        found[name] = float(np.mean(losses))
    return found


def _answers(model: ir.Model, samples: DataSource) -> list[Array]:
    name = str(model.graph.outputs[0].name)
    return [found[name] for found in stream(model, samples, [name])]
