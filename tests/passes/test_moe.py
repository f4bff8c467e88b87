"""Perceptrons and linear layers as mixtures: plans, what is computed, what is refused."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.edits import KeepFloat, MixExperts, dump, parse
from edgevit.errors import UsageError
from edgevit.passes.fit_router import captured
from edgevit.passes.mixture_experts import Shifted, apply, errors, multiplied
from edgevit.passes.mixture_sites import Layer, sites
from edgevit.passes.moe import Moe
from edgevit.passes.order import canonicalize
from edgevit.pipeline import Context, parse_spec
from edgevit.pipeline import build as build_pass
from edgevit.target import load_target
from tests.passes.harness import build, operators, run

Array = np.ndarray[Any, Any]
TOKENS, DIM, HIDDEN = 10, 8, 12


def weights(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (DIM, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, DIM), "b2": (DIM,)}
    return {n: (rng.normal(size=s) / 2).astype("f4") for n, s in shapes.items()}


def perceptrons(tokens: int = TOKENS, count: int = 2) -> ir.Model:
    """Residual perceptrons over tokens."""
    lines: list[str] = []
    held: dict[str, Array] = {}
    x = "x"
    for i in range(count):
        held |= {f"{n}_{i}": a for n, a in weights(i).items()}
        out = "y" if i == count - 1 else f"x{i}"
        lines.append(
            f"h{i} = MatMul ({x}, w1_{i})\n a{i} = Add (h{i}, b1_{i})\n g{i} = Relu (a{i})\n"
            f"p{i} = MatMul (g{i}, w2_{i})\n q{i} = Add (p{i}, b2_{i})\n"
            f"{out} = Add ({x}, q{i})"
        )
        x = out
    signature = f"float[1,{tokens},{DIM}] x => float[1,{tokens},{DIM}] y"
    model = build(signature, "\n".join(lines), held)
    canonicalize(model)
    return model


@dataclass(frozen=True)
class Samples:
    count: int = 40
    seed: int = 1
    tokens: int = TOKENS
    name: str = "made"
    synthetic: bool = False

    def digest(self) -> str:
        return "0"

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.count):
            yield {"x": rng.normal(size=(1, self.tokens, DIM)).astype("f4")}


CONTEXT = Context(Samples(), None, "fp32")


def layers(edit: MixExperts) -> tuple[Any, ...]:
    first = Shifted(edit.q, edit.scale, edit.bias).dense()
    if edit.q2 is None or edit.scale2 is None or edit.bias2 is None:
        return (first,)
    return first, Shifted(edit.q2, edit.scale2, edit.bias2).dense()


def scores(edit: MixExperts, x: Array) -> Array:
    assert edit.linear is not None
    assert edit.square is not None
    return np.asarray(x @ edit.linear + np.square(x) @ edit.square)


def test_repeated_perceptrons_are_found_and_planned() -> None:
    model = perceptrons()
    found = sites(model, "mlp")
    assert [(s.activation, s.tokens, s.alike) for s in found] == [("Relu", TOKENS, 2)] * 2
    edits = Moe().plan(model, CONTEXT)
    assert [e.capacity for e in edits if isinstance(e, MixExperts)] == [4, 4]
    assert all("one of 2 alike" in e.detail for e in edits if isinstance(e, MixExperts))
    for edit in edits:
        assert isinstance(edit, MixExperts)
        q, scale = edit.q, edit.scale
        assert set(np.unique(np.abs(q))) <= {0, 1, 2, 4, 8, 16, 32, 64}
        assert np.array_equal(np.exp2(np.round(np.log2(scale))), scale)


def test_plans_are_written_and_read_back() -> None:
    edits = Moe().plan(perceptrons(), CONTEXT)
    content = io.BytesIO()
    np.savez(content, **dump([("moe", edits)]))  # type: ignore[arg-type]
    ((spec, back),) = parse(content.getvalue())
    assert spec == "moe"
    for a, b in zip(edits, back, strict=True):
        for key, value in vars(a).items():
            assert np.array_equal(value, getattr(b, key)), key


@pytest.mark.parametrize("expert", ["float", "int8"])
def test_the_model_computes_what_the_plan_says(expert: str) -> None:
    model = perceptrons(count=1)
    (site,) = sites(model, "mlp")
    options = Moe(expert=expert)
    (edit,) = options.plan(model, CONTEXT)
    assert isinstance(edit, MixExperts)
    options.perform(model, (edit,))
    kinds = operators(model)
    assert kinds["MixtureOfPrimitivesRelu"] == 1
    assert kinds["DequantizeLinear"] == (2 if expert == "int8" else 0)
    x = next(iter(Samples(1, seed=7)))["x"]
    flat = x.reshape(-1, DIM).astype(np.float64)
    chosen = np.argsort(-scores(edit, flat), kind="stable")[: edit.capacity]
    y = apply(layers(edit), "Relu", flat)
    y[chosen] = apply(site.layers, "Relu", flat)[chosen]
    limit = 1e-5 if expert == "float" else 0.2
    gap = np.abs(run(model, {"x": x})[0].reshape(-1, DIM) - flat - y)
    assert gap.max() < limit
    # All tokens through one expert is something else.
    assert np.abs(y - apply(layers(edit), "Relu", flat)).max() > 0.1
    if expert == "int8":
        assert gap.max() > 1e-4
    again = Moe().plan(model, CONTEXT)
    assert again == ()


def test_the_fitted_router_captures_more_than_norms_and_chance() -> None:
    model = perceptrons(count=1)
    (site,) = sites(model, "mlp")
    (edit,) = Moe().plan(model, Context(Samples(400), None, "fp32"))
    assert isinstance(edit, MixExperts)
    x = np.concatenate([s["x"][0] for s in Samples(200, seed=9)])
    error = errors(site, layers(edit), x)
    found = captured(scores(edit, x), error, 0.4)
    assert found > captured(np.linalg.norm(x, axis=1), error, 0.4) + 0.01
    assert found > 0.45


@pytest.mark.parametrize("router", ["norm", "random"])
def test_other_routers_are_made_too(router: str) -> None:
    model = perceptrons(count=1)
    options = Moe(router=router)
    options.perform(model, options.plan(model, CONTEXT))
    x = next(iter(Samples(1, seed=7)))["x"]
    assert np.isfinite(run(model, {"x": x})[0]).all()
    assert operators(model)["ReduceL2"] == (1 if router == "norm" else 0)


def test_single_layers_are_sites_where_that_is_asked() -> None:
    model = perceptrons(count=1)
    options = Moe(sites="linear", latencies="6:4")
    options.perform(model, options.plan(model, CONTEXT))
    assert operators(model)["MixtureOfPrimitives"] == 2
    assert operators(model)["MatMul"] == 4  # two routers, each of a linear and a square part


@pytest.mark.parametrize(
    ("options", "tokens", "reason"),
    [
        (Moe(share=0.0), TOKENS, "the capacity for multiplication is none"),
        (Moe(share=1.0), TOKENS, "the capacity for multiplication is all of 10 tokens"),
        (Moe(share=0.04), TOKENS, "which shiftadd does"),
        (Moe(latencies="1:99"), TOKENS, "is all of 10 tokens"),
        (Moe(), 1, "one token: there is nothing to route"),
        (Moe(router="class-attention"), TOKENS, "no attention of 10 tokens in front"),
    ],
)
def test_what_is_no_mixture_is_refused(options: Moe, tokens: int, reason: str) -> None:
    model = perceptrons(tokens, count=1)
    (edit,) = options.plan(model, Context(None, None, "fp32"))
    assert isinstance(edit, KeepFloat)
    assert reason in edit.reason
    assert not options.perform(model, (edit,)).modified


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("moe{router=best}", "no router 'best'"),
        ("moe{share=1.5}", "expected a share within 0 and 1"),
        ("moe{share=nan}", "expected a share within 0 and 1"),
        ("moe{latencies=6}", "no two latencies in '6'"),
        ("moe{latencies=0:4}", "no two latencies"),
        ("moe{terms=4}", "no terms 4"),
        ("moe{expert=int4}", "no expert 'int4'"),
        ("moe{samples=0}", "expected samples >= 1"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build_pass(Moe, parse_spec(spec)[1])


def test_data_is_asked_for_and_specs_round_trip() -> None:
    with pytest.raises(UsageError, match="moe needs calibration data"):
        Moe().plan(perceptrons(), Context(None, None, "fp32"))
    made = build_pass(Moe, parse_spec("moe{share=0.25,router=norm,latencies=6:4}")[1])
    assert build_pass(Moe, parse_spec(str(made))[1]) == made


def test_channels_of_zeros_and_of_denormals_stay_finite() -> None:
    held = weights()
    held["w1"][:, 0] = 0
    held["w1"][:, 1] = 1e-41
    body = "h = MatMul (x, w1)\n y = Add (h, b1)"
    signature = f"float[1,{TOKENS},{DIM}] x => float[1,{TOKENS},{HIDDEN}] y"
    model = build(signature, body, {k: held[k] for k in ("w1", "b1")})
    canonicalize(model)
    options = Moe(sites="linear")
    (edit,) = options.plan(model, CONTEXT)
    assert isinstance(edit, MixExperts)
    assert not edit.q[:, 0].any()
    assert (edit.scale >= np.finfo(np.float32).tiny).all()
    options.perform(model, (edit,))
    assert np.isfinite(run(model, next(iter(Samples(1))))[0]).all()


def test_scales_are_what_the_device_can_hold() -> None:
    """In float16, which ML programs have for scales, numbers below 2^-14 lose bits."""
    held = weights()
    held["w1"][:, :3] *= 1e-4
    body = "h = MatMul (x, w1)\n y = Add (h, b1)"
    signature = f"float[1,{TOKENS},{DIM}] x => float[1,{TOKENS},{HIDDEN}] y"
    model = build(signature, body, {k: held[k] for k in ("w1", "b1")})
    canonicalize(model)
    options = Moe(sites="linear", expert="int8")
    phone = load_target("iphone-npu")
    for precision, limit in (("fp16", 2.0**-14), ("w8a8", 2.0**-14), ("fp32", 0.0)):
        (edit,) = options.plan(model, Context(Samples(), phone, precision))
        assert isinstance(edit, MixExperts)
        assert edit.least == limit
        _, stored = multiplied(Layer(held["w1"], held["b1"]), edit.least)
        for scale in (edit.scale, stored):
            assert (scale.min() < 2.0**-14) == (limit == 0)
        assert (np.frexp(edit.scale)[0] == 0.5).all()  # powers of two
        # Peaks of the three are about 1e-4: codes of a few units hold them.
        assert np.abs(edit.q * edit.scale - held["w1"])[:, :3].max() <= 2.0**-13
