"""Layers that a rule leaves float because other networks lost accuracy: does this one?"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgevit.calibration import DataSource
from edgevit.edits import Edit, Remark
from edgevit.layer_rules import rule_of
from edgevit.model import shape_of
from edgevit.passes.choose_ranges import divergences
from edgevit.passes.quantizable import quantizable
from edgevit.target import LayerRule, QuantScheme

__all__ = ["cheaper", "doubted", "undoubting"]

# What compiles for OpenVINO say of depthwise layers, nats a sample in float and in integers:
# PP-OCRv4 3.25 and 3.15, PP-OCRv6 2.31 and 1.07, mobilevit_xxs 6.5e-5 and 2.4e-4, three others
# 2e-4 at most. The bounds are chosen, not derived.
_MORE, _LEAST = 1.25, 0.01


def _doubts(rule: LayerRule | None) -> bool:
    return rule is not None and rule.run == "float" and rule.because == "less exact"


def doubted(model: ir.Model, scheme: QuantScheme) -> bool:
    """Whether a rule for accuracy's sake leaves a layer of this network float."""
    return any(
        _doubts(rule_of(layer.node, shape_of(layer.weight), scheme))
        for layer in quantizable(model)
    )


def undoubting(scheme: QuantScheme) -> QuantScheme:
    """The scheme without rules for accuracy's sake."""
    kept = tuple(rule for rule in scheme.layers if not _doubts(rule))
    return scheme.model_copy(update={"layers": kept})


def cheaper(
    model: ir.Model,
    plan: Sequence[Edit],
    wider: Sequence[Edit],
    samples: DataSource,
) -> tuple[Edit, ...]:
    """The plan with more integers, if the network's output is hardly further off with it.

    Args:
        model: Canonical model.
        plan: What the rules say.
        wider: With their doubted layers in integers too.
        samples: Seen by neither.
    """
    found = divergences(model, {"float": plan, "integers": wider}, samples)
    fine = found["integers"] <= _MORE * found["float"] + _LEAST
    text = (
        f"layers that lose accuracy elsewhere: {'integers' if fine else 'float'}; divergence "
        f"on {len(samples)} samples kept out, nats: float {found['float']:.3g}, "
        f"integers {found['integers']:.3g}"
    )
    return (Remark(text), *(wider if fine else plan))
