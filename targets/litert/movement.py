"""Nodes that only rearrange: Reshape, Transpose, DepthToSpace (CRD)."""

from __future__ import annotations

import onnx_ir as ir

from edgevit.model import shape_of
from edgevit.targets.litert.quantized import absorbed
from edgevit.targets.views import View

__all__ = ["MAX_RANK", "is_movement", "moved"]

MAX_RANK = 6  # of TFLite's TRANSPOSE


def is_movement(node: ir.Node) -> bool:
    """Whether a node only says the elements' order anew, or reads codes for another."""
    if node.domain != "":
        return False
    return node.op_type in ("Reshape", "Transpose") or _is_shuffle(node) or absorbed(node)


def _is_shuffle(node: ir.Node) -> bool:
    """DepthToSpace in the mode that TFLite's operator does not have."""
    return node.op_type == "DepthToSpace" and node.attributes["mode"].as_string() == "CRD"


def moved(node: ir.Node, view: View) -> View | None:
    """The view behind a movement node; ``None`` if it must be computed."""
    if node.op_type == "DequantizeLinear":
        return view
    if node.op_type == "Transpose":
        return view.transpose(tuple(node.attributes["perm"].as_ints()))
    split = _shuffled(node, view) if _is_shuffle(node) else view
    after = None if split is None else split.reshape(shape_of(node.outputs[0]))
    if after is None or sum(len(axis) for axis in after.axes) > MAX_RANK:
        return None
    return after


def _shuffled(node: ir.Node, view: View) -> View | None:
    """DepthToSpace (CRD): depth is [C, b, b] and its blocks go behind height and width."""
    n, depth, h, w = view.shape
    b = node.attributes["blocksize"].as_int()
    split = view.reshape((n, depth // (b * b), b, b, h, w))
    return None if split is None else split.transpose((0, 1, 4, 2, 5, 3))
