"""Output-error weights by gradients: torch against closed forms, ONNX Runtime, forward passes.

What needs torch runs in ``.venv-torch`` and is marked long.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from benchmarks.corpus.store import CACHE
from edgevit.errors import Availability, BackendMissingError, UsageError
from edgevit.loading import load
from edgevit.passes.bridge_quant import BridgeQuant
from edgevit.passes.order import canonicalize
from edgevit.passes.output_weights import Probe, at_logits, forward_weights, probabilities
from edgevit.passes.subgraphs import between
from edgevit.pipeline import Context
from edgevit.reference import run_reference
from edgevit.roundoff import roundoff
from edgevit.tolerance import bounds
from tests.passes.harness import Array, build
from tests.passes.test_bridge_quant import FIXTURES, images
from tests.passes.test_channel_folds import canonical
from tests.passes.test_compensate import scheme
from tests.support import torch_worker
from tests.support.node_cases import case_names
from tests.support.torch_worker import BROKEN, MUTANTS, ask

# Closed forms are float64 and so is the graph: some hundred operations in a row.
RTOL, ATOL = 1e-11, 1e-13


def blob(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def known(rows: int, ends_in_softmax: bool) -> tuple[ir.Model, dict[str, Array], Array, Array]:
    """``y = tanh(v) A``: model, feeds, A, and the diagonal of the Hessian along v, ``[6]``.

    With d = 1 - tanh(v)^2 the Jacobian is ``diag(d) A``, so that
    ``H_ii = d_i^2 (A (diag p - p p^T) A^T)_ii``, and rows do not mix.
    """
    rng = np.random.default_rng(rows)
    a = rng.normal(size=(6, 5)).astype(np.float32)
    last = (
        "z = MatMul(t, A)\ny = Softmax<axis=2>(z)" if ends_in_softmax else "y = MatMul(t, A)"
    )
    model = build(
        f"float[1,{rows},6] x => float[1,{rows},5] y",
        f"v = Neg(x)\nt = Tanh(v)\n{last}",
        {"A": a},
    )
    x = rng.normal(size=(1, rows, 6)).astype(np.float32)
    wide = a.astype(np.float64)
    hidden = np.tanh(-x[0].astype(np.float64))
    slope = 1 - hidden**2
    p = probabilities(hidden @ wide)
    inner = np.einsum("ic,rc,ic->ri", wide, p, wide) - np.einsum("ic,rc->ri", wide, p) ** 2
    return model, {"x": x}, a, (slope**2 * inner).mean(axis=0)


def measured(model: ir.Model, feeds: dict[str, Array], **options: Any) -> Array:
    draws = {"count": 64, "dtype": "float64", **options.pop("draws", {})}
    found = ask(
        "curvature", model=blob(model), axes={"v": 2}, samples=[feeds], draws=draws, **options
    )
    made: Array = found["v"]
    return made


@pytest.mark.long
@pytest.mark.parametrize("ends_in_softmax", [False, True])
def test_gradients_forward_passes_and_the_closed_form_agree(ends_in_softmax: bool) -> None:
    model, feeds, _, expected = known(3, ends_in_softmax)
    assert np.allclose(measured(model, feeds), expected, rtol=RTOL, atol=ATOL)
    start = next(o for n in model.graph for o in n.outputs if o.name == "v")
    piece = between(model, start, model.graph.outputs)
    # rows do not mix, and a channel has one element a row: signs are exact; the step of a
    # tenth of the deviation leaves the fourth order
    forward = forward_weights(piece, 2, [{"v": -feeds["x"]}], Probe(1, groups=0))
    assert np.allclose(forward, expected, rtol=0.05)


@pytest.mark.long
def test_random_signs_are_right_on_average() -> None:
    """The variance of a squared sum of signs is at most twice its squared mean."""
    model, feeds, _, expected = known(3, False)
    count = 4000
    draws = {"count": count}
    model, feeds, _, expected = known(900, False)  # 4,500 outputs: more than that
    found = measured(model, feeds, draws=draws)
    # 900 positions are averaged besides, but not independent of one another's signs
    assert np.allclose(found, expected, rtol=5 * np.sqrt(2 / count))


@pytest.mark.long
def test_the_error_at_an_exit_has_a_known_hessian() -> None:
    model, feeds, a, _ = known(2, False)
    weights = np.array([1.0, 2.0, 0.5, 4.0, 0.0])
    found = measured(model, feeds, end={"value": "y", "weights": weights, "axis": 2})
    slope = 1 - np.tanh(-feeds["x"][0].astype(np.float64)) ** 2
    expected = (slope**2 * (a.astype(np.float64) ** 2 @ weights)).mean(axis=0)
    assert np.allclose(found, expected, rtol=RTOL, atol=ATOL)


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_rejected(mutant: str) -> None:
    model, feeds, _, expected = known(3, False)
    assert not np.allclose(measured(model, feeds, mutant=mutant), expected, rtol=0.05)


def test_the_second_derivative_at_logits() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(1, 2, 4))
    p = probabilities(y)
    hessian = np.stack([np.diag(row) - np.outer(row, row) for row in p[0]])
    assert np.allclose(at_logits([y]), np.einsum("rii->ri", hessian).mean(axis=0))


@pytest.mark.long
@pytest.mark.parametrize(("mode", "count"), [("bridges", 24), ("layers", 6)])
def test_both_ways_agree_on_a_trained_hybrid(mode: str, count: int) -> None:
    """Of every layer the mean curvature is divided out: what is left are shares of channels.

    The forward way draws one direction a sample, so that a single channel is uncertain by up
    to sqrt(2 / samples) of its size; how channels of a layer rank is not.
    """
    model = canonical("fashion_hybrid_ts.onnx")
    found = ask("importances", model=blob(model), samples=list(images(count)), mode=mode)
    pairs = {n: (f, g) for n, (f, g) in found.items() if np.ptp(f) > 0}
    assert len(pairs) == {"bridges": 3, "layers": 20}[mode]
    alike = [np.corrcoef(_ranks(f), _ranks(g))[0, 1] for f, g in pairs.values()]
    assert np.mean(alike) > 0.6
    shuffled = [np.corrcoef(_ranks(f), _ranks(g[::-1]))[0, 1] for f, g in pairs.values()]
    assert np.mean(shuffled) < 0.3


def _ranks(values: Array) -> Array:
    return np.argsort(np.argsort(values))


def zoo(name: str) -> ir.Model:
    model = load(CACHE / "trained" / f"{name}_fashion.onnx", {}).model
    canonicalize(model)
    return model


def _off(model: ir.Model, feeds: dict[str, Array], mutant: str = "") -> list[str]:
    """Values that torch, in float64, computes otherwise than ONNX Runtime may in float32."""
    reference = run_reference(blob(model), [feeds], trace=1).traces[0]
    values = {**reference, **feeds}
    limits = bounds(model, values, frozenset(values), roundoff("float32"))
    found = ask("replay", model=blob(model), feeds=feeds, reference=reference, mutant=mutant)
    assert set(limits) == set(found)
    return [f"{n}: {gap:.3g}" for n, gap in found.items() if not gap <= limits[n]]


@pytest.mark.long
@pytest.mark.parametrize("name", ["fashion_hybrid_ts.onnx", "fashion_vit_ts.onnx"])
def test_every_node_of_the_fixtures_is_onnx_runtimes(name: str) -> None:
    assert _off(canonical(name), next(iter(images(1)))) == []


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["mobilevit_xxs", "mobilevitv2_050", "efficientformerv2_s0", "levit_128s"]
)
def test_every_node_of_trained_models_is_onnx_runtimes(name: str) -> None:
    model = zoo(name)
    shape = model.graph.inputs[0].shape
    assert shape is not None
    rng = np.random.default_rng(7)
    x = rng.normal(size=tuple(int(d) for d in shape.numpy())).astype(np.float32)
    assert _off(model, {str(model.graph.inputs[0].name): x}) == []


@pytest.mark.long
@pytest.mark.parametrize("mutant", BROKEN)
def test_wrong_operators_are_noticed(mutant: str) -> None:
    model = canonical(f"fashion_{'vit' if mutant == 'Gelu' else 'hybrid'}_ts.onnx")
    assert _off(model, next(iter(images(1))), mutant) != []


@pytest.mark.long
def test_onnx_s_own_node_tests_pass() -> None:
    """Those that are canonical, in dtypes that torch computes with; none may be wrong."""
    found = ask("cases", names=list(case_names()))
    assert sum(outcome == "pass" for outcome in found.values()) >= 300
    refused = ("pass", "refused", "unsupported")
    assert {n: o for n, o in found.items() if not o.startswith(refused)} == {}


@pytest.mark.long
def test_a_compile_says_that_gradients_were_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=np.stack([f["x"] for f in images(10)]))
    model = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
    passes = "bridge-quant{curvature=gradient,rows=64},sink-quantizers"
    done = subprocess.run(
        [str(torch_worker.PYTHON), "-m", "edgevit", "compile", str(model), "--target", "onnx",
         "--precision", "w8a8", "--calib", "calib.npz", "--passes", passes, "--json",
         "-o", "out.edgevit"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(torch_worker.ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {
        p["spec"].partition("{")[0]: p for p in json.loads(done.stdout)["result"]["passes"]
    }
    assert "gradients through torch" in found["bridge-quant"]["notes"][0]["text"]


def test_without_torch_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Availability("torch", False, "", "torch is not installed", "torch")
    monkeypatch.setattr("edgevit.torchgraph.interpret.probe", lambda: missing)
    model = canonical("fashion_hybrid_ts.onnx")
    p = BridgeQuant(curvature="gradient", rows=8)
    with pytest.raises(BackendMissingError, match="torch") as caught:
        p.plan(model, Context(images(1), scheme(), "test"))
    assert caught.value.exit_code == 3
    assert "edgevit[torch]" in caught.value.hint


def test_unknown_ways_are_refused() -> None:
    model = canonical("fashion_hybrid_ts.onnx")
    with pytest.raises(UsageError, match="curvature"):
        BridgeQuant(curvature="guess").plan(model, Context(images(1), scheme(), "test"))


def test_the_worker_is_where_make_puts_it() -> None:
    assert torch_worker.PYTHON.parent.parent == Path(__file__).parents[2] / ".venv-torch"
