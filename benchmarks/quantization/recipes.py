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


_NAIVE = "observer=minmax,weight-observer=minmax"
OURS = (
    Ours("w8a8", "onnx", "w8a8"),
    Ours("w6a6 naive", "onnx", "w6a6", f"quantize{{{_NAIVE}}},sink-quantizers"),
    Ours("w6a6", "onnx", "w6a6"),
    Ours("w4a8 naive", "onnx", "w4a8", f"quantize{{{_NAIVE}}},sink-quantizers"),
    Ours("w4a8", "onnx", "w4a8"),
    Ours("w4a4 naive", "onnx", "w4a4", f"quantize{{{_NAIVE}}},sink-quantizers"),
    Ours("w4a4", "onnx", "w4a4"),
    Ours("w8", "onnx", "w8"),
    Ours("w4", "onnx", "w4"),
)
