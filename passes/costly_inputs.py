"""Inputs whose rounding costs the network's output most: they stay float, within a share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.edits import Edit, KeepFloat, QuantizeActivation, Remark
from edgevit.passes.channel_layers import channel_layers
from edgevit.passes.choose_ranges import divergences

__all__ = ["costly", "keep_costly"]

# Nats a sample on iphone-npu, every input in codes, and in float those of a fifth of the
# multiplications: PP-OCRv4 9.48 and .28, PP-OCRv6 .94 and .36 (a trifle of .01: 2.71, .96);
# classifiers have .0001 to .008. The bounds are chosen, not derived.
_FINE = 0.05
_TRIFLE = 0.001  # of all inputs' divergences: what costs less is left in codes


def keep_costly(
    model: ir.Model, plan: Sequence[Edit], share: float, samples: DataSource | None
) -> tuple[Edit, ...]:
    """A plan without the quantizers that the network bears worst.

    Nothing changes for a network that is hardly off with all of them.

    Args:
        model: Canonical model.
        plan: Of ``quantize``.
        share: Of the layers' multiplications, at most, whose inputs may stay float.
        samples: Seen by no quantizer; ``None``: too few to judge by.
    """
    if samples is None:
        return (*plan, Remark("costly inputs: too few samples to keep some out and judge"))
    every = [e for e in plan if isinstance(e, QuantizeActivation)]
    before = divergences(model, {"all": every}, samples)["all"]
    if before <= _FINE:
        return tuple(plan)
    mine = {e.value: e for e in every if e.consumers}  # results are codes for every reader
    alone = divergences(model, {name: [e] for name, e in mine.items()}, samples)
    products = {str(x.node.outputs[0].name): x.macs for x in channel_layers(model)}
    macs = {name: sum(products.get(c, 0) for c in e.consumers) for name, e in mine.items()}
    chosen = costly(alone, macs, share * sum(products.values()))
    rest = [e for e in plan if not isinstance(e, QuantizeActivation) or e.value not in chosen]
    after = divergences(
        model, {"rest": [e for e in rest if isinstance(e, QuantizeActivation)]}, samples
    )["rest"]
    text = (
        f"costly inputs: {len(chosen)} of {len(mine)} stay float; divergence on "
        f"{len(samples)} samples kept out, nats: {before:.3g} with all in codes, "
        f"{after:.3g} so"
    )
    if after >= before:
        return (*plan, Remark(text + ": no better, all in codes"))
    said = [
        KeepFloat(n, f"its codes alone cost the output {alone[n]:.3g} nats") for n in chosen
    ]
    return (*rest, *said, Remark(text))


def costly(
    alone: Mapping[str, float], macs: Mapping[str, int], budget: float
) -> tuple[str, ...]:
    """Inputs by what their codes cost for the multiplications they save: greedy.

    Args:
        alone: Input -> divergence of the output with this input alone in codes.
        macs: Input -> multiplications of the layers that read it.
        budget: Largest sum of multiplications.
    """
    least = _TRIFLE * sum(alone.values())
    chosen, left = [], budget
    for name in sorted(alone, key=lambda n: (-alone[n] / max(macs[n], 1), n)):
        if alone[name] >= least and macs[name] <= left:
            chosen.append(name)
            left -= macs[name]
    return tuple(chosen)
