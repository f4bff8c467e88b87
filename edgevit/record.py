"""``report.json``: what a bundle's page shows beyond the manifest, one row a canonical node.

Blocks, predicted units, costs, and how near each value came to its tolerance. Like the
manifest, it holds nothing of time, path or host, and figures of parity are rounded to three
significant digits where they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from edgevit import strictjson
from edgevit.errors import ArtifactError

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgevit.estimate import Estimates
    from edgevit.placement import Placement
    from edgevit.target import Target
    from edgevit.verify import Parity
    from edgevit.views import Block

__all__ = [
    "RECORD",
    "BlockRow",
    "BridgeRow",
    "EstimateRow",
    "NodeRow",
    "Record",
    "RuleRow",
    "read_record",
    "record_of",
    "record_path",
]

RECORD = "report.json"
_AGAIN = "compile the model again: bundles of this version hold what the page shows"


@dataclass(frozen=True)
class BlockRow:
    """A block of the canonical graph (``views.Block``).

    Attributes:
        kind: ``attention``, ``hybrid``, ``conv``, ``mlp`` or ``other``.
        parent: Index of the block around it; ``None`` at the top.
        signature: Equal for blocks with the same operators, wiring and shapes.
    """

    kind: str
    parent: int | None
    signature: str


@dataclass(frozen=True)
class RuleRow:
    """A placement rule of the device file that decided for some node."""

    name: str
    unit: str
    source: str
    confidence: str


@dataclass(frozen=True)
class NodeRow:
    """A canonical node, in execution order.

    Attributes:
        name: Name of its first output.
        op: Canonical operator.
        block: Index of the innermost block.
        rule: Index of the placement rule that decided; ``None`` if there is none.
        macs: Multiply-accumulates.
        params: Weight elements; a shared constant counts where it is first used.
        weight_bytes: Their size.
        moved_bytes: Activations read and written.
        ratio: Replay error over its derived limit, the worst over outputs; ``None`` if the
            node was not replayed by itself (fused into a later one, or not verified).
        psnr_db: Accumulated PSNR of its value in the running artifact, the lowest over
            outputs; ``None`` if exact or not measured.
        padding: Bytes that the unit stores for each byte of the artifact's tensor.
    """

    name: str
    op: str
    block: int
    rule: int | None
    macs: int
    params: int
    weight_bytes: int
    moved_bytes: int
    ratio: float | None
    psnr_db: float | None
    padding: float = 1.0


@dataclass(frozen=True)
class BridgeRow:
    """A region between convolution and attention (``bridges.Bridge``).

    Attributes:
        direction: ``in`` (convolution to attention) or ``out``.
        entry: Name of the value that enters.
        exit: Name of the value that leaves.
        nodes: Indices of its nodes.
    """

    direction: Literal["in", "out"]
    entry: str
    exit: str
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class EstimateRow:
    """A range that was estimated from the device file's figures, not measured.

    Attributes:
        low: The range from here to ``high`` holds the true value about nine times of ten.
        mid: What the figures give.
        high: See ``low``.
        confidence: The lowest among the figures used.
    """

    low: float
    mid: float
    high: float
    confidence: str


@dataclass(frozen=True)
class Record:
    """The whole file.

    Attributes:
        activation_bytes: Most bytes of activations alive at once.
        blocks: Each after the one around it.
        rules: Placement rules that decided.
        nodes: In execution order.
        bridges: Between convolution and attention.
        latency_ms: Of one run; ``None`` if the device file has no figures for it.
        energy_mj: Of one run.
    """

    activation_bytes: int
    blocks: tuple[BlockRow, ...]
    rules: tuple[RuleRow, ...]
    nodes: tuple[NodeRow, ...]
    bridges: tuple[BridgeRow, ...] = ()
    latency_ms: EstimateRow | None = None
    energy_mj: EstimateRow | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return strictjson.canonical(strictjson.encode(self))


def record_path(entry: int) -> str:
    """Where a bundle holds the record of an entry: ``report.json``, ``report.1.json``, ..."""
    return RECORD if entry == 0 else RECORD.replace(".json", f".{entry}.json")


def read_record(bundle: Path, entry: int = 0) -> Record:
    """The record of an entry of a verified bundle.

    Raises:
        ArtifactError: There is none, or it contradicts itself.
    """
    path = bundle / record_path(entry)
    try:
        content = path.read_bytes()
    except FileNotFoundError as e:
        raise ArtifactError(
            f"{bundle}: expected {RECORD}, found none",
            hint=_AGAIN,
        ) from e
    except OSError as e:
        raise ArtifactError(f"{path}: cannot be read: {e.strerror}") from e
    try:
        found = strictjson.decode(Record, strictjson.parse(content, str(path)), RECORD)
    except ArtifactError as e:
        raise ArtifactError(e.message, hint=_AGAIN) from e
    for index, block in enumerate(found.blocks):
        if block.parent is not None and not 0 <= block.parent < index:
            raise ArtifactError(f"{RECORD}: blocks[{index}]: no earlier block {block.parent}")
    for node in found.nodes:
        if not 0 <= node.block < len(found.blocks):
            raise ArtifactError(f"{RECORD}: node {node.name!r}: no block {node.block}")
        if node.rule is not None and not 0 <= node.rule < len(found.rules):
            raise ArtifactError(f"{RECORD}: node {node.name!r}: no rule {node.rule}")
    for index, bridge in enumerate(found.bridges):
        if not bridge.nodes or not all(0 <= i < len(found.nodes) for i in bridge.nodes):
            raise ArtifactError(f"{RECORD}: bridges[{index}]: no nodes {bridge.nodes}")
    return found


def record_of(
    canonical: ir.Model,
    target: Target,
    parity: Parity | None,
    precision: str | None = None,
    stored: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Record:
    """What a compile knows of every canonical node.

    Args:
        canonical: The model that was lowered.
        target: Its rules place the nodes.
        parity: Of the staged artifact; ``None`` if not verified.
        precision: Of the artifact; the target's own where absent.
        stored: Value name -> shape of the artifact's tensor that holds it: what is padded.
    """
    from edgevit.cost import peak_activation_bytes
    from edgevit.estimate import estimate
    from edgevit.placement import place
    from edgevit.views import blocks

    rows, owner = _blocks(blocks(canonical), len(canonical.graph))
    found = place(canonical, target, precision, stored)
    rules, placed = _rules(found, len(canonical.graph))
    padding = [p.padding for p in found] or [1.0] * len(placed)
    guess = estimate(canonical, target, precision or target.default_precision)
    return Record(
        peak_activation_bytes(canonical),
        tuple(rows),
        rules,
        _nodes(canonical, parity, zip(owner, placed, padding, strict=True)),
        _bridges(canonical),
        **_estimates(guess),
    )


def _nodes(
    canonical: ir.Model,
    parity: Parity | None,
    known: Iterable[tuple[int, int | None, float]],
) -> tuple[NodeRow, ...]:
    """A row a node; ``known`` are the block, the rule and the padding of each."""
    from edgevit.cost import node_costs
    from edgevit.replay import short

    ratios, trail = _measured(parity)
    nodes = []
    each = zip(canonical.graph, node_costs(canonical), known, strict=True)
    for node, cost, (block, rule, padding) in each:
        names = [str(out.name) for out in node.outputs]
        worst = max((ratios[n] for n in names if n in ratios), default=None)
        lowest = min((trail[n] for n in names if n in trail), default=None)
        row = NodeRow(
            name=names[0],
            op=node.op_type,
            block=block,
            rule=rule,
            macs=cost.macs,
            params=cost.params,
            weight_bytes=cost.weight_bytes,
            moved_bytes=cost.moved_bytes,
            ratio=None if worst is None else short(worst),
            psnr_db=None if lowest is None else short(lowest),
            padding=short(padding),
        )
        nodes.append(row)
    return tuple(nodes)


def _bridges(canonical: ir.Model) -> tuple[BridgeRow, ...]:
    from edgevit.bridges import bridges

    at = {str(node.name): index for index, node in enumerate(canonical.graph)}
    return tuple(
        BridgeRow(b.direction, b.entry, b.exit, tuple(sorted(at[n] for n in b.nodes)))
        for b in bridges(canonical)
    )


def _estimates(guess: Estimates) -> dict[str, EstimateRow | None]:
    keys = ("low", "mid", "high", "confidence")
    return {
        name: None if found is None else EstimateRow(*(found[k] for k in keys))
        for name, found in guess.to_json().items()
    }


def _rules(
    found: tuple[Placement, ...], count: int
) -> tuple[tuple[RuleRow, ...], list[int | None]]:
    """The rules that decided, and for each node the index of its rule."""
    rules: dict[RuleRow, int] = {}
    placed: list[int | None] = [None] * count
    for index, p in enumerate(found):
        if p.unit is not None:
            rule = RuleRow(p.rule, p.unit, p.source, p.confidence)
            placed[index] = rules.setdefault(rule, len(rules))
    return tuple(rules), placed


def _measured(parity: Parity | None) -> tuple[Mapping[str, float], Mapping[str, float]]:
    if parity is None:
        return {}, {}
    trail = {} if parity.accumulation is None else parity.accumulation.trail
    return {d.value: d.ratio for d in parity.replays}, trail


def _blocks(found: tuple[Block, ...], count: int) -> tuple[list[BlockRow], list[int]]:
    """Rows with parents, and the innermost block of each node.

    Blocks are runs of the graph's own order, and the blocks inside one are runs from its
    first node on: positions identify nodes, whose names need not.
    """
    rows: list[BlockRow] = []
    owner = [0] * count
    # (block, index of the block around it, position of its first node); last in, first out.
    pending: list[tuple[Block, int | None, int]] = []
    _push(pending, found, None, 0)
    while pending:
        block, parent, start = pending.pop()
        index = len(rows)
        rows.append(BlockRow(block.kind, parent, block.signature))
        owner[start : start + len(block.nodes)] = [index] * len(block.nodes)
        _push(pending, block.children, index, start)
    return rows, owner


def _push(
    pending: list[tuple[Block, int | None, int]],
    found: tuple[Block, ...],
    parent: int | None,
    start: int,
) -> None:
    starts = []
    for block in found:
        starts.append((block, parent, start))
        start += len(block.nodes)
    pending.extend(reversed(starts))
