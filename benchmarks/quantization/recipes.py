"""What is measured: our precisions, and the public quantizers in the forms worth comparing."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OURS", "Ours"]


@dataclass(frozen=True)
class Ours:
    """A compile of ours.

    Attributes:
        label: Column of the table.
        target: Target name.
        precision: Precision name.
        passes: Pass specs; empty: the precision's own pipeline.
    """

    label: str
    target: str
    precision: str
    passes: str = ""


_NAIVE = "quantize{observer=minmax,weight-observer=minmax},sink-quantizers"
_BRIDGE = "bridge-quant,sink-quantizers"
# Granularity, scheme and scales of inputs from one pass, codes of weights from the other.
_BOTH = "bridge-quant{weights=-1},compensate,sink-quantizers"
OURS = (
    Ours("w8a8", "onnx", "w8a8"),
    Ours("w8a8 bridge", "onnx", "w8a8", _BRIDGE),
    Ours("w8a8", "linux-x86", "w8a8"),
    Ours("w8a8-dyn", "linux-x86", "w8a8-dyn"),
    Ours("w6a6 naive", "onnx", "w6a6", _NAIVE),
    Ours("w6a6", "onnx", "w6a6"),
    Ours("w6a6 both", "onnx", "w6a6", _BOTH),
    Ours("w4a8 naive", "onnx", "w4a8", _NAIVE),
    Ours("w4a8 both", "onnx", "w4a8", _BOTH),
    Ours("w4a4 naive", "onnx", "w4a4", _NAIVE),
    Ours("w4a4 both", "onnx", "w4a4", _BOTH),
    Ours("w8", "onnx", "w8"),
    Ours("w4", "onnx", "w4", "compensate"),
)
