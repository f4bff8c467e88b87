"""Inputs whose rounding costs the network's output most: they stay float, within a share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.cost import node_cost
from edgevit.edits import Edit, KeepFloat, QuantizeActivation, Remark
from edgevit.passes.choose_ranges import divergences
from edgevit.passes.quantizable import quantizable

__all__ = ["costly", "keep_costly"]

# Nats a sample on iphone-npu with every input in codes: PP-OCRv4 9.48, PP-OCRv6 .94;
# classifiers have .0001 to .008. The bound is chosen, not derived.
_FINE = 0.05


def keep_costly(
    model: ir.Model, plan: Sequence[Edit], share: float, samples: DataSource | None
) -> tuple[Edit, ...]:
    """A plan without the quantizers that the network bears worst.

    Nothing changes for a network that is hardly off with all of them.

    Args:
        model: Canonical model.
        plan: Of ``quantize``.
        share: Of all layers' multiplications, at most, whose inputs may stay float.
        samples: Seen by no quantizer; ``None``: too few to judge by. The first output judges.
    """
    if samples is None:
        return (*plan, Remark("costly inputs: too few samples to keep some out and judge"))
    every = [e for e in plan if isinstance(e, QuantizeActivation)]
    before = divergences(model, {"all": every}, samples)["all"]
    if not before > _FINE:
        return tuple(plan)
    products = {layer.key: node_cost(layer.node).macs for layer in quantizable(model)}
    # Results are codes for every reader; queries and keys are read by no layer.
    own = {i: e for i, e in enumerate(every) if products.keys() & set(e.consumers)}
    alone = divergences(model, {str(i): [e] for i, e in own.items()}, samples)
    macs = {str(i): sum(products.get(c, 0) for c in e.consumers) for i, e in own.items()}
    chosen = costly(alone, macs, share * sum(products.values()))
    if not chosen:
        return (
            *plan,
            Remark(f"costly inputs: none of {len(own)} fits a share of {share:g}"),
        )
    gone = {id(every[int(i)]) for i in chosen}
    after = divergences(model, {"rest": [e for e in every if id(e) not in gone]}, samples)
    text = (
        f"costly inputs: {len(chosen)} of {len(own)} stay float; divergence on "
        f"{len(samples)} samples kept out, nats: {before:.3g} with all in codes, "
        f"{after['rest']:.3g} so"
    )
    if not after["rest"] < before:
        return (*plan, Remark(text + ": no better, all in codes"))
    said = [
        KeepFloat(every[int(i)].value, f"its codes alone cost the output {alone[i]:.3g} nats")
        for i in chosen
    ]
    return (*(e for e in plan if id(e) not in gone), *said, Remark(text))


def costly(
    alone: Mapping[str, float], macs: Mapping[str, int], budget: float
) -> tuple[str, ...]:
    """Inputs by what their codes cost for the multiplications they save: greedy.

    It ends where those that are left cost no more together than a network that is left alone.

    Args:
        alone: Input -> divergence of the output with this input alone in codes.
        macs: Input -> multiplications of the layers that read it.
        budget: Largest sum of multiplications.
    """
    chosen, left, rest = [], budget, sum(alone.values())
    for name in sorted(alone, key=lambda n: (-alone[n] / max(macs[n], 1), n)):
        if rest > _FINE and 0 < macs[name] <= left:
            chosen.append(name)
            left -= macs[name]
            rest -= alone[name]
    return tuple(chosen)
