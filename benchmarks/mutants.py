"""Inject twelve faults into each lowering and see whether verification catches and names them.

``python -m benchmarks.mutants [--json]``. In float32 every fault must be caught and the right
node named; each moves the output by at least ten times the gate. For float16 the table shows
each fault's effect and whether it was seen, and the smallest weight scale that is seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.faults import FAULTS, FaultyBackend, scale_fault
from benchmarks.mutation_model import mutation_model
from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.budget import gates
from edgevit.bundle import Entry
from edgevit.loading import load
from edgevit.parity import compare
from edgevit.passes.order import canonicalize
from edgevit.reference import Arrays, run_reference
from edgevit.runtimes.chain import Chain
from edgevit.subject import Expected, LoweredPart, Subject, expect
from edgevit.target import load_target
from edgevit.verify import verify_parts

TARGETS = {"onnx": "onnx", "litert": "raspberry-pi-5", "coreml": "iphone-npu"}
SAMPLES = 2
SCALES = (1.01, 1.005, 1.002, 1.001, 1.0005, 1.0002, 1.0001)


@dataclass(frozen=True)
class Row:
    """One fault on one backend.

    Attributes:
        effect: max|y-r| / max|r| that the fault makes in float32 arithmetic.
        gate: Whether a whole-network gate failed.
        replay: Whether the per-node replay failed.
        expected: Value that the faulty node makes.
        named: Value that verification names first; empty if none.
        group: Values that the artifact computes together with it (fused operators).
        node: Source node that verification names; empty if none.
        nodes: Source nodes that may be named: those that make a value of the group.
    """

    backend: str
    precision: str
    fault: str
    effect: float
    gate: bool
    replay: bool
    expected: str
    named: str
    group: tuple[str, ...]
    node: str
    nodes: tuple[str, ...]

    @property
    def caught(self) -> bool:
        """Whether verification failed at all."""
        return self.gate or self.replay

    @property
    def right(self) -> bool:
        """Whether the faulty node is the one named, or is fused into it."""
        return self.expected in self.group and self.node in self.nodes


@dataclass(frozen=True)
class Model:
    """The mutation model, loaded once."""

    source: bytes
    canonical: ir.Model
    samples: tuple[Arrays, ...]
    expected: Expected


@cache
def mutation_subject() -> Model:
    """Load and canonicalize the mutation model; run the reference."""
    proto = mutation_model(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutation.onnx"
        path.write_bytes(proto.SerializeToString())
        canonical = load(path).model
    canonicalize(canonical)
    rng = np.random.default_rng(0)
    samples = tuple(
        {"x": rng.standard_normal((1, 3, 6, 6)).astype(np.float32)} for _ in range(SAMPLES)
    )
    source = proto.SerializeToString()
    return Model(source, canonical, samples, expect(source, canonical, samples, trace=True))


def _run(root: Path, entry: Entry, batches: Sequence[Mapping[str, Any]]) -> list[Arrays]:
    with Chain(root, entry, threads=1) as chain:
        return [chain.run(feeds) for feeds in batches]


def effect_of(fault: Any) -> float:
    """How far a fault moves the output: the faulty canonical model in ONNX Runtime."""
    model = mutation_subject()
    faulty = model.canonical.clone()
    fault(faulty)
    moved = run_reference(ir.to_proto(faulty).SerializeToString(), model.samples).outputs
    found = compare(
        np.stack([r["logits"] for r in model.expected.outputs]),
        np.stack([m["logits"] for m in moved]),
    )
    return float(found.max_rel or 0.0)


def check(backend: str, precision: str, name: str, fault: Any, effect: float) -> Row:
    """Lower with the fault, verify, and see what verification says."""
    model = mutation_subject()
    target = load_target(TARGETS[backend])
    faulty = FaultyBackend(registry.load("backends", backend)(), fault)
    expected_node = fault(model.canonical.clone())
    lowered = faulty.lower(model.canonical, target, LowerOptions(precision, "source", "model"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for path, content in lowered.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        subject = Subject(
            source=model.source,
            canonical=model.canonical,
            parts=(LoweredPart(backend, lowered),),
            entry=Entry.of_part(lowered.part),
            root=root,
            precision=precision,
            gates=gates(target, precision, {}),
            run=_run,
        )
        parity = verify_parts(subject, model.samples, model.expected, synthetic=True)
    first = parity.first_divergent
    return Row(
        backend,
        precision,
        name,
        effect,
        gate=not all(f.passed for f in parity.figures),
        replay=first is not None,
        expected=expected_node,
        named=first.value if first is not None else "",
        group=first.group if first is not None else (),
        node=first.node if first is not None else "",
        nodes=source_nodes(first.group if first is not None else ()),
    )


def source_nodes(values: Sequence[str]) -> tuple[str, ...]:
    """Names of the source's own nodes that make these values, read from the source model."""
    proto = mutation_model(seed=0)
    return tuple(n.name for n in proto.graph.node if set(n.output) & set(values))


def float32_rows() -> list[Row]:
    """All faults on all backends in float32."""
    rows = []
    for name, fault in FAULTS.items():
        effect = effect_of(fault)
        rows += [check(backend, "fp32", name, fault, effect) for backend in TARGETS]
    return rows


def float16_rows() -> list[Row]:
    """All faults, then ever smaller weight scales, on Core ML in float16."""
    faults = {**FAULTS, **{f"scale {s:g}": scale_fault(s) for s in SCALES}}
    return [
        check("coreml", "fp16", name, fault, effect_of(fault))
        for name, fault in faults.items()
    ]


def _print(rows: Sequence[Row]) -> None:
    for r in rows:
        seen = "gate+replay" if r.gate and r.replay else "replay" if r.replay else "gate"
        said = seen if r.caught else "not seen"
        where = r.named or "-"
        print(
            f"{r.backend:<7} {r.precision} {r.fault:<20} effect {r.effect:8.1e}  "
            f"{said:<12} names {where!r}{'' if r.right else f', fault at {r.expected!r}'}"
        )


def main() -> int:
    """Print the table; exit 1 if a float32 fault was missed or misnamed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--float32-only", action="store_true")
    options = parser.parse_args()
    exact = float32_rows()
    half = [] if options.float32_only else float16_rows()
    if options.json:
        print(json.dumps({"rows": [asdict(r) for r in [*exact, *half]]}))
    else:
        _print([*exact, *half])
    return 0 if all(r.caught and r.right for r in exact) else 1


if __name__ == "__main__":
    sys.exit(main())
