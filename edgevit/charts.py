"""Geometry of a report's charts: numbers in, coordinates out; the template draws them.

All coordinates are in the units of the chart's own viewBox, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgevit.pagedata import BlockCell
from edgevit.parity import HIGHER_IS_BETTER
from edgevit.record import NodeRow

__all__ = [
    "Bar",
    "Box",
    "Frame",
    "Graph",
    "Panel",
    "bar",
    "graph",
    "psnr_panel",
    "ratio_panel",
]

WIDTH = 960
LEFT = 64
RIGHT = 12
TOP = 22
DEEP = 180
BAR_WIDTH = 240
# Decades shown beside a gate that an error has to stay below.
DECADES_BELOW, DECADES_ABOVE = 4, 1
BOX_W, BOX_H, GAP_X, GAP_Y, COLUMNS = 118, 66, 22, 30, 7
MARGIN = 10
# A tag's height, and the width of a letter in it.
TAG_H, TAG_W = 16, 6.8


@dataclass(frozen=True)
class Bar:
    """A horizontal bar with a tick where the gate is; lengths of ``BAR_WIDTH``."""

    length: float
    gate: float


def bar(metric: str, value: float | None, limit: float | None, exact: bool) -> Bar | None:
    """A figure against its gate; ``None`` where there is nothing to draw.

    Metrics that should be high are linear from zero, errors logarithmic around the gate.
    """
    if exact or value is None or limit is None:
        return None
    if metric in HIGHER_IS_BETTER:
        top = 1.15 * max(value, limit, 1e-9)
        return Bar(BAR_WIDTH * max(value, 0.0) / top, BAR_WIDTH * limit / top)
    span = DECADES_BELOW + DECADES_ABOVE
    decades = math.log10(value / limit) if value > 0 and limit > 0 else -DECADES_BELOW
    share = (min(max(decades, -DECADES_BELOW), DECADES_ABOVE) + DECADES_BELOW) / span
    return Bar(BAR_WIDTH * share, BAR_WIDTH * DECADES_BELOW / span)


@dataclass(frozen=True)
class Tick:
    """A labeled position on the vertical axis."""

    y: float
    label: str


@dataclass(frozen=True)
class Dot:
    """One value; ``past`` if it is on the wrong side of the limit."""

    x: float
    y: float
    past: bool
    label: str


@dataclass(frozen=True)
class Band:
    """The columns of one block; ``worst`` is the height of its worst value, if any."""

    x: float
    width: float
    label: str
    worst: float | None
    note: str


@dataclass(frozen=True)
class Frame:
    """Size of a panel and its drawing area."""

    width: int
    height: int
    left: int
    right: float
    top: int
    bottom: int


@dataclass(frozen=True)
class Panel:
    """Values in execution order, in bands of blocks, against a limit line."""

    frame: Frame
    ticks: tuple[Tick, ...]
    limit: Tick | None
    bands: tuple[Band, ...]
    dots: tuple[Dot, ...]
    line: str


_FRAME = Frame(WIDTH, TOP + DEEP + 22, LEFT, WIDTH - RIGHT, TOP, TOP + DEEP)


def ratio_panel(nodes: Sequence[NodeRow], cells: Sequence[BlockCell]) -> Panel | None:
    """Replay error over limit for each value, logarithmic; ``None`` if none was measured."""
    known = [n.ratio for n in nodes if n.ratio is not None]
    if not known:
        return None
    positive = [r for r in known if r > 0]
    low = max(math.floor(math.log10(min(positive, default=0.1))), -6)
    low = min(low, -1)
    high = max(min(math.ceil(math.log10(max(positive, default=1.0))), 6), 1)

    def height(ratio: float) -> float:
        decades = math.log10(ratio) if ratio > 0 else low
        share = (min(max(decades, low), high) - low) / (high - low)
        return TOP + DEEP * (1 - share)

    ticks = tuple(Tick(height(10.0**d), f"{10.0**d:g}") for d in range(low, high + 1))
    dots = tuple(
        Dot(_x(i, len(nodes)), height(n.ratio), n.ratio > 1, f"{n.op} {n.name}: {n.ratio:.3g}")
        for i, n in enumerate(nodes)
        if n.ratio is not None
    )
    bands = tuple(
        _band(c, len(nodes), None if c.ratio is None else height(c.ratio), _said(c.ratio, ""))
        for c in cells
    )
    return Panel(_FRAME, ticks, Tick(height(1.0), "limit"), bands, dots, "")


def psnr_panel(
    nodes: Sequence[NodeRow], cells: Sequence[BlockCell], limit: float | None
) -> Panel | None:
    """Accumulated PSNR in dB along the network; ``None`` if none was measured."""
    known = [n.psnr_db for n in nodes if n.psnr_db is not None]
    if not known:
        return None
    ends = [*known, *([] if limit is None else [limit])]
    low = 10 * math.floor((min(ends) - 1) / 10)
    high = 10 * math.ceil((max(ends) + 1) / 10)

    def height(psnr_db: float) -> float:
        return TOP + DEEP * (1 - (psnr_db - low) / (high - low))

    step = 10 if high - low <= 80 else 20
    ticks = tuple(Tick(height(db), f"{db}") for db in range(low, high + 1, step))
    dots = tuple(
        Dot(
            _x(i, len(nodes)),
            height(n.psnr_db),
            limit is not None and n.psnr_db < limit,
            f"{n.op} {n.name}: {n.psnr_db:.3g} dB",
        )
        for i, n in enumerate(nodes)
        if n.psnr_db is not None
    )
    bands = tuple(_band(c, len(nodes), None, _said(c.psnr_db, " dB")) for c in cells)
    line = " ".join(f"{d.x:.1f},{d.y:.1f}" for d in dots)
    at = None if limit is None else Tick(height(limit), "gate")
    return Panel(_FRAME, ticks, at, bands, dots, line)


def _said(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.3g}{unit}"


def _x(index: float, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / count


def _band(cell: BlockCell, count: int, worst: float | None, said: str) -> Band:
    start = _x(cell.first - 0.5, count)
    width = (WIDTH - LEFT - RIGHT) * cell.nodes / count
    label = str(cell.number) if width >= 7 * len(str(cell.number)) + 2 else ""
    return Band(start, width, label, worst, f"block {cell.number} ({cell.kind}): {said}")


@dataclass(frozen=True)
class Segment:
    """A unit's share of a box's bar."""

    x: float
    width: float
    unit: str


@dataclass(frozen=True)
class Tag:
    """A label in a frame of its own."""

    x: float
    y: float
    width: float
    text: str


@dataclass(frozen=True)
class Box:
    """A block in the graph.

    Attributes:
        cell: The block.
        x: Left edge.
        y: Upper edge.
        segments: Its bar of units.
        arrow: Path from the block before it.
        tag: On the lower edge: which bridges reach into it.
    """

    cell: BlockCell
    x: float
    y: float
    segments: tuple[Segment, ...]
    arrow: str
    tag: Tag | None


@dataclass(frozen=True)
class Group:
    """A frame behind the blocks that one larger block holds, in one row."""

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Graph:
    """Boxes in rows, in execution order."""

    width: int
    height: float
    box_width: int
    box_height: int
    boxes: tuple[Box, ...]
    groups: tuple[Group, ...]


def graph(cells: Sequence[BlockCell]) -> Graph:
    """Lay the blocks out in rows from left to right."""
    boxes = tuple(_box(i, cell) for i, cell in enumerate(cells))
    rows = max(1, math.ceil(len(cells) / COLUMNS))
    width = 2 * MARGIN + COLUMNS * BOX_W + (COLUMNS - 1) * GAP_X
    height = 2 * MARGIN + rows * BOX_H + (rows - 1) * GAP_Y + TAG_H / 2
    return Graph(width, height, BOX_W, BOX_H, boxes, _groups(boxes))


def _place(index: int) -> tuple[float, float]:
    row, column = divmod(index, COLUMNS)
    return MARGIN + column * (BOX_W + GAP_X), MARGIN + row * (BOX_H + GAP_Y)


def _box(index: int, cell: BlockCell) -> Box:
    x, y = _place(index)
    segments = []
    at = x + 8
    for unit, count in cell.units:
        wide = (BOX_W - 16) * count / cell.nodes
        segments.append(Segment(at, wide, unit))
        at += wide
    said = f"bridge {' + '.join(cell.bridges)}" if cell.bridges else ""
    tag = Tag(x + 8, y + BOX_H - TAG_H / 2, TAG_W * len(said) + 12, said) if said else None
    return Box(cell, x, y, tuple(segments), _arrow(index), tag)


def _arrow(index: int) -> str:
    if index == 0:
        return ""
    x, y = _place(index)
    middle = y + BOX_H / 2
    if index % COLUMNS:
        return f"M{x - GAP_X} {middle} H{x - 5}"
    before, above = _place(index - 1)
    turn = above + BOX_H + GAP_Y / 2
    down = f"M{before + BOX_W / 2} {above + BOX_H} V{turn}"
    return f"{down} H{x + BOX_W / 2} V{y - 5}"


def _groups(boxes: Sequence[Box]) -> tuple[Group, ...]:
    found: list[Group] = []
    last: tuple[int | None, float] = (None, -1.0)
    for box in boxes:
        key = (box.cell.parent, box.y)
        if box.cell.parent is not None and key == last:
            started = found[-1]
            wide = box.x + BOX_W + 6 - started.x
            found[-1] = Group(started.x, started.y, wide)
        elif box.cell.parent is not None:
            found.append(Group(box.x - 6, box.y - 6, BOX_W + 12))
        last = key
    return tuple(found)
