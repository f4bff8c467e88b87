"""The training to shifts and additions: its gradients, its balance, a tiny run of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus.fashion import locate
from benchmarks.corpus.store import CorpusError
from edgevit.loading import load
from edgevit.shift_codes import levels, nearest

REPO = Path(__file__).resolve().parents[2]
PYTHON = REPO / ".venv-torch" / "bin" / "python"
MODULE = "examples.shiftadd_training"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv-torch (`make models`)"),
]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [str(PYTHON), *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def found(code: str) -> dict[str, object]:
    """What a script prints, as JSON."""
    made: dict[str, object] = json.loads(run("-c", code).splitlines()[-1])
    return made


WEIGHTS = """
import json, numpy as np, torch
from examples.shiftadd_training.primitives import exponents, shifts, snapped
w = torch.from_numpy(np.random.default_rng(0).laplace(size=(6, 40)).astype("f4"))
w[1] = 0
q, e = shifts(w)
v = w.clone().requires_grad_()
(snapped(v) ** 2).sum().backward()
same = bool(torch.equal(snapped(snapped(w)), snapped(w)))
print(json.dumps({"q": q.tolist(), "e": e.flatten().tolist(), "w": w.tolist(),
                  "grad": (v.grad - 2 * snapped(w)).abs().max().item(), "same": same}))
"""


def test_weights_are_the_nearest_powers_and_gradients_go_straight_through() -> None:
    made = found(WEIGHTS)
    w, q = np.array(made["w"]), np.array(made["q"])
    scale = 2.0 ** np.array(made["e"])[:, None]
    assert set(np.unique(np.abs(q))) <= set(levels(1))
    # The codec's own search, on the same scales; ties are of measure zero.
    assert np.array_equal(q, nearest(w / scale, 1))
    assert np.abs(q).max(axis=1).tolist() == [64, 0, 64, 64, 64, 64]
    assert made["grad"] == 0
    assert made["same"]


GRADIENT = """
import json, torch
from torch import nn
from examples.shiftadd_training.mixture import Mixture, balance_loss, importance_and_load, scv
from examples.shiftadd_training.primitives import ShiftLinear
torch.manual_seed(0)
m = Mixture(nn.Linear(8, 4), ShiftLinear(8, 4), 8, (6.0, 4.0)).train()
x = torch.randn(3, 50, 8)
m(x).square().sum().backward()
task = m.router.weight.grad.norm().item()
m.router.weight.grad = None
m(x); m.balance.backward()
balance = m.router.weight.grad.norm().item()
# Balanced: tokens as 1 / latency make both terms vanish, others do not.
even = torch.tensor([[0.0, 0.0]]).repeat(100, 1)
sure = torch.tensor([[9.0, -9.0]] * 40 + [[-9.0, 9.0]] * 60)
noise = 1e-3
print(json.dumps({
    "task": task, "balance": balance,
    "right": balance_loss(sure, sure, noise, (6.0, 4.0)).item(),
    "wrong": balance_loss(sure.flip(1), sure.flip(1), noise, (6.0, 4.0)).item(),
    "scv": scv(torch.tensor([1.0, 3.0])).item(),
    "load": importance_and_load(even, even, 1.0)[1].tolist(),
}))
"""


def test_a_gradient_reaches_the_router_from_the_task_and_from_the_balance() -> None:
    made = found(GRADIENT)
    assert float(str(made["task"])) > 1e-3
    assert float(str(made["balance"])) > 1e-3
    assert abs(float(str(made["right"]))) < 1e-6
    # (.6 * .6, .4 * .4): mean .26, deviation .1; twice.
    assert abs(float(str(made["wrong"])) - 2 * (0.1 / 0.26) ** 2) < 1e-4
    assert made["scv"] == 0.25
    assert made["load"] == [50.0, 50.0]


LOAD = """
import json, sys, torch
from torch import nn
from examples.shiftadd_training.mixture import Mixture
from examples.shiftadd_training.primitives import ShiftLinear
loads = {}
for latencies in ((6.0, 4.0), (3.0, 1.0), (1.0, 2.0)):
    torch.manual_seed(0)
    wanted = nn.Linear(8, 4)
    m = Mixture(nn.Linear(8, 4), ShiftLinear(8, 4), 8, latencies).train()
    optimizer = torch.optim.Adam(m.parameters(), lr=1e-2)
    for step in range(400):
        m.noise = max(0.05, 1 - step / 320)
        x = torch.randn(16, 50, 8)
        loss = (m(x) - wanted(x)).square().mean() + m.balance
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    m.eval(); m(torch.randn(200, 50, 8))
    loads[latencies[1] / sum(latencies)] = m.load.item()
print(json.dumps(loads))
"""


def test_the_load_follows_one_over_latency_within_ten_percent() -> None:
    for share, load_ in found(LOAD).items():
        assert abs(float(str(load_)) / float(share) - 1) < 0.1, (share, load_)


@pytest.mark.parametrize("network", ["hybrid", "vit"])
def test_two_steps_of_each_stage_are_trained_and_exported(
    network: str, tmp_path: Path
) -> None:
    try:
        locate()
    except CorpusError as e:
        pytest.skip(str(e))
    count = ["--images", "600", "--epochs", "1", "--device", "cpu", "--out", str(tmp_path)]
    run("-m", f"{MODULE}.train", "--network", network, *count)
    for stage in ("float", "control", "shift", "mixture"):
        record = json.loads((tmp_path / f"{network}-{stage}-0.json").read_text("utf-8"))
        assert 0 <= record["accuracy"] <= 1
        assert record["test_images"] == 600
    weights = tmp_path / f"{network}-mixture-0.npz"
    run("-m", f"{MODULE}.export", str(weights))
    kinds = load(weights.with_suffix(".onnx")).operators
    blocks = 2 if network == "hybrid" else 4
    assert kinds["ai.edgevit.BinaryLinearAttention"] == blocks
    assert sum(n for k, n in kinds.items() if "MixtureOfPrimitives" in k) == blocks
    run("-m", f"{MODULE}.export", "--plain-attention", str(weights))
    plain = load(weights.with_suffix(".plain.onnx")).operators
    assert "ai.edgevit.BinaryLinearAttention" not in plain
    assert plain["ReduceMean"] >= 2 * blocks
