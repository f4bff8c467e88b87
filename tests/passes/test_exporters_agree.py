"""The same network exported by torch script and by dynamo becomes the same graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.digest import digest
from edgevit.errors import InternalError
from edgevit.loading import load
from edgevit.passes import order
from edgevit.passes.check_canonical import check_canonical
from edgevit.passes.order import CANONICAL, ROUNDS, canonicalize
from edgevit.pipeline import Effect
from tests.passes.harness import feeds_for, run

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
NAMES = ("fashion_vit", "fashion_hybrid")
EXPORTERS = ("ts", "dynamo")
# Two orders of summation over the whole network; the gate of whole networks is 1e-4.
LIMIT = 1e-5


@pytest.fixture(scope="module")
def canonical() -> dict[str, ir.Model]:
    found = {}
    for name in (f"{n}_{e}" for n in NAMES for e in EXPORTERS):
        model = load(MODELS / f"{name}.onnx").model
        canonicalize(model)
        found[name] = model
    return found


@pytest.mark.parametrize("name", [f"{n}_{e}" for n in NAMES for e in EXPORTERS])
def test_nothing_but_canonical_operators_is_left(
    canonical: dict[str, ir.Model], name: str
) -> None:
    assert check_canonical(canonical[name]) == ()


@pytest.mark.parametrize("name", [f"{n}_{e}" for n in NAMES for e in EXPORTERS])
def test_the_function_is_the_same(canonical: dict[str, ir.Model], name: str) -> None:
    source = load(MODELS / f"{name}.onnx").model
    feeds = feeds_for(source, seed=3, spread=1.0)
    for wanted, found in zip(run(source, feeds), run(canonical[name], feeds), strict=True):
        scale = np.abs(wanted).max()
        assert scale > 0.1, "the model is dead"
        assert np.abs(found - wanted).max() <= LIMIT * scale


@pytest.mark.parametrize("name", [f"{n}_{e}" for n in NAMES for e in EXPORTERS])
def test_inputs_and_outputs_keep_names_and_shapes(
    canonical: dict[str, ir.Model], name: str
) -> None:
    source = load(MODELS / f"{name}.onnx").model
    for kind in ("inputs", "outputs"):
        before = [(v.name, v.dtype, v.shape) for v in getattr(source.graph, kind)]
        after = [(v.name, v.dtype, v.shape) for v in getattr(canonical[name].graph, kind)]
        assert before == after


def test_the_transformer_is_the_same_to_the_byte(canonical: dict[str, ir.Model]) -> None:
    first, second = (canonical[f"fashion_vit_{e}"] for e in EXPORTERS)
    assert digest(first) == digest(second)


def test_the_hybrid_differs_in_rounding_of_folded_weights_only(
    canonical: dict[str, ir.Model],
) -> None:
    """Both exporters fold batch normalization themselves, and round differently."""
    first, second = (canonical[f"fashion_hybrid_{e}"] for e in EXPORTERS)
    assert digest(first, weights=False) == digest(second, weights=False)
    feeds = feeds_for(first, seed=5, spread=1.0)
    [a], [b] = run(first, feeds), run(second, feeds)
    assert np.abs(a - b).max() <= LIMIT * np.abs(a).max()


@pytest.mark.parametrize("name", ["fashion_vit_ts", "fashion_hybrid_dynamo"])
def test_canonicalizing_again_changes_nothing(
    canonical: dict[str, ir.Model], name: str
) -> None:
    model = canonical[name].clone()
    before = digest(model)
    records = canonicalize(model)
    assert len(records) == len(CANONICAL), "one round finds nothing to do"
    assert not any(r.changes for r in records)
    assert digest(model) == before


def test_the_fixpoint_is_reached_well_within_the_bound() -> None:
    model = load(MODELS / "fashion_vit_ts.onnx").model
    records = canonicalize(model)
    assert len(records) < ROUNDS * len(CANONICAL)
    assert {r.effect for r in records} == {Effect.EXACT}


def test_passes_that_do_not_settle_are_our_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "ROUNDS", 1)
    with pytest.raises(InternalError, match=r"did not settle in 1 rounds.*remove-dead"):
        canonicalize(load(MODELS / "fashion_vit_ts.onnx").model)


def test_nodes_say_which_rule_made_them(canonical: dict[str, ir.Model]) -> None:
    from edgevit.rewrite import RULE_KEY

    [attention, *_] = [
        n for n in canonical["fashion_vit_ts"].graph if n.op_type == "Attention"
    ]
    assert attention.metadata_props[RULE_KEY]
