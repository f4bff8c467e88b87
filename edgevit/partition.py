"""Partition a canonical graph into convex parts that one backend each can take."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgevit import registry
from edgevit.backend import Backend
from edgevit.errors import UnsupportedModelError
from edgevit.model import constant
from edgevit.provenance import shares
from edgevit.target import Target

__all__ = ["Coverage", "Fallback", "Partition", "check", "coverage", "of_source", "partition"]

FALLBACK_BACKEND = "onnx"


@dataclass(frozen=True)
class Fallback:
    """A node that the target's backend cannot run, and why.

    Attributes:
        node: Name of its first output.
        op: Its operator.
        reason: Why.
        nowhere: No other backend can be given it either.
    """

    node: str
    op: str
    reason: str
    nowhere: bool = False


@dataclass(frozen=True)
class Coverage:
    """How much of a model the target's own backend runs.

    Attributes:
        nodes: Nodes of the canonical graph, or compute nodes of the source (``of_source``).
        on_target: Those that the native artifact executes.
        fallback: The canonical nodes that it does not execute.
    """

    nodes: int
    on_target: int
    fallback: tuple[Fallback, ...]

    @property
    def share(self) -> float:
        """``on_target / nodes``; 1 for an empty graph."""
        return self.on_target / self.nodes if self.nodes else 1.0


@dataclass(frozen=True)
class Partition:
    """A convex region: its backend and the region as a model of its own."""

    backend: str
    model: ir.Model


def coverage(model: ir.Model, backend: Backend, target: Target, precision: str) -> Coverage:
    """Ask the backend and the device file about every node."""
    fallback = []
    for node in model.graph:
        nowhere = _open(node)
        reason = nowhere or _refusal(node, backend, target, precision)
        if reason is not None:
            name = str(node.outputs[0].name)
            fallback.append(Fallback(name, node.op_type, reason, nowhere is not None))
    return Coverage(len(model.graph), len(model.graph) - len(fallback), tuple(fallback))


def of_source(found: Coverage, source: ir.Model, model: ir.Model) -> Coverage:
    """The same in compute nodes of the source model.

    A source node that a left-over node stands for, if only among others, is not executed by
    the native artifact.

    Args:
        found: Of ``model``.
        source: As loaded.
        model: What passes made of it.
    """
    names = {f.node for f in found.fallback}
    counted = shares(source, model, {n for n in model.graph if n.outputs[0].name in names})
    return replace(found, nodes=counted.nodes, on_target=counted.nodes - counted.left_over)


def _open(node: ir.Node) -> str | None:
    """Why no backend can be given this node; fallback does not help."""
    for out in node.outputs:
        if out.name and (out.shape is None or not out.shape.is_static()):
            return f"the shape of {out.name!r} depends on data"
        if out.name and out.dtype is None:
            return f"the dtype of {out.name!r} is not known"
    if node.op_type == "Dropout" and not node.domain and len(node.inputs) > 2:
        mode = constant(node.inputs[2])
        if node.inputs[2] is not None and (mode is None or mode.any()):
            return "its result is random: training mode is not constantly off"
    return None


def _refusal(node: ir.Node, backend: Backend, target: Target, precision: str) -> str | None:
    if node.op_type in target.exclude_ops:
        return f"the device file of {target.name} excludes {node.op_type}"
    for value in (*node.inputs, *node.outputs):
        if (
            value is not None
            and value.shape is not None
            and len(value.shape) > target.max_rank
        ):
            return f"rank {len(value.shape)} of {value.name!r} exceeds {target.max_rank}"
    reason = backend.unsupported(node, target, precision)
    if reason is not None and node.op_type == "Identity" and not node.domain:
        return f"the output is a constant or an input of the model, and {reason}"
    return reason


def check(found: Coverage, target: Target, allow_fallback: bool) -> None:
    """The coverage gate.

    Raises:
        UnsupportedModelError: Nodes are left over and fallback is off or impossible.
    """
    nowhere = any(f.nowhere for f in found.fallback)
    if not found.fallback or (allow_fallback and target.fallback and not nowhere):
        return
    lines = [f"  {f.op} {f.node!r}: {f.reason}" for f in found.fallback[:20]]
    more = len(found.fallback) - len(lines)
    if more > 0:
        lines.append(f"  ... and {more} more")
    raise UnsupportedModelError(
        f"{len(found.fallback)} of {found.nodes} nodes cannot run on {target.name}:\n"
        + "\n".join(lines),
        hint=_hint(target, nowhere),
    )


def _hint(target: Target, nowhere: bool) -> str:
    if nowhere:
        return "a compiled model has fixed sizes and fixed results; change the model"
    if target.fallback:
        return "--allow-fallback runs them with ONNX Runtime on the device"
    return f"{target.name} has no fallback engine; change the model or the target"


def partition(model: ir.Model, backend: str, fallback: Coverage) -> tuple[Partition, ...]:
    """Split into convex parts in execution order.

    Each node gets the backend that runs it and a depth: the number of changes of backend on
    the longest path to it. Nodes of equal depth and backend form one part; a path can leave
    a part only to a greater depth, so parts are convex and their order is topological.

    Args:
        model: Canonical model.
        backend: Name of the target's backend.
        fallback: From ``coverage``; its fallback nodes go to ONNX Runtime.
    """
    if not fallback.fallback:
        return (Partition(backend, model),)
    left_over = {f.node for f in fallback.fallback}
    groups: dict[tuple[int, str], list[ir.Node]] = {}
    depth: dict[ir.Node, tuple[int, str]] = {}
    for node in model.graph:
        mine = FALLBACK_BACKEND if str(node.outputs[0].name) in left_over else backend
        level = 0
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None:
                before, theirs = depth[producer]
                level = max(level, before + (theirs != mine))
        depth[node] = (level, mine)
        groups.setdefault((level, mine), []).append(node)
    return tuple(
        Partition(name, _extract(model, nodes))
        for (_, name), nodes in sorted(groups.items(), key=lambda item: item[0])
    )


def _extract(model: ir.Model, nodes: list[ir.Node]) -> ir.Model:
    inside = set(nodes)
    inputs: dict[ir.Value, None] = {}
    outputs: dict[ir.Value, None] = {}
    for node in nodes:
        for value in node.inputs:
            if (
                value is not None
                and value.const_value is None
                and value.producer() not in inside
            ):
                inputs[value] = None
        for out in node.outputs:
            leaves = any(use.node not in inside for use in out.uses())
            if leaves or out.is_graph_output():
                outputs[out] = None
    graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    # Extraction collects constants in a set: their order would change from run to run.
    stored = sorted(graph.initializers.items())
    graph.initializers.clear()
    graph.initializers.update(stored)
    part = ir.Model(
        graph, ir_version=model.ir_version, functions=list(model.functions.values())
    )
    part.opset_imports.update(model.opset_imports)
    return part


def backend_of(name: str) -> Backend:
    """Instantiate a backend by its registry name."""
    found: Backend = registry.load("backends", name)()
    return found
