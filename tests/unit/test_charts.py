from __future__ import annotations

import itertools

import pytest

from edgevit.charts import BAR_WIDTH, COLUMNS, bar, graph, psnr_panel, ratio_panel
from edgevit.pagedata import BlockCell
from edgevit.record import NodeRow


def row(ratio: float | None, psnr_db: float | None = None) -> NodeRow:
    return NodeRow("v", "Add", 0, None, 0, 0, 0, 0, ratio, psnr_db)


def cell(number: int, first: int, nodes: int, parent: int | None = None) -> BlockCell:
    units = (("ANE", nodes),)
    return BlockCell(number, "conv", parent, nodes, first, units, (), 0, 0, None, None)


@pytest.mark.parametrize(
    ("metric", "value", "limit", "beyond"),
    [
        ("max_rel", 1e-6, 1e-4, False),
        ("max_rel", 2e-4, 1e-4, True),
        ("max_rel", 0.0, 1e-4, False),
        ("psnr_db", 65.0, 50.0, True),
        ("psnr_db", 49.0, 50.0, False),
        ("cosine", 0.999, 0.99, True),
    ],
)
def test_a_bar_crosses_its_tick_exactly_if_the_value_crosses_the_gate(
    metric: str, value: float, limit: float, beyond: bool
) -> None:
    found = bar(metric, value, limit, exact=False)
    assert found is not None
    assert (found.length > found.gate) == beyond
    assert 0 <= found.length <= BAR_WIDTH
    assert 0 < found.gate < BAR_WIDTH


def test_decades_are_equally_long() -> None:
    found = [bar("max_rel", v, 1e-4, exact=False) for v in (1e-7, 1e-6, 1e-5)]
    lengths = [b.length for b in found if b is not None]
    assert lengths[2] - lengths[1] == pytest.approx(lengths[1] - lengths[0])


def test_nothing_is_drawn_where_there_is_no_figure() -> None:
    assert bar("max_rel", None, 1e-4, exact=True) is None
    assert bar("max_rel", None, 1e-4, exact=False) is None
    assert ratio_panel([row(None)], [cell(1, 0, 1)]) is None
    assert psnr_panel([row(0.5)], [cell(1, 0, 1)], 50.0) is None


def test_a_dot_is_above_the_limit_line_exactly_if_it_is_past() -> None:
    panel = ratio_panel([row(0.9), row(1.1), row(0.0), row(1e9)], [cell(1, 0, 4)])
    assert panel is not None
    assert panel.limit is not None
    limit = panel.limit.y
    assert [d.past for d in panel.dots] == [False, True, False, True]
    assert [d.y < limit for d in panel.dots] == [False, True, False, True]
    for dot in panel.dots:
        assert panel.frame.top <= dot.y <= panel.frame.bottom
        assert panel.frame.left <= dot.x <= panel.frame.right


def test_low_psnr_is_below_the_gate_line() -> None:
    panel = psnr_panel([row(None, 80.0), row(None, 40.0)], [cell(1, 0, 2)], 50.0)
    assert panel is not None
    assert panel.limit is not None
    limit = panel.limit.y
    assert [(d.past, d.y > limit) for d in panel.dots] == [(False, False), (True, True)]


def test_bands_tile_the_axis() -> None:
    panel = ratio_panel([row(0.5)] * 6, [cell(1, 0, 1), cell(2, 1, 3), cell(3, 4, 2)])
    assert panel is not None
    ends = [(b.x, b.x + b.width) for b in panel.bands]
    assert ends[0][0] == pytest.approx(panel.frame.left)
    assert ends[-1][1] == pytest.approx(panel.frame.right)
    for (_, end), (start, _) in itertools.pairwise(ends):
        assert start == pytest.approx(end)


def test_boxes_do_not_overlap_and_stay_inside() -> None:
    found = graph([cell(i + 1, i, 1) for i in range(3 * COLUMNS + 2)])
    assert len({(b.x, b.y) for b in found.boxes}) == len(found.boxes)
    assert max(b.x for b in found.boxes) + found.box_width <= found.width
    assert max(b.y for b in found.boxes) + found.box_height <= found.height
    assert [bool(b.arrow) for b in found.boxes] == [False] + [True] * (3 * COLUMNS + 1)


def test_a_frame_holds_its_blocks_in_each_row() -> None:
    found = graph([cell(i + 1, i, 1, 5 if 2 <= i < COLUMNS + 2 else None) for i in range(12)])
    assert len(found.groups) == 2
    inside = [b for b in found.boxes if b.cell.parent == 5]
    for box in inside:
        assert any(
            g.x <= box.x and box.x + found.box_width <= g.x + g.width and g.y <= box.y
            for g in found.groups
        )
    outside = [b for b in found.boxes if b.cell.parent is None]
    for box in outside:
        assert not any(g.x <= box.x < g.x + g.width and g.y + 6 == box.y for g in found.groups)


def test_segments_share_a_box_by_nodes() -> None:
    mixed = BlockCell(1, "conv", None, 4, 0, (("ANE", 3), ("CPU", 1)), (), 0, 0, None, None)
    first, second = graph([mixed]).boxes[0].segments
    assert first.width == pytest.approx(3 * second.width)
    assert second.x == pytest.approx(first.x + first.width)
