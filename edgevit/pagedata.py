"""Sums over a bundle's record, as its page shows them: blocks, units, operator classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgevit.manifest import Manifest
from edgevit.record import NodeRow, Record

__all__ = [
    "UNITS",
    "BlockCell",
    "BridgeLine",
    "ClassCost",
    "PlacementRow",
    "block_cells",
    "bridge_lines",
    "class_costs",
    "placement_rows",
    "unit_of",
]

# Unit -> the number of its color in the page's palette; other names share the last one.
UNITS: Mapping[str, int] = {
    "ANE": 0,
    "GPU": 1,
    "CPU": 2,
    "native": 3,
    "ONNX fallback": 4,
    "no rule": 5,
}

_CLASSES: Mapping[str, tuple[str, ...]] = {
    "convolution": ("Conv", "ConvInteger", "ConvTranspose"),
    "matrix product": ("Gemm", "MatMul", "MatMulInteger"),
    "attention": ("Attention",),
    "normalization": (
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LpNormalization",
        "RMSNormalization",
    ),
    "activation": (
        "Clip",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Sigmoid",
        "Silu",
        "Softmax",
        "Softplus",
        "Tanh",
    ),
    "data movement": (
        "Cast",
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    ),
    "quantization": ("DequantizeLinear", "QuantizeLinear"),
}
_CLASS_OF = {op: name for name, ops in _CLASSES.items() for op in ops}
_OTHER = "element-wise, reduction, other"


@dataclass(frozen=True)
class BlockCell:
    """A block's own nodes, those of the blocks inside it left to them.

    Attributes:
        number: Position in execution order, from 1.
        kind: The block's kind; ``join`` for what closes the branch around inner blocks.
        parent: Index of the record's block around it; ``None`` at the top.
        nodes: How many there are.
        first: Position of its first node in the graph.
        units: (unit, nodes), most first.
        operators: (operator, nodes), most first.
        ratio: Worst replay error over its limit; ``None`` if none was measured.
        psnr_db: Lowest accumulated PSNR; ``None`` if none was measured.
        bridges: Directions of the bridges that reach into it, ``in`` and ``out``.
    """

    number: int
    kind: str
    parent: int | None
    nodes: int
    first: int
    units: tuple[tuple[str, int], ...]
    operators: tuple[tuple[str, int], ...]
    macs: int
    weight_bytes: int
    ratio: float | None
    psnr_db: float | None
    bridges: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClassCost:
    """What one class of operators costs together."""

    name: str
    operators: tuple[tuple[str, int], ...]
    nodes: int
    macs: int
    params: int
    weight_bytes: int
    moved_bytes: int


@dataclass(frozen=True)
class PlacementRow:
    """How many nodes a rule places on a unit, which operators, why, and the most padding."""

    unit: str
    rule: str
    nodes: int
    operators: tuple[tuple[str, int], ...]
    source: str
    confidence: str
    padding: float


@dataclass(frozen=True)
class BridgeLine:
    """A bridge between convolution and attention, and the blocks that it touches."""

    direction: str
    entry: str
    exit: str
    nodes: int
    cells: tuple[int, ...]
    operators: tuple[tuple[str, int], ...]


def _counted(names: Iterable[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def unit_of(node: NodeRow, record: Record, fallback: frozenset[str]) -> str:
    """Where a node runs: a predicted unit, ``native`` without rules, or the fallback.

    Args:
        node: A row of ``record``.
        record: Its rules have the units.
        fallback: Names of the nodes that the native artifact leaves over.
    """
    if node.name in fallback:
        return "ONNX fallback"
    if node.rule is not None:
        return record.rules[node.rule].unit
    return "no rule" if record.rules else "native"


def _left_over(manifest: Manifest) -> frozenset[str]:
    return frozenset(f.node for f in manifest.coverage.fallback)


def block_cells(record: Record, manifest: Manifest) -> tuple[BlockCell, ...]:
    """Blocks in execution order, each with the nodes that no inner block has."""
    members: dict[int, list[tuple[int, NodeRow]]] = {}
    for position, node in enumerate(record.nodes):
        members.setdefault(node.block, []).append((position, node))
    parents = {b.parent for b in record.blocks}
    left_over = _left_over(manifest)
    cells: list[BlockCell] = []
    for index, rows in sorted(members.items(), key=lambda item: item[1][0][0]):
        nodes = [node for _, node in rows]
        inner = index in parents
        block = record.blocks[index]
        cell = BlockCell(
            number=len(cells) + 1,
            kind="join" if inner else block.kind,
            parent=index if inner else block.parent,
            nodes=len(nodes),
            first=rows[0][0],
            units=_counted(unit_of(n, record, left_over) for n in nodes),
            operators=_counted(n.op for n in nodes),
            macs=sum(n.macs for n in nodes),
            weight_bytes=sum(n.weight_bytes for n in nodes),
            ratio=max((n.ratio for n in nodes if n.ratio is not None), default=None),
            psnr_db=min((n.psnr_db for n in nodes if n.psnr_db is not None), default=None),
            bridges=_directions(record, {position for position, _ in rows}),
        )
        cells.append(cell)
    return tuple(cells)


def _directions(record: Record, positions: set[int]) -> tuple[str, ...]:
    touching = {b.direction for b in record.bridges if not positions.isdisjoint(b.nodes)}
    return tuple(sorted(touching))


def bridge_lines(record: Record, cells: Sequence[BlockCell]) -> tuple[BridgeLine, ...]:
    """Bridges with the numbers of the blocks (``block_cells``) that their nodes are in."""
    numbers = {record.nodes[c.first].block: c.number for c in cells}
    return tuple(
        BridgeLine(
            direction=b.direction,
            entry=b.entry,
            exit=b.exit,
            nodes=len(b.nodes),
            cells=tuple(sorted({numbers[record.nodes[i].block] for i in b.nodes})),
            operators=_counted(record.nodes[i].op for i in b.nodes),
        )
        for b in record.bridges
    )


def class_costs(nodes: Sequence[NodeRow]) -> tuple[ClassCost, ...]:
    """Costs by class of operator, the most multiply-accumulates first."""
    members: dict[str, list[NodeRow]] = {}
    for node in nodes:
        members.setdefault(_CLASS_OF.get(node.op, _OTHER), []).append(node)
    found = [
        ClassCost(
            name=name,
            operators=_counted(n.op for n in rows),
            nodes=len(rows),
            macs=sum(n.macs for n in rows),
            params=sum(n.params for n in rows),
            weight_bytes=sum(n.weight_bytes for n in rows),
            moved_bytes=sum(n.moved_bytes for n in rows),
        )
        for name, rows in members.items()
    ]
    return tuple(sorted(found, key=lambda c: (-c.macs, -c.moved_bytes, c.name)))


def placement_rows(record: Record, manifest: Manifest) -> tuple[PlacementRow, ...]:
    """Nodes by unit and rule, the unit with most nodes first."""
    left_over = _left_over(manifest)
    members: dict[tuple[str, int | None], list[NodeRow]] = {}
    for node in record.nodes:
        unit = unit_of(node, record, left_over)
        rule = None if node.name in left_over else node.rule
        members.setdefault((unit, rule), []).append(node)
    found = []
    for (unit, index), rows in members.items():
        made = None if index is None else record.rules[index]
        row = PlacementRow(
            unit=unit,
            rule="" if made is None else made.name,
            nodes=len(rows),
            operators=_counted(n.op for n in rows),
            source="" if made is None else made.source,
            confidence="" if made is None else made.confidence,
            padding=max(n.padding for n in rows),
        )
        found.append(row)
    totals = Counter({unit: 0 for unit, _ in members})
    for row in found:
        totals[row.unit] += row.nodes
    return tuple(sorted(found, key=lambda r: (-totals[r.unit], r.unit, -r.nodes, r.rule)))
