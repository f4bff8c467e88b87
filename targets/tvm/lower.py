"""The TVM backend: a shared object, its parameters, and a plan of both."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar

from edgevit import registry
from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.errors import Availability, GateError, UsageError, probe_packages

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from edgevit.target import Target
    from edgevit.targets.tvm.machine import Machine

__all__ = ["TVMBackend"]

PRECISIONS = frozenset({"fp32", "w8a8", "w8a8-dyn", "w4a8"})
# With other versions of the pair, tvm.ir.save_json crashes and code differs.
VERSIONS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}


class TVMBackend:
    """Generates native code with schedules of our own; see ``edgevit.backend.Backend``."""

    name: ClassVar[str] = "tvm"
    precisions: ClassVar[frozenset[str]] = PRECISIONS
    # Of our own; others are inlined.
    functions: ClassVar[frozenset[str]] = frozenset(
        {"ShiftConv", "ShiftLinear", "WideShiftConv", "WideShiftLinear"}
    )

    def probe(self) -> Availability:
        """Whether this machine can lower: the compiler library in the pinned versions."""
        found = probe_packages(
            self.name, "tvm", "apache-tvm", ("apache-tvm-ffi", "tvm"), ("onnx-ir", "compile")
        )
        return found if not found.ok else _pinned(found)

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """Why this canonical node cannot be lowered; ``None`` if it can."""
        from edgevit.targets.tvm.tables import refusal

        if precision not in self.precisions:
            return f"precision {precision!r} is not lowered"
        return refusal(node)

    def resolve(self, target: Target) -> Target:
        """``mcpu=native`` as the processor that it is: two machines, two names."""
        options = {**target.options, "mcpu": _machine(target).name}
        return target.model_copy(update={"options": options})

    def foreign(self, target: Target) -> str | None:
        """Code for another architecture, or for instructions that are missing here."""
        import platform

        from edgevit.targets.tvm.machine import features

        chosen = _machine(target)
        if chosen.architecture.startswith("nvptx"):
            engine: Availability = registry.load("engines", "cuda")().probe()
            return None if engine.ok else engine.reason
        here = platform.machine().replace("arm64", "aarch64").lower()
        if chosen.architecture != here:
            return f"the code is for {chosen.architecture}, this machine is {here}"
        missing = sorted(set(chosen.features) - features())
        return f"the code uses {', '.join(missing)}" if missing else None

    def arithmetic(self, precision: str) -> Arithmetic:
        """Floats are float32 throughout."""
        return Arithmetic(dynamic=precision == "w8a8-dyn")

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Lower a canonical model whose every node is supported. Deterministic bytes.

        Raises:
            UsageError: The precision is not lowered, or no schedule knows the processor.
        """
        from edgevit.targets.tvm.emit import emit

        if options.precision not in self.precisions:
            known = ", ".join(sorted(self.precisions))
            raise UsageError(
                f"tvm lowers {known}; found precision {options.precision!r}",
                hint=f"choose one of {known}",
            )
        return emit(model, _machine(target), options)

    def tune(
        self,
        model: ir.Model,
        target: Target,
        options: LowerOptions,
        trials: int,
        tick: Callable[[int, int], None],
    ) -> dict[str, Any]:
        """Time register tiles of the products that ``options.tuning`` does not know.

        Raises:
            GateError: The target is another machine, or a GPU, whose tiles follow from shapes.
        """
        from edgevit.targets.tvm.emit import walked
        from edgevit.targets.tvm.tuner import measured, products

        reason, chosen = self.foreign(target), _machine(target)
        if reason is None and chosen.architecture.startswith("nvptx"):
            reason = "tiles of a GPU follow from shapes"
        if reason is not None:
            raise GateError(f"cannot be tuned here: {reason}", hint="leave --tune out")
        ctx, _ = walked(model.graph, chosen, options)
        old = dict((options.tuning or {}).get("products", {}))
        wanted = {n: k for n, k in products(ctx.program.steps).items() if n not in old}
        found = measured(wanted, chosen, trials, tick)
        return {"schema": 1, "machine": chosen.name, "products": {**old, **found}}

    def replay(self, lowered: Lowered) -> Lowered:
        """The same code, driven call by call: each value from the nearest mapped ones."""
        return _driven(lowered, "replay", lowered.part.inputs + lowered.values)

    def expose(self, lowered: Lowered) -> Lowered:
        """The same code, stopped behind each call to read what it wrote."""
        return _driven(lowered, "expose", lowered.part.inputs)


def _machine(target: Target) -> Machine:
    from edgevit.targets.tvm.machine import machine

    return machine(target.options["mcpu"])


def _driven(lowered: Lowered, how: str, inputs: tuple[Any, ...]) -> Lowered:
    """Another plan beside the same code and parameters."""
    stem = lowered.part.artifact.rpartition(".")[0]
    path = f"{stem}.plan.json"
    plan = json.loads(lowered.files[path])
    content = json.dumps({**plan, "drive": how}, sort_keys=True, separators=(",", ":"))
    part = dataclasses.replace(lowered.part, inputs=inputs, outputs=lowered.values)
    return Lowered({**lowered.files, path: content.encode()}, part, lowered.values)


def _pinned(found: Availability) -> Availability:
    import importlib.metadata

    for name, wanted in VERSIONS.items():
        have = importlib.metadata.version(name)
        if have != wanted:
            reason = f"{name} {have} is installed, the code is written for {wanted}"
            return dataclasses.replace(found, ok=False, reason=reason)
    return found
