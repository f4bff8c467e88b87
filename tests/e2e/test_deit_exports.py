"""deit_tiny from both exporters: one canonical graph, every block recovered."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

from edgevit.digest import digest
from edgevit.loading import load
from edgevit.passes.order import canonicalize

MODELS = Path(__file__).parents[2] / ".cache" / "models"
SHAPE_ARITHMETIC = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero"}


def canonical(exporter: str) -> ir.Model:
    path = MODELS / f"deit_tiny_patch16_224_{exporter}.onnx"
    if not path.exists():
        pytest.skip(f"skipped: needs {path.name} (make models)")
    model = load(path).model
    canonicalize(model)
    return model


@pytest.mark.long
@pytest.mark.parametrize("exporter", ["ts", "dynamo"])
def test_blocks_are_recovered_and_no_shape_arithmetic_is_left(exporter: str) -> None:
    counted = Counter(node.op_type for node in canonical(exporter).graph)
    found = (counted["Attention"], counted["LayerNormalization"], counted["Gelu"])
    assert found == (12, 25, 12)
    assert not SHAPE_ARITHMETIC & set(counted)


@pytest.mark.long
def test_both_exporters_give_the_same_graph_up_to_names() -> None:
    assert digest(canonical("ts")) == digest(canonical("dynamo"))
