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
_QUANTIZE = "quantize,sink-quantizers"
_BRIDGE = "bridge-quant,sink-quantizers"
# Granularity, scheme and scales of inputs from one pass, codes of weights from the other.
_BOTH = "bridge-quant{weights=-1},compensate,sink-quantizers"
# Channel granularity for every tensor, by multiplications of their own where nothing folds.
_SMOOTH = "smooth-quant{explicit=true},quantize{weights=-1},compensate,sink-quantizers"
# Weights are the bottleneck: less is moved to them, and the worst layers get 8 bits.
_WIDE = (
    "smooth-quant{explicit=true,alpha=0.4,least=0},quantize{weights=-1},"
    "compensate{widen=0.75},sink-quantizers"
)
OURS = (
    Ours("w8a8", "onnx:cpu=vnni", "w8a8"),
    Ours("w8a8", "onnx", "w8a8"),
    Ours("w8a8 bridge", "onnx", "w8a8", _BRIDGE),
    Ours("w8a8 outputs", "onnx", "w8a8", "quantize{outputs=Conv},sink-quantizers"),
    Ours("w8a8", "linux-x86", "w8a8"),
    Ours("w8a8-dyn", "linux-x86", "w8a8-dyn"),
    Ours("w6a6 naive", "onnx", "w6a6", _NAIVE),
    Ours("w6a6", "onnx", "w6a6"),
    Ours("w6a6 quantize", "onnx", "w6a6", _QUANTIZE),
    Ours("w6a6 both", "onnx", "w6a6", _BOTH),
    Ours("w6a6 smooth", "onnx", "w6a6", _SMOOTH),
    Ours("w4a8 naive", "onnx", "w4a8", _NAIVE),
    Ours("w4a8", "onnx", "w4a8"),
    Ours("w4a8 quantize", "onnx", "w4a8", _QUANTIZE),
    Ours("w4a8 both", "onnx", "w4a8", _BOTH),
    Ours("w4a8 smooth", "onnx", "w4a8", _SMOOTH),
    Ours("w4a8 wide", "onnx", "w4a8", _WIDE),
    Ours("w4a4 naive", "onnx", "w4a4", _NAIVE),
    Ours("w4a4", "onnx", "w4a4"),
    Ours("w4a4 quantize", "onnx", "w4a4", _QUANTIZE),
    Ours("w4a4 both", "onnx", "w4a4", _BOTH),
    Ours("w4a4 smooth", "onnx", "w4a4", _SMOOTH),
    Ours("w8", "onnx", "w8"),
    Ours("w4", "onnx", "w4", "compensate"),
)
