"""Whether a node's layers fit the planes of a device: the coverage question."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.errors import UnsupportedModelError
from edgevit.model import shape_of
from edgevit.target import Target
from edgevit.targets.optical.planner import choose
from edgevit.targets.optical.setting import setting
from edgevit.targets.optical.sites import attention_layers, attention_refusal, layer_of
from edgevit.targets.optical.strips import cuts

__all__ = ["lit", "misfit"]


def lit(node: ir.Node, target: Target) -> bool:
    """Whether frames compute a canonical node, or the products that it is made of."""
    if node.op_type == "Attention" and not node.domain:
        return True
    return layer_of(node) is not None or cuts(node, setting(target).plane) is not None


def misfit(node: ir.Node, target: Target) -> str | None:
    """Why a layer cannot be scheduled on a device; ``None`` if it can, or needs no light."""
    chosen = setting(target)
    if cuts(node, chosen.plane) is not None:
        return None
    layers = [layer_of(node)]
    if node.op_type == "Attention" and not node.domain:
        if (reason := attention_refusal(node)) is not None:
            return reason
        layers = list(
            attention_layers([shape_of(v) for v in node.inputs[:3] if v is not None])
        )
    try:
        for layer in layers:
            if layer is not None:
                choose(layer, chosen.plane, chosen.signs, chosen.goal)
    except UnsupportedModelError as e:
        return e.message
    return None
