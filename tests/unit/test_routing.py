"""Which tokens routers choose: found in functions and in their bodies, counted."""

from __future__ import annotations

import numpy as np

from edgevit.passes.inline_functions import InlineFunctions
from edgevit.report import text_of_parity
from edgevit.routing import _sets, routers
from tests.passes.test_token_functions import Mixture


def test_routers_are_found_as_functions_and_inlined() -> None:
    x = np.zeros((1, 6, 7), "f4")
    model = Mixture("Gelu").call(x, np.zeros((1, 6), "f4"), 2)
    assert [(v.name, n) for v, n in routers(model)] == [("score", 2)]
    InlineFunctions().call(model)
    assert [(v.name, n) for v, n in routers(model)] == [("score", 2)]


def test_shared_tokens_are_counted_ties_by_index() -> None:
    reference = np.array([[3.0, 1, 1, 2]])
    assert _sets("s", 2, reference, reference).shared == 2
    assert _sets("s", 2, reference, np.array([3.0, 1, 2, 1])).shared == 1
    assert _sets("s", 2, reference, np.array([0.0, 1, 2, 0])).shared == 0
    assert _sets("s", 3, reference, np.array([3.0, 1, 1, 2])).shared == 3


def test_the_report_says_how_many() -> None:
    sets = [_sets("s", 2, np.arange(4.0), np.arange(4.0)[::-1]).to_json()] * 2
    parity = {
        "figures": {}, "synthetic": True, "samples": 1, "top1_agreement": None, "replayed": 0,
        "first_divergent": None, "worst": [], "unjudged": [], "psnr_drop": None, "large": [],
        "fp16_accumulate_psnr_db": None, "routing": sets,
    }  # fmt: skip
    assert "routing of 2 mixtures: 0 of 4 tokens are those" in text_of_parity(parity)
    assert "routing" not in text_of_parity({**parity, "routing": []})
