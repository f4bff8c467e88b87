"""The compiler half of a backend: canonical graph in, files and a debug map out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from edgevit.bundle import Binding, Part
from edgevit.errors import Availability

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.target import Target

__all__ = [
    "Arithmetic",
    "Backend",
    "Foreign",
    "LowerOptions",
    "Lowered",
    "Merging",
    "Placing",
    "Resolving",
    "Tuning",
]


@dataclass(frozen=True)
class Arithmetic:
    """What an artifact's float arithmetic is; sums are in float32 in any case.

    Attributes:
        tensors: numpy dtype name in which activations are kept.
        weights: numpy dtype name in which constants are stored.
        narrow_from: Constants of fewer elements stay float32.
        dynamic: Layers with stored weights quantize their activations as they run, to 8 bits.
    """

    tensors: str = "float32"
    weights: str = "float32"
    narrow_from: int = 0
    dynamic: bool = False


@dataclass(frozen=True)
class LowerOptions:
    """How to lower.

    Attributes:
        precision: ``"fp32"``, ``"fp16"``, ... (design.md, Precisions).
        io: ``"source"`` keeps the source model's layout and dtypes at the artifact's
            boundary; ``"native"`` gives the engine's own (channels-last, float16).
        stem: File name stem of the artifact inside the bundle.
        tuning: What was measured (``Tuning``), as its file holds it; ``None``: nothing.
    """

    precision: str
    io: Literal["source", "native"]
    stem: str
    tuning: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lowered:
    """The product of a lowering.

    Attributes:
        files: Path inside the bundle -> content.
        part: Engine, artifact path, and the bindings of inputs and outputs.
        values: Debug map: each source value (by name) that the artifact holds as a tensor,
            outputs included, in execution order. A value that was fused away is absent.
    """

    files: Mapping[str, bytes]
    part: Part
    values: tuple[Binding, ...]


@runtime_checkable
class Merging(Protocol):
    """What a backend may do besides: several input shapes in one artifact."""

    def merge(
        self, variants: Sequence[Lowered], target: Target, stem: str
    ) -> tuple[Lowered, ...]:
        """Put lowerings of one model at several input shapes together, weights stored once.

        Each result keeps its variant's bindings and values; all may share ``files``, and
        ``part.function`` then says which part of the artifact is whose. A variant that the
        target cannot share comes back as it is. Deterministic bytes.
        """


@runtime_checkable
class Foreign(Protocol):
    """What a backend may do besides: make artifacts that this machine cannot run."""

    def foreign(self, target: Target) -> str | None:
        """Why artifacts for the target do not run here; ``None`` if they do."""


@runtime_checkable
class Placing(Protocol):
    """What a backend may do besides: know which unit it gives a node to."""

    def unit(self, node: ir.Node, target: Target) -> str:
        """Of a canonical node, as placement rules name it; rules of others do not hold."""


@runtime_checkable
class Resolving(Protocol):
    """What a backend may do besides: say what an option like ``native`` stands for."""

    def resolve(self, target: Target) -> Target:
        """The target with every option as it is recorded: equal names, equal bytes."""


@runtime_checkable
class Tuning(Protocol):
    """What a backend may do besides: choose by measuring on this machine."""

    def tune(
        self,
        model: ir.Model,
        target: Target,
        options: LowerOptions,
        trials: int,
        tick: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """``options.tuning`` with what it lacks for a canonical model, measured.

        Raises:
            GateError: The target is another machine.
        """


class Backend(Protocol):
    """Lowers canonical graphs (docs/canonical.md); pure: no files, no clock, no network."""

    name: ClassVar[str]
    precisions: ClassVar[frozenset[str]]

    def probe(self) -> Availability:
        """Whether this machine can lower."""

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """Why this canonical node cannot be lowered; ``None`` if it can."""

    def arithmetic(self, precision: str) -> Arithmetic:
        """The float arithmetic of an artifact of this precision."""

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Lower a canonical model whose every node is supported. Deterministic bytes."""

    def replay(self, lowered: Lowered) -> Lowered:
        """Cut the *shipped* artifact at every mapped value, for per-node verification.

        The result is an artifact whose inputs are all mapped values and model inputs, and
        whose outputs are, for each mapped value, the tensor that the shipped operators
        compute for it from the nearest mapped predecessors ("teacher forcing").
        ``part.inputs`` and ``part.outputs`` carry the source value names; it is derived from
        ``lowered.files`` (the bytes that ship), never from the graph.
        """

    def expose(self, lowered: Lowered) -> Lowered:
        """The shipped artifact with every mapped value as an additional output, uncut.

        Used to follow how errors accumulate. Derived from ``lowered.files`` like ``replay``;
        outputs keep the artifact names of ``lowered.values``.
        """
