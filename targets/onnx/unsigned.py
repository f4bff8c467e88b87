"""Weights as uint8 around 128, where int8 products with uint8 activations would saturate.

ONNX Runtime on x86 without VNNI multiplies u8 x s8 by adding two products in saturating int16.
``255 * 2 * |w|`` fits only for ``|w| <= 64``; u8 x u8 is widened to int16 first and saturates
nowhere. Codes and zero point move by 128 together: the function stays what it is.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.model import Names, constant

__all__ = ["MIDDLE", "shifted", "unsigned_weights"]

MIDDLE = 128
# 2 * 255 * 64 = 32640 fits int16.
SAFE = 64


def unsigned_weights(model: ir.Model) -> None:
    """Store the weight codes that could saturate as uint8, in place.

    1. A layer reads the weight, and uint8 codes that are computed.
    2. A code is beyond ``SAFE``: others cannot saturate, and u8 x s8 is the faster product.
    """
    names = Names(model.graph)
    for node in list(model.graph):
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain:
            continue
        x, maker = (v.producer() if v is not None else None for v in node.inputs[:2])
        if x is None or maker is None or not _computed(x) or not _saturates(maker):
            continue
        codes, zero = maker.inputs[0], maker.inputs[2]
        assert codes is not None
        assert zero is not None
        maker.replace_input_with(0, shifted(model.graph, codes, names))
        maker.replace_input_with(2, shifted(model.graph, zero, names))
        for old in (codes, zero):
            if not old.uses():
                model.graph.initializers.pop(str(old.name), None)


def shifted(graph: ir.Graph, codes: ir.Value, names: Names) -> ir.Value:
    """A new initializer: constant int8 codes, or their zero points, as uint8.

    Raises:
        ValueError: It is no constant.
    """
    array = constant(codes)
    if array is None:
        raise ValueError(f"{codes.name!r} is no constant")
    moved = (array.astype(np.int16) + MIDDLE).astype(np.uint8)
    name = names.fresh(f"{codes.name}.unsigned")
    tensor = ir.tensor(moved, name=name)
    value = ir.val(name, ir.DataType.UINT8, list(moved.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def _computed(maker: ir.Node) -> bool:
    """Whether a node gives the numbers of uint8 codes that are no constants."""
    if maker.op_type != "DequantizeLinear" or maker.inputs[0] is None:
        return False
    return maker.inputs[0].dtype is ir.DataType.UINT8 and constant(maker.inputs[0]) is None


def _saturates(maker: ir.Node) -> bool:
    """Whether a node gives the numbers of constant int8 codes beyond ``SAFE``."""
    if maker.op_type != "DequantizeLinear" or len(maker.inputs) < 3:
        return False
    codes = maker.inputs[0]
    if codes is None or codes.dtype is not ir.DataType.INT8:
        return False
    array = constant(codes)
    return array is not None and int(np.abs(array.astype(np.int16)).max()) > SAFE
