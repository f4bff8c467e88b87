"""What codes of activations alone cost a network's output; nothing makes good for it yet."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.edits import QuantizeActivation
from edgevit.passes.choose_ranges import divergences, split
from edgevit.passes.quantize import Quantize
from edgevit.pipeline import Context

__all__ = ["codes_loss"]


def codes_loss(model: ir.Model, context: Context, spec: str) -> float | None:
    """Divergence of the first output, in nats a sample; weights stay float.

    Args:
        model: Canonical model without quantizers.
        context: Has the samples, of which some are kept out to judge, and the device's scheme.
        spec: Of the pass that asks, for errors.

    Returns:
        ``None`` if there are too few samples to keep some out.
    """
    _, judges = split(context.data(spec))
    if judges is None:
        return None
    plan = Quantize(weights=-1).plan(model, context)
    codes = [edit for edit in plan if isinstance(edit, QuantizeActivation)]
    return divergences(model, {"codes": codes}, judges)["codes"]
