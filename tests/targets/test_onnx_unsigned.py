"""Weights that could saturate are stored as uint8, and mean the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.targets.onnx.unsigned import SAFE, unsigned_weights
from tests.support.graphs import feeds_for, run_reference
from tests.support.quantized import QuantizedBuilder

Array = np.ndarray[Any, Any]


def _model(bits: int = 8, computed: bool = True, dtype: Any = np.uint8) -> ir.Model:
    g = QuantizedBuilder()
    x = g.input("x", (3, 10))
    data = g.pair(x, (0.03, 12), dtype) if computed else x
    return g.model(g.op("MatMul", data, g.stored((10, 6), 1, bits=bits), out="y"))


def _weight(model: ir.Model) -> tuple[Array, Array]:
    node = next(n for n in model.graph if n.op_type == "MatMul")
    assert node.inputs[1] is not None
    maker = node.inputs[1].producer()
    assert maker is not None
    codes, zero = (model.graph.initializers[str(maker.inputs[i].name)] for i in (0, 2))  # type: ignore[union-attr]
    assert codes.const_value is not None
    assert zero.const_value is not None
    return codes.const_value.numpy(), zero.const_value.numpy()


def test_codes_and_zero_points_move_together() -> None:
    model = _model()
    before, _ = _weight(model)
    feeds = feeds_for(model)
    expected = run_reference(model, feeds)["y"]
    unsigned_weights(model)
    codes, zero = _weight(model)
    assert codes.dtype == zero.dtype == np.uint8
    np.testing.assert_array_equal(codes.astype(int) - zero.astype(int), before.astype(int))
    # The same numbers are summed in the same order: bit for bit.
    np.testing.assert_array_equal(run_reference(model, feeds)["y"], expected)
    # The old constants are gone: the file must not hold both.
    assert not [v for v in model.graph.initializers.values() if v.dtype is ir.DataType.INT8]


def test_no_sum_of_two_products_leaves_int16() -> None:
    """Why ``SAFE`` is safe, and 65 would not be."""
    assert 2 * 255 * SAFE <= np.iinfo(np.int16).max < 2 * 255 * (SAFE + 1)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bits": 7}, "7 bits fit, and u8 x s8 is faster"),
        ({"computed": False}, "float activations: nothing is multiplied as integers"),
        ({"dtype": np.int8}, "s8 x s8 is widened"),
        ({"bits": 4}, "4-bit weights are unpacked"),
    ],
)
def test_what_stays_int8(options: dict[str, Any], why: str) -> None:
    model = _model(**options)
    before, _ = _weight(model)
    unsigned_weights(model)
    after, _ = _weight(model)
    assert after.dtype == before.dtype, why
    np.testing.assert_array_equal(after, before)
