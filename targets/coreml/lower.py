"""The Core ML backend: canonical ONNX to an ``.mlpackage`` that holds an ML program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.bundle import Part
from edgevit.errors import Availability, UnsupportedModelError, UsageError, probe_packages

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.target import Target

__all__ = ["DEPLOYMENTS", "CoreMLBackend", "Deployment"]


@dataclass(frozen=True)
class Deployment:
    """An operating-system floor.

    Attributes:
        opset: Name of the target in ``coremltools.target``; decides the operator versions.
        specification: Core ML specification version (coremltools, ``_deployment_...``).
        system: The release as a number.
    """

    opset: str
    specification: int
    system: int


DEPLOYMENTS: Mapping[str, Deployment] = {
    "16": Deployment("iOS16", 7, 16),
    "17": Deployment("iOS17", 8, 17),
    "18": Deployment("iOS18", 9, 18),
}

# Programs of several functions need this release (coremltools, save_multifunction).
FUNCTIONS_SINCE = 18

LAYOUTS = ("ane", "plain")

# Floats of a program; what is quantized is in the graph that comes in.
_FLOATS = {
    "fp16": "float16",
    "fp32": "float32",
    **dict.fromkeys(("w8", "w4", "w8a8", "w4a8"), "float16"),
}


def _deployment(target: Target) -> Deployment:
    system = target.options.get("os", "")
    if system not in DEPLOYMENTS:
        raise UsageError(
            f"target {target.name!r}: option os={system!r} has no Core ML lowering",
            hint=f"os can be: {', '.join(DEPLOYMENTS)}",
        )
    return DEPLOYMENTS[system]


def _layout(target: Target) -> str:
    """A device file that does not name a layout gets the model's own order of axes."""
    layout = target.options.get("layout", "plain")
    if layout not in LAYOUTS:
        raise UsageError(
            f"target {target.name!r}: option layout={layout!r} is unknown",
            hint=f"layout can be: {', '.join(LAYOUTS)}",
        )
    return layout


class CoreMLBackend:
    """Lowers to ML programs. Needs coremltools, on Linux too; runs nothing."""

    name: ClassVar[str] = "coreml"
    precisions: ClassVar[frozenset[str]] = frozenset(_FLOATS)

    def probe(self) -> Availability:
        """Whether coremltools is installed."""
        return probe_packages(self.name, "coreml", "coremltools", ("onnx-ir", "compile"))

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """Why this canonical node cannot be lowered; ``None`` if it can."""
        from edgevit.targets.coreml.table import reason

        if precision not in self.precisions:
            return f"precision {precision!r}; Core ML lowering has {sorted(self.precisions)}"
        return reason(node, target, precision)

    def arithmetic(self, precision: str) -> Arithmetic:
        """All but ``fp32`` keep floats in float16; sums are in float32."""
        floats = _FLOATS[precision]
        return Arithmetic(tensors=floats, weights=floats)

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Lower a canonical model.

        Floats inside the program are float32 (``fp32``) or float16 (all others); constants
        are rounded once, here. Codes stay codes.

        Raises:
            UnsupportedModelError: A node is unsupported; the first one is named.
            UsageError: Unknown precision or operating system.
            BackendMissingError: coremltools is not installed.
        """
        deployment, layout = _deployment(target), _layout(target)
        if options.precision not in self.precisions:
            raise UsageError(
                f"precision {options.precision!r} has no Core ML lowering",
                hint=f"it can be: {', '.join(sorted(self.precisions))}",
            )
        self._require_supported(model, target, options.precision)
        return _lower(model, deployment, options, layout)

    def _require_supported(self, model: ir.Model, target: Target, precision: str) -> None:
        for node in model.graph:
            reason = self.unsupported(node, target, precision)
            if reason is not None:
                raise UnsupportedModelError(
                    f"node {node.name!r} ({node.op_type}, writes "
                    f"{node.outputs[0].name!r}) cannot run on {target.name}: {reason}"
                )
        self.probe().require()

    def merge(
        self, variants: Sequence[Lowered], target: Target, stem: str
    ) -> tuple[Lowered, ...]:
        """From iOS 18 on, one program with a function for each input shape.

        Before, functions cannot share weights: every shape keeps its own package.
        """
        if _deployment(target).system < FUNCTIONS_SINCE:
            return tuple(variants)
        from edgevit.targets.coreml.quiet import quiet_coremltools
        from edgevit.targets.coreml.shapes import merge

        with quiet_coremltools() as ct:
            return merge(ct.proto, variants, stem)

    def replay(self, lowered: Lowered) -> Lowered:
        """Cut the shipped program at every mapped value (see ``replay.py``)."""
        from edgevit.targets.coreml.quiet import quiet_coremltools
        from edgevit.targets.coreml.replay import replay

        stem = PurePosixPath(lowered.part.artifact).stem
        with quiet_coremltools() as ct:
            return replay(ct.proto, lowered, f"{stem}.replay")

    def expose(self, lowered: Lowered) -> Lowered:
        """The shipped program with every mapped value as an output (see ``replay.py``)."""
        from edgevit.targets.coreml.quiet import quiet_coremltools
        from edgevit.targets.coreml.replay import expose

        stem = PurePosixPath(lowered.part.artifact).stem
        with quiet_coremltools() as ct:
            return expose(ct.proto, lowered, f"{stem}.exposed")


def _lower(
    model: ir.Model, deployment: Deployment, options: LowerOptions, layout: str
) -> Lowered:
    import numpy as np

    from edgevit.targets.coreml.package import (
        describe,
        export,
        metadata,
        package,
        package_path,
    )
    from edgevit.targets.coreml.program import Form, build
    from edgevit.targets.coreml.quiet import fresh_builder, quiet_coremltools

    dtype = np.dtype(_FLOATS[options.precision])
    form = Form(dtype, options.io, deployment.system, layout)
    with quiet_coremltools() as ct, fresh_builder() as mb:
        opset = getattr(ct.target, deployment.opset)
        built = build(mb, model, form, opset)
        message, weights = export(built.program, deployment.specification)
        title = model.graph.name or options.stem
        notes = metadata(options.precision, deployment.opset, ct.__version__, title)
        sides = (built.inputs, built.outputs)
        spec = describe(ct.proto, message, sides, deployment.specification, notes)
    part = Part("coreml", package_path(options.stem), built.inputs, built.outputs)
    return Lowered(package(options.stem, spec, weights), part, built.values)
