"""The energy account: which layers count, what each row changes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edgevit.accelerator import PICOJOULES, Words, product_energy
from edgevit.cost import node_costs
from edgevit.energy import ROWS, Site, accounts, sites, text_of_accounts
from edgevit.loading import load
from edgevit.passes.order import canonicalize
from tests.support.cli import FIXTURES
from tests.support.graphs import GraphBuilder

PRODUCT = Site("y", "ShiftLinear", 196, 192, 768, terms=2)


def rows(*found: Site) -> dict[str, tuple[float, float]]:
    """Name -> arithmetic and traffic."""
    return {a.name: (a.energy.arithmetic, a.energy.traffic) for a in accounts(found)[0]}


def test_every_layer_with_weights_counts() -> None:
    model = load(FIXTURES / "models" / "fashion_hybrid_ts.onnx", {}).model
    canonicalize(model)
    found = sites(model)
    assert {s.op for s in found} == {"Conv", "MatMul"}
    costs = zip(model.graph, node_costs(model), strict=True)
    assert sum(s.macs for s in found) == sum(
        cost.macs for node, cost in costs if node.op_type in ("Conv", "MatMul")
    )


def test_strided_grouped_convolutions() -> None:
    b = GraphBuilder()
    x = b.input("x", (2, 12, 9, 9))
    weight = b.const(np.ones((24, 4, 3, 3)))
    attrs: dict[str, Any] = {"strides": [2, 2], "pads": [1] * 4, "dilations": [1, 1]}
    y = b.op("Conv", x, weight, kernel_shape=[3, 3], group=3, out="y", **attrs)
    (site,) = sites(b.model(y))
    assert (site.rows, site.depth, site.columns) == (25, 4, 8)
    assert (site.image, site.kernel, site.stride, site.groups) == ((5, 5), 3, 2, 6)
    assert site.macs == 2 * 24 * 25 * 4 * 9


def test_rows_are_the_accelerator_s() -> None:
    found = rows(PRODUCT)
    int8 = product_energy(196, 192, 768, Words(PICOJOULES["multiply", 8], 8, 8))
    assert found["int8"] == (int8.arithmetic, int8.traffic)
    # Two shifts and the addition between them.
    pair = 2 * PICOJOULES["shift", 8] + PICOJOULES["add", 8]
    macs = 196 * 192 * 768
    assert found["shifts, int8's traffic"] == pytest.approx((macs * pair / 1e6, int8.traffic))


def test_pairs_of_rows_differ_in_one_thing() -> None:
    for terms in (1, 2):
        found = rows(Site("y", "ShiftLinear", 196, 192, 768, terms=terms))
        shifted, plain = found["shifts, packed codes"], found["integers of as many bits"]
        assert shifted[1] == pytest.approx(plain[1])
        assert shifted[0] < plain[0]
        assert found["shifts, int8's traffic"][1] == pytest.approx(found["int8"][1])
        assert found["shifts, float32's traffic"][1] == pytest.approx(found["float32"][1])


def test_groups_count_as_often_as_they_are() -> None:
    one = rows(Site("y", "Conv", 64, 16, 8, (8, 8), 3))
    three = rows(Site("y", "Conv", 64, 16, 8, (8, 8), 3, groups=3))
    for name in ROWS:
        assert three[name] == pytest.approx([3 * v for v in one[name]])


def test_the_text_has_the_int8_row_and_says_what_it_is() -> None:
    text = text_of_accounts([PRODUCT, Site("z", "Conv", 1, 1, 1, (1, 1), 16)])
    assert any(line.startswith("int8: ") for line in text)
    assert "not a measurement" in text[0]
    assert "1 layers fit the modelled array in no tiling" in text[-1]


def test_small_networks_have_figures_too() -> None:
    """Tenths of a microjoule would be zeros in every row."""
    lines = text_of_accounts([Site("s", "MatMul", 5, 16, 12)])
    (int8,) = (line for line in lines if line.startswith("int8:"))
    arithmetic, traffic, total = re.findall(r"[0-9.e-]+(?= [+=(])", int8)
    assert 0 < float(arithmetic) < float(traffic) < float(total) < 0.1
