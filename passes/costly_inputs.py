"""Inputs whose rounding costs the network's output most: they stay float, within a share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Quantizer:
    """One of a plan, and the layers in codes around it.

    Attributes:
        edit: What the plan says.
        macs: Multiplications of the layers that read it as their input.
        writer: Input of the layer whose result it is; empty: of none.
    """

    edit: QuantizeActivation
    macs: int
    writer: str

    def stays(self, floats: Collection[str]) -> bool:
        """Whether it is needed when the layers that read ``floats`` compute in float.

        Queries and keys are neither input nor result of a layer: they always stay.
        """
        read = self.macs and self.edit.value not in floats
        written = self.writer and self.writer not in floats
        return bool(read or written or not (self.macs or self.writer))


def _quantizers(model: ir.Model, plan: Sequence[Edit]) -> list[_Quantizer]:
    left = {e.node for e in plan if isinstance(e, KeepFloat)}
    layers = [x for x in quantizable(model) if x.key not in left]
    writers = {str(x.result.name): str(x.x.name) for x in layers}

    def of(edit: QuantizeActivation) -> _Quantizer:
        readers = [x for x in layers if str(x.x.name) == edit.value]
        own = [x for x in readers if not edit.consumers or x.key in edit.consumers]
        macs = sum(node_cost(x.node).macs for x in own)
        return _Quantizer(edit, macs, "" if edit.consumers else writers.get(edit.value, ""))

    return [of(e) for e in plan if isinstance(e, QuantizeActivation)]


def keep_costly(
    model: ir.Model, plan: Sequence[Edit], share: float, samples: DataSource | None
) -> tuple[Edit, ...]:
    """A plan without the quantizers that the network bears worst.

    Layers that read such an input compute in float, and their results lose their codes too.
    Nothing changes for a network that is hardly off with all of them.

    Args:
        model: Canonical model.
        plan: Of ``quantize``.
        share: Of all layers' multiplications, at most, that may be in float.
        samples: Seen by no quantizer; ``None``: too few to judge by. The first output judges.
    """
    if samples is None:
        return (*plan, Remark("costly inputs: too few samples to keep some out and judge"))
    every = _quantizers(model, plan)

    def without(floats: Collection[str]) -> list[QuantizeActivation]:
        return [q.edit for q in every if q.stays(floats)]

    before = divergences(model, {"all": without(())}, samples)["all"]
    if not before > _FINE:
        return tuple(plan)
    macs = {q.edit.value: q.macs for q in every if q.macs}
    alone = divergences(model, {n: without(macs.keys() - {n}) for n in macs}, samples)
    chosen = costly(alone, macs, share * sum(macs.values()))
    if not chosen:
        return (
            *plan,
            Remark(f"costly inputs: none of {len(macs)} fits a share of {share:g}"),
        )
    kept = without(chosen)
    after = divergences(model, {"rest": kept}, samples)["rest"]
    text = (
        f"costly inputs: {len(chosen)} of {len(macs)} stay float; divergence on "
        f"{len(samples)} samples kept out, nats: {before:.3g} with all in codes, "
        f"{after:.3g} so"
    )
    if not after < before:
        return (*plan, Remark(text + ": no better, all in codes"))
    said = [
        KeepFloat(name, f"its codes alone cost the output {alone[name]:.3g} nats")
        for name in chosen
    ]
    gone = {id(q.edit) for q in every} - {id(e) for e in kept}
    return (*(e for e in plan if id(e) not in gone), *said, Remark(text))


def costly(
    alone: Mapping[str, float], macs: Mapping[str, int], budget: float
) -> tuple[str, ...]:
    """Inputs by what their codes cost for the multiplications they save: greedy.

    Args:
        alone: Input -> divergence of the output with this input alone in codes.
        macs: Input -> multiplications of the layers that read it.
        budget: Largest sum of multiplications.
    """
    chosen, left = [], budget
    for name in sorted(alone, key=lambda n: (-alone[n] / max(macs[n], 1), n)):
        if alone[name] > 0 and 0 < macs[name] <= left:
            chosen.append(name)
            left -= macs[name]
    return tuple(chosen)
