"""The LiteRT backend: canonical graph -> TFLite flatbuffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.errors import Availability, UsageError, probe_packages

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.target import Target

__all__ = ["LiteRTBackend"]

# The quantized ones differ in the graph that comes in; ``w8a8-dyn`` in how it is lowered.
PRECISIONS = frozenset(
    {"fp32", "fp16", "w8", "w4", "w8a8", "w8a8-dyn", "w8a16", "w4a8", "w6a6", "w4a4", "mixed"}
)


class LiteRTBackend:
    """Writes one ``.tflite`` file for LiteRT and its XNNPACK delegate."""

    name: ClassVar[str] = "litert"
    precisions: ClassVar[frozenset[str]] = PRECISIONS

    def probe(self) -> Availability:
        """Whether this machine can lower."""
        return probe_packages(self.name, "litert", "ai-edge-litert", ("onnx-ir", "compile"))

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """Why this canonical node cannot be lowered; ``None`` if it can."""
        from edgevit.targets.litert.tables import refusal

        if precision not in self.precisions:
            return f"precision {precision!r} is not lowered"
        if node.op_type in target.exclude_ops:
            return f"target {target.name!r} excludes {node.op_type}"
        return refusal(node)

    def arithmetic(self, precision: str) -> Arithmetic:
        """``fp16`` stores weights in float16; floats are computed in float32 throughout."""
        from edgevit.targets.litert.context import HALF_WEIGHT

        if precision == "fp16":
            return Arithmetic(weights="float16", narrow_from=HALF_WEIGHT)
        return Arithmetic(dynamic=precision == "w8a8-dyn")

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Lower a canonical model whose every node is supported. Deterministic bytes.

        Raises:
            UsageError: The precision is not one of ``precisions``.
        """
        from edgevit.targets.litert.emit import emit

        if options.precision not in self.precisions:
            known = ", ".join(sorted(self.precisions))
            raise UsageError(
                f"litert lowers {known}; found precision {options.precision!r}",
                hint=f"choose one of {known}",
            )
        return emit(model, options)

    def merge(
        self, variants: Sequence[Lowered], target: Target, stem: str
    ) -> tuple[Lowered, ...]:
        """One file with a subgraph and a signature for each input shape."""
        from edgevit.targets.litert.shapes import merge

        return merge(variants, stem)

    def replay(self, lowered: Lowered) -> Lowered:
        """Cut the shipped artifact at every mapped value."""
        from edgevit.targets.litert.replay import replay

        return replay(lowered)

    def expose(self, lowered: Lowered) -> Lowered:
        """The shipped flatbuffer with every mapped value as an output (see ``replay.py``)."""
        from edgevit.targets.litert.replay import expose

        return expose(lowered)
