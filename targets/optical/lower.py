"""The optical backend: canonical graph -> frame program, and ONNX parts for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.errors import Availability, probe_packages

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.target import Target

__all__ = ["OpticalBackend"]


class OpticalBackend:
    """Schedules products into frames of a 4f correlator; see ``edgevit.backend.Backend``.

    Everything else runs in ordinary electronics, as ONNX parts inside of the artifact: no
    operator is refused, and ``unit`` says what light computes.
    """

    name: ClassVar[str] = "optical"
    precisions: ClassVar[frozenset[str]] = frozenset({"fp32"})

    def probe(self) -> Availability:
        """Lowering needs ``scipy`` beside the compiler's own packages."""
        return probe_packages(self.name, "optical", "scipy", ("onnx-ir", "compile"))

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """What electronics cannot run either, and layers that do not fit the plane."""
        from edgevit.targets.onnx.lower import OnnxBackend
        from edgevit.targets.optical.fit import misfit

        reason = OnnxBackend().unsupported(node, target, precision)
        return reason if reason is not None else misfit(node, target)

    def unit(self, node: ir.Node, target: Target) -> str:
        """Light takes layers, attention for its products, and convolutions cut into strips."""
        from edgevit.targets.onnx.lower import OnnxBackend
        from edgevit.targets.optical.fit import lit

        refused = OnnxBackend().unsupported(node, target, target.default_precision)
        return "OPTICS" if refused is None and lit(node, target) else "CPU"

    def arithmetic(self, precision: str) -> Arithmetic:
        """The ideal device loses nothing: float32 throughout."""
        return Arithmetic()

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Plan every layer, cut out the electronic parts. Deterministic bytes.

        Raises:
            UnsupportedModelError: A layer does not fit the device's planes.
        """
        from edgevit.targets.optical.schedule import schedule

        return schedule(model, target, options)

    def replay(self, lowered: Lowered) -> Lowered:
        """Every step reads the fed tensors and writes beside them."""
        from edgevit.targets.optical.replay import replay

        return replay(lowered)

    def expose(self, lowered: Lowered) -> Lowered:
        """The same program with every mapped value among its outputs."""
        from edgevit.targets.optical.replay import expose

        return expose(lowered)
