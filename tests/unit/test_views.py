"""Graph views, cuts, blocks and paths, against answers worked out by hand."""

from __future__ import annotations

import networkx as nx
import onnx_ir as ir
import pytest

from edgevit import views

WIDTH = 8


def value(name: str) -> ir.Value:
    return ir.val(name, ir.DataType.FLOAT, [1, WIDTH])


def model(*lines: str) -> ir.Model:
    """Build a graph from lines such as ``"y = Add x z"``; ``x`` enters, the last leaves."""
    known = {"x": value("x")}
    nodes = []
    for line in lines:
        out, right = line.split(" = ")
        op, *inputs = right.split()
        node = ir.Node("", op, [known[i] for i in inputs], outputs=[value(out)], name=out)
        known[out] = node.outputs[0]
        nodes.append(node)
    graph = ir.Graph(
        [known["x"]], [nodes[-1].outputs[0]], nodes=nodes, opset_imports={"": 23}, name="g"
    )
    return ir.Model(graph, ir_version=11)


DIAMOND = model("a = Relu x", "b = Exp a", "c = Neg a", "d = Add b c", "e = Add d d")


def by_name(m: ir.Model) -> dict[str, ir.Node]:
    return {str(n.name): n for n in m.graph}


def test_view_has_an_edge_for_each_use_and_is_frozen() -> None:
    view = views.graph(DIAMOND)
    n = by_name(DIAMOND)
    assert sorted(view[n["d"]][n["e"]]) == [("d", 0), ("d", 1)]
    assert view.number_of_edges() == 6
    with pytest.raises(nx.NetworkXError, match="Frozen graph"):
        view.add_node(n["a"])


def test_ancestors_and_descendants() -> None:
    view, n = views.graph(DIAMOND), by_name(DIAMOND)
    assert views.ancestors(view, n["d"]) == {n["a"], n["b"], n["c"]}
    assert views.descendants(view, n["b"]) == {n["d"], n["e"]}


@pytest.mark.parametrize(
    ("region", "convex"),
    [("a b c d", True), ("b c", True), ("a b d", False), ("a d", False), ("a e", False)],
)
def test_convex(region: str, convex: bool) -> None:
    n = by_name(DIAMOND)
    assert views.is_convex(views.graph(DIAMOND), [n[i] for i in region.split()]) is convex


def test_critical_path_takes_the_heavier_branch() -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 1.0, "e": 1.0}
    path, total = views.critical_path(DIAMOND, lambda node: weights[str(node.name)])
    assert [n.name for n in path] == ["a", "c", "d", "e"]
    assert total == 8.0


def test_cuts_are_where_everything_flows_through_one_value() -> None:
    cuts = views.cut_values(DIAMOND.graph, DIAMOND.graph.inputs)
    assert [v.name for v in cuts] == ["a", "d", "e"]


def test_cuts_do_not_depend_on_the_order_of_branches() -> None:
    other = model("a = Relu x", "c = Neg a", "b = Exp a", "d = Add b c", "e = Add d d")
    cuts = views.cut_values(other.graph, other.graph.inputs)
    assert [v.name for v in cuts] == ["a", "d", "e"]


def test_a_skip_from_the_input_hides_all_cuts_before_its_end() -> None:
    m = model("a = Relu x", "b = Exp a", "c = Add b x", "d = Neg c")
    assert [v.name for v in views.cut_values(m.graph, m.graph.inputs)] == ["c", "d"]


def block(index: int, source: str, skip: str) -> list[str]:
    """Attention and MLP, each with a skip, reading ``source``."""
    p = f"b{index}"
    return [
        f"{p}n = Softplus {source}",
        f"{p}q = Exp {p}n",
        f"{p}k = Neg {p}n",
        f"{p}s = MatMul {p}q {p}k",
        f"{p}a = {skip} {p}s {source}",
        f"{p}h = Tanh {p}a",
        f"{p}g = Gelu {p}h",
        f"{p}m = Add {p}g {p}a",
    ]


def repeated(count: int, odd: int | None = None) -> ir.Model:
    lines, source = ["stem = Relu x"], "stem"
    for index in range(count):
        lines += block(index, source, "Mul" if index == odd else "Add")
        source = f"b{index}m"
    return model(*lines, f"head = Sigmoid {source}")


def test_repeated_blocks_are_grouped() -> None:
    groups = views.group(views.blocks(repeated(4)))
    assert [str(g) for g in groups] == ["other", "4 x attention + other", "other"]
    assert (groups[1].first, groups[1].last, groups[1].nodes) == ("stem", "b3m", 32)


def test_a_block_with_another_operator_breaks_the_group() -> None:
    groups = views.group(views.blocks(repeated(4, odd=2)))
    counts = [(g.count, g.kinds) for g in groups if "attention" in g.kinds]
    assert counts == [(2, ("attention", "other")), (1, ("attention",)), (1, ("attention",))]


def test_every_node_is_in_exactly_one_block() -> None:
    m = repeated(3)
    named = [name for b in views.blocks(m) for name in b.nodes]
    assert named == [n.name for n in m.graph]


def test_blocks_behind_a_skip_are_found() -> None:
    lines = ["stem = Relu x"]
    source = "stem"
    for index in range(2):
        lines += [
            f"q{index} = Exp {source}",
            f"a{index} = Attention q{index} {source} {source}",
        ]
        source = f"a{index}"
    m = model(*lines, "joined = Concat stem a1", "out = Relu joined")
    outer = next(b for b in views.blocks(m) if b.kind == "attention")
    assert [b.kind for b in outer.children] == ["attention", "attention"]
