"""What a model holds, what canonicalization does to it, and what a target would run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit import registry
from edgevit.backend import Backend, LowerOptions
from edgevit.bridges import Bridge, bridges
from edgevit.cost import Cost, peak_activation_bytes, total_cost
from edgevit.estimate import Estimates, estimate
from edgevit.loading import load, survey
from edgevit.model import shape_of
from edgevit.partition import Coverage, coverage, of_source
from edgevit.pipeline import PassRecord
from edgevit.placement import Placement, place
from edgevit.primitives import Audit, audit, text_of_audit
from edgevit.report import bytes_text, table, text_of_estimate
from edgevit.schemas import UnknownOperator
from edgevit.target import Target, load_target
from edgevit.views import Block, BlockGroup, blocks, group

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Canonical", "Inspection", "OnTarget", "inspect", "text_of_inspection"]

# Of about a millisecond a kernel.
_ROUNDS = 15


@dataclass(frozen=True)
class OnTarget:
    """What a target would do with the canonical model at its default precision."""

    name: str
    backend: str
    precision: str
    coverage: Coverage
    placement: tuple[Placement, ...]
    estimates: Estimates


@dataclass(frozen=True)
class Canonical:
    """The model after canonicalization.

    Attributes:
        ops: Operator name -> count.
        inputs: Name -> shape.
        outputs: Name -> shape.
        cost: Sum over the graph.
        activation_bytes: Most bytes of activations alive at once.
        blocks: Regions between values through which everything flows.
        bridges: Regions that carry convolutional features into attention and back.
        passes: What each pass changed and refused, repeated rounds included.
    """

    ops: Mapping[str, int]
    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    cost: Cost
    activation_bytes: int
    blocks: tuple[Block, ...]
    bridges: tuple[Bridge, ...]
    passes: tuple[PassRecord, ...]


@dataclass(frozen=True)
class Inspection:
    """Everything ``edgevit inspect`` says.

    Attributes:
        model: File name.
        opset: Operator set of the file.
        ops: Operator name -> count in the file.
        unknown: Nodes that no operator set defines; if any, the rest is ``None``.
        canonical: The model after canonicalization.
        target: What the target would do with it; ``None`` if none was named.
        audit: What its products cost here; ``None`` if that was not asked.
    """

    model: str
    opset: int
    ops: Mapping[str, int]
    unknown: tuple[UnknownOperator, ...]
    canonical: Canonical | None
    target: OnTarget | None
    audit: Audit | None = None

    def to_json(self) -> dict[str, Any]:
        """The ``result`` object of ``edgevit inspect --json``."""
        found: dict[str, Any] = {
            "model": self.model,
            "opset": self.opset,
            "ops": dict(self.ops),
            "unknown": [asdict(u) for u in self.unknown],
        }
        found |= _canonical_json(self.canonical, self.ops)
        found["primitives"] = None if self.audit is None else self.audit.to_json()
        return found | _target_json(self.target)


def inspect(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    target: str | None,
    *,
    primitives: bool = False,
) -> Inspection:
    """Load, canonicalize and look.

    Args:
        path: ONNX file.
        shapes: Input name -> shape, binding symbolic dimensions.
        target: Target name with overrides; adds coverage and placement.
        primitives: Whether to time its products here.

    Raises:
        InputError: The model cannot be loaded for a reason other than unknown operators.
        UsageError: No such target.
    """
    device = None if target is None else load_target(target)
    seen = survey(path)
    if seen.unknown:
        return Inspection(path.name, seen.opset, seen.operators, seen.unknown, None, None)
    source = load(path, shapes).model
    model = source.clone()
    run = registry.load_attribute("edgevit.passes.order:canonicalize")
    records: tuple[PassRecord, ...] = run(model)
    on_target = None
    if device is not None:
        backend = registry.load("backends", device.backend)()
        on_target = _on_target(source, model, backend, device)
    found = _look(model, records)
    timed = audit(model, _ROUNDS) if primitives else None
    return Inspection(path.name, seen.opset, seen.operators, (), found, on_target, timed)


def _on_target(
    source: ir.Model, model: ir.Model, backend: Backend, device: Target
) -> OnTarget:
    precision = device.default_precision
    covered = coverage(model, backend, device, precision)
    stored: dict[str, tuple[int, ...]] = {}
    if device.placement and not covered.fallback and backend.probe().ok:
        # What a unit pads are the tensors of its program, not those of the graph.
        lowered = backend.lower(model, device, LowerOptions(precision, "source", "model"))
        stored = {b.name: b.artifact_shape for b in lowered.values}
    return OnTarget(
        name=device.name,
        backend=device.backend,
        precision=precision,
        coverage=of_source(covered, source, model),
        placement=place(model, device, precision, stored),
        estimates=estimate(model, device, precision),
    )


def _look(model: ir.Model, records: tuple[PassRecord, ...]) -> Canonical:
    names = (f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph)
    return Canonical(
        ops=dict(sorted(Counter(names).items())),
        inputs={str(v.name): shape_of(v) for v in model.graph.inputs},
        outputs={str(v.name): shape_of(v) for v in model.graph.outputs},
        cost=total_cost(model),
        activation_bytes=peak_activation_bytes(model),
        blocks=blocks(model),
        bridges=bridges(model),
        passes=records,
    )


def _recovered(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Operators that canonicalization made out of others: more of them than in the file."""
    kinds = (
        "Attention",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LayerNormalization",
        "Mish",
        "RMSNormalization",
        "ai.edgevit.Silu",
    )
    gained = {kind: after.get(kind, 0) - before.get(kind, 0) for kind in kinds}
    return {kind: count for kind, count in gained.items() if count > 0}


def _canonical_json(found: Canonical | None, before: Mapping[str, int]) -> dict[str, Any]:
    if found is None:
        keys = ("canonical_ops", "recovered", "inputs", "outputs", "blocks", "bridges")
        return dict.fromkeys(
            (*keys, "passes", "macs", "params", "weight_bytes", "activation_bytes")
        )
    return {
        "canonical_ops": dict(found.ops),
        "recovered": _recovered(before, found.ops),
        "inputs": {k: list(v) for k, v in found.inputs.items()},
        "outputs": {k: list(v) for k, v in found.outputs.items()},
        "blocks": [_group_json(g) for g in group(found.blocks)],
        "bridges": [asdict(b) | {"nodes": list(b.nodes)} for b in found.bridges],
        "passes": _passes_json(found.passes),
        "macs": found.cost.macs,
        "params": found.cost.params,
        "weight_bytes": found.cost.weight_bytes,
        "activation_bytes": found.activation_bytes,
    }


def _group_json(found: BlockGroup) -> dict[str, Any]:
    return {
        "count": found.count,
        "kinds": list(found.kinds),
        "first": found.first,
        "last": found.last,
        "nodes": found.nodes,
        "inner": [_group_json(g) for g in group(found.inner)],
    }


def _passes_json(records: Sequence[PassRecord]) -> list[dict[str, Any]]:
    """One entry a pass, over all rounds; a refusal repeated in each round counts once."""
    merged: dict[str, dict[str, Any]] = {}
    for record in records:
        entry = merged.setdefault(
            record.spec,
            {"spec": record.spec, "effect": record.effect.value, "changed": 0, "refused": []},
        )
        entry["changed"] += len(record.changes)
        refused = (asdict(r) for r in record.refusals)
        entry["refused"] += [r for r in refused if r not in entry["refused"]]
    return list(merged.values())


def _target_json(found: OnTarget | None) -> dict[str, Any]:
    if found is None:
        return {"target": None, "coverage": None, "placement": [], "cost": None}
    covered = {
        "nodes": found.coverage.nodes,
        "on_target": found.coverage.on_target,
        "fallback": [
            {"node": f.node, "op": f.op, "reason": f.reason} for f in found.coverage.fallback
        ],
    }
    return {
        "target": found.name,
        "backend": found.backend,
        "precision": found.precision,
        "coverage": covered,
        "placement": [asdict(p) for p in found.placement],
        "cost": found.estimates.to_json(),
    }


def text_of_inspection(found: Inspection, verbose: bool) -> str:
    """The terminal view; ``verbose`` adds every refusal."""
    data = found.to_json()
    lines = [f"{found.model}: opset {found.opset}, {sum(found.ops.values())} nodes"]
    if found.unknown:
        rows = [(u.node, u.domain or "ai.onnx", u.operator) for u in found.unknown]
        lines += ["", table(("node", "domain", "unknown operator"), rows)]
        return "\n".join([*lines, "", f"FAIL: {len(rows)} nodes with unknown operators"])
    lines += ["", *_text_of_canonical(data), *_text_of_target(data)]
    if found.audit is not None:
        lines += ["", text_of_audit(found.audit)]
    if verbose:
        lines += _text_of_refusals(data)
    return "\n".join(lines)


def _text_of_canonical(data: Mapping[str, Any]) -> list[str]:
    before, after = data["ops"], data["canonical_ops"]
    names = sorted({*before, *after})
    rows = [(name, before.get(name, 0) or "", after.get(name, 0) or "") for name in names]
    recovered = ", ".join(f"{count} {name}" for name, count in data["recovered"].items())
    return [
        table(("operator", "in the file", "canonical"), rows),
        "",
        f"recovered: {recovered or 'nothing'}",
        f"{data['macs'] / 1e6:.1f} M multiply-accumulates, {data['params'] / 1e6:.2f} M "
        f"parameters ({bytes_text(data['weight_bytes'])}), "
        f"{bytes_text(data['activation_bytes'])} of activations at the peak",
        "",
        table(("blocks", "nodes", "from", "to"), list(_block_rows(data["blocks"], ""))),
        *_text_of_bridges(data["bridges"]),
    ]


def _text_of_bridges(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return ["", "bridges between convolution and attention: none"]
    rows = [(b["direction"], len(b["nodes"]), b["entry"], b["exit"]) for b in found]
    return ["", table(("bridges", "nodes", "from", "to"), rows)]


def _block_rows(groups: Sequence[Mapping[str, Any]], indent: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for g in groups:
        times = f"{g['count']} x " if g["count"] > 1 else ""
        label = f"{indent}{times}{' + '.join(g['kinds'])}"
        rows.append((label, str(g["nodes"]), g["first"], g["last"]))
        rows += _block_rows(g["inner"], indent + "  ")
    return rows


def _text_of_target(data: Mapping[str, Any]) -> list[str]:
    if data["target"] is None:
        return []
    covered = data["coverage"]
    lines = [
        "",
        f"{data['target']} ({data['backend']}, {data['precision']}): runs "
        f"{covered['on_target']} of {covered['nodes']} source nodes",
    ]
    guess = text_of_estimate(data["cost"])
    lines += [guess] if guess else []
    if covered["fallback"]:
        rows = [(f["op"], f["node"], f["reason"]) for f in covered["fallback"]]
        lines.append(table(("left over", "node", "reason"), rows))
    counted = Counter((p["unit"] or "unknown", p["rule"]) for p in data["placement"])
    if counted:
        units = [(unit, rule, n) for (unit, rule), n in sorted(counted.items())]
        lines += ["", table(("predicted unit", "rule", "nodes"), units)]
    return lines


def _text_of_refusals(data: Mapping[str, Any]) -> list[str]:
    rows = [(p["spec"], r["node"], r["reason"]) for p in data["passes"] for r in p["refused"]]
    return ["", table(("refused by", "node", "reason"), rows)] if rows else []
