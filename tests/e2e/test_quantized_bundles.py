"""Integer precisions from the command line: calibration, kernels, verification, QDQ input."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgevit import api, replay
from edgevit.target import load_target
from edgevit.tolerance import bounds
from tests.support.cli import edgevit
from tests.support.hybrids import WIDTH, Hybrid
from tests.support.optimized import optimized
from tests.support.quantized import QuantizedBuilder

# Kernels of ONNX Runtime that multiply codes, by the operator that they stand for.
KERNELS = {
    "Conv": ("QLinearConv", "ConvInteger"),
    "MatMul": ("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"),
}


SMALL = 4  # the hybrid's convolutions are depthwise, or have few channels


def _calibration(path: Path, shape: tuple[int, ...], count: int = 10) -> Path:
    rng = np.random.default_rng(1)
    np.savez(path, x=rng.normal(0, 1, (count, *shape)).astype(np.float32))
    return path


def _hybrid(path: Path) -> Path:
    """A stem, an inverted bottleneck (depthwise inside), a transformer block, a head."""
    h = Hybrid()
    stem = h.g.op("Relu", h.conv(h.image(), 3))
    tokens = h.block(h.tokens(h.conv_unit(stem, "unit")), "tokens")
    pooled = h.g.op("ReduceMean", tokens, h.g.ints([1]), keepdims=0)
    onnx.save(h.g.proto([h.linear(pooled, "logits")]), path)
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """Model, bundle and the result of a w8a8 compile for ONNX Runtime."""
    folder = tmp_path_factory.mktemp("w8a8")
    model = _hybrid(folder / "hybrid.onnx")
    calib = _calibration(folder / "calib.npz", (1, WIDTH, 4, 4))
    out = folder / "hybrid.edgevit"
    options = ["--target", "onnx", "--precision", "w8a8", "--calib", calib]
    ran = edgevit("compile", model, *options, "-o", out, "--json", cwd=folder)
    assert ran.code == 0, ran.err + ran.out
    return model, out, ran.result


def test_without_samples_the_hint_names_the_made_up_ones(call: Any, tmp_path: Path) -> None:
    model = _hybrid(tmp_path / "hybrid.onnx")
    ran = call("compile", model, "--target", "onnx", "--precision", "w8a8", "--json")
    assert ran.code == 2
    assert "needs calibration data" in ran.error["message"]
    assert "--calib synthetic" in ran.error["hint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hybrid.onnx"]


def test_real_samples_verify_the_whole_and_every_value(quantized: Any) -> None:
    result = quantized[2]
    figure = result["parity"]["sqnr_db"]
    limit = load_target("onnx").tolerance["w8a8"].sqnr_db
    assert (figure["limit"], figure["pass"]) == (limit, True)
    # 7-bit weights and 8-bit activations err; codes that were never rounded would not.
    assert limit is not None
    assert limit < figure["value"] < 60
    verification = result["verification"]
    assert verification["first_divergent"] is None
    assert (verification["synthetic"], verification["samples"]) == (False, 2)
    assert result["warnings"] == []


def test_what_folds_gain_is_in_the_report(tmp_path: Path) -> None:
    model = _hybrid(tmp_path / "hybrid.onnx")
    calib = _calibration(tmp_path / "calib.npz", (1, WIDTH, 4, 4))
    options = ["--target", "onnx", "--precision", "w8a8", "--calib", calib]
    options += ["--passes", "fold-norm-scales,bridge-quant{rows=32,probes=1},sink-quantizers"]
    out = tmp_path / "hybrid.edgevit"
    ran = edgevit("compile", model, *options, "-o", out, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err + ran.out
    passes = {p["spec"]: p["notes"] for p in ran.result["passes"]}
    gains = {note["node"]: note["gain_db"] for note in passes["fold-norm-scales"]}
    assert gains  # one for each layer behind a norm
    assert all(isinstance(gain, float) for gain in gains.values())
    first = passes["bridge-quant{rows=32,probes=1}"][0]
    assert "forward passes only" in first["text"]
    page = tmp_path / "page.html"
    assert edgevit("report", out, "--html", page, cwd=tmp_path).code == 0
    text = page.read_text(encoding="utf-8")
    assert "forward passes only" in text
    assert all(f"{gain:+.1f}" in text for gain in gains.values())


def test_gradients_without_torch_end_with_the_extra_s_name(tmp_path: Path) -> None:
    model = _hybrid(tmp_path / "hybrid.onnx")
    calib = _calibration(tmp_path / "calib.npz", (1, WIDTH, 4, 4))
    options = ["--target", "linux-x86", "--precision", "w8a8", "--calib", calib]
    options += ["--passes", "bridge-quant{curvature=gradient,rows=8}"]
    ran = edgevit("compile", model, *options, "--json", cwd=tmp_path)
    assert ran.code == 3
    assert "torch is not installed" in ran.error["message"]
    assert "edgevit[torch]" in ran.error["hint"]
    assert not list(tmp_path.glob("*.edgevit"))


def test_every_declared_operator_runs_on_integers(quantized: Any, tmp_path: Path) -> None:
    model, bundle, result = quantized
    scheme = load_target("onnx").quantization["w8a8"]
    assert set(scheme.operators) == set(KERNELS)
    kept = [
        refused["reason"]
        for p in result["passes"]
        if p["spec"].startswith("quantize")
        for refused in p["refused"]
    ]
    (artifact,) = bundle.glob("*.onnx")
    found = Counter(n.op_type for n in optimized(artifact, tmp_path / "o.onnx").graph.node)
    source = onnx.load_model(model).graph
    constants = {t.name for t in source.initializer}
    layers = Counter(
        n.op_type for n in source.node if n.input[1:2] and n.input[1] in constants
    )
    # Small convolutions stay float, and say why. Query, key and value are one product.
    assert all(reason.startswith("left float: int8 is slower on") for reason in kept)
    assert len(kept) == SMALL
    expected = {"Conv": layers["Conv"] - SMALL, "MatMul": layers["MatMul"] - 2}
    for op in scheme.operators:
        assert sum(found[k] for k in KERNELS[op]) == expected[op], (op, found)
    assert found["Conv"] + found["FusedConv"] == SMALL
    # What is left multiplies two activations: the one attention, in pieces.
    assert (found["FusedMatMul"], found["MatMul"], found["Gemm"]) == (1, 1, 0)


def test_verify_alone_runs_the_self_check(quantized: Any, tmp_path: Path) -> None:
    ran = edgevit("verify", quantized[1], "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err + ran.out


def test_verify_against_the_source_needs_no_calibration_data(
    quantized: Any, tmp_path: Path
) -> None:
    model, bundle, _ = quantized
    fresh = _calibration(tmp_path / "inputs.npz", (1, WIDTH, 4, 4), 3)
    options = ["--against", model, "--inputs", fresh, "--json"]
    ran = edgevit("verify", bundle, *options, cwd=tmp_path)
    assert ran.code == 0, ran.err + ran.out
    assert ran.result["figures"]["sqnr_db"]["pass"] is True
    assert ran.result["replayed"] > 10
    assert ran.result["first_divergent"] is None


def test_samples_choose_weights_that_need_none(tmp_path: Path) -> None:
    """w4 with samples: the bundle keeps what they decided, and is verified without them."""
    model = _hybrid(tmp_path / "hybrid.onnx")
    calib = _calibration(tmp_path / "calib.npz", (1, WIDTH, 4, 4))
    specs = {}
    for name, given in (("plain", []), ("sampled", ["--calib", calib])):
        out = tmp_path / f"{name}.edgevit"
        options = ["--target", "onnx", "--precision", "w4", *given, "-o", out, "--json"]
        ran = edgevit("compile", model, *options, cwd=tmp_path)
        assert ran.code == 0, ran.err + ran.out
        specs[name] = [p["spec"] for p in ran.result["passes"]]
        fresh = _calibration(tmp_path / "inputs.npz", (1, WIDTH, 4, 4), 3)
        again = edgevit("verify", out, "--against", model, "--inputs", fresh, cwd=tmp_path)
        assert again.code == 0, again.err + again.out
    assert "compensate{widen=0.5}" in specs["sampled"]
    assert "compensate{widen=0.5}" not in specs["plain"]


def test_verify_refuses_other_codes(quantized: Any, call: Any, tmp_path: Path) -> None:
    model, bundle, _ = quantized
    broken = tmp_path / "broken.edgevit"
    shutil.copytree(bundle, broken)
    (artifact,) = broken.glob("*.onnx")
    proto = onnx.load_model(artifact)
    codes = next(t for t in proto.graph.initializer if t.name.endswith(".codes"))
    codes.raw_data = bytes(len(codes.raw_data))
    onnx.save(proto, artifact)
    assert call("verify", broken).code == 4
    assert call("verify", broken, "--against", model).code == 4


def _qdq(path: Path) -> Path:
    """A model that came quantized: a convolution, a layout operator, a linear layer."""
    g = QuantizedBuilder()
    x = g.pair(g.input("x", (1, 4, 6, 6)), (0.03, 120), np.uint8, name="x")
    y = g.op("Conv", x, g.stored((8, 4, 3, 3), 0, bits=7), g.const(np.linspace(-1, 1, 8)),
             kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4, dilations=[1, 1],
             group=1)  # fmt: skip
    y = g.pair(g.op("Relu", y), (0.05, 0), np.uint8, name="relu")
    rows = g.op("Transpose", g.op("Reshape", y, g.ints([1, 8, 36])), perm=[0, 2, 1])
    z = g.op("Add", g.op("MatMul", rows, g.stored((8, 5), 1, 2, 7)), g.const(np.ones(5)))
    onnx.save(g.proto([g.op("Softmax", z, axis=2, out="soft")]), path)
    return path


@pytest.mark.parametrize("target", ["onnx", "linux-x86", "iphone-npu"])
def test_a_quantized_model_compiles(target: str, tmp_path: Path) -> None:
    model = _qdq(tmp_path / "qdq.onnx")
    calib = _calibration(tmp_path / "calib.npz", (1, 4, 6, 6))
    # LiteRT's linear kernel writes codes, so that its result needs a range; others need none.
    data = ["--calib", calib] if target == "linux-x86" else []
    options = ["--target", target, "--precision", "w8a8", *data, "--json"]
    ran = edgevit("compile", model, *options, "-o", tmp_path / "o.edgevit", cwd=tmp_path)
    assert ran.code == 0, ran.err + ran.out
    assert ran.result["verification"]["first_divergent"] is None
    assert ran.result["coverage"]["fallback"] == []
    changed = [p["changed"] for p in ran.result["passes"] if p["spec"].startswith("quantize")]
    assert sum(changed) == (1 if target == "linux-x86" else 0)
    figure = ran.result["parity"]["sqnr_db"]
    # Only tipped codes are left, and on LiteRT the quantized logits of the softmax.
    assert figure.get("exact") or figure["value"] > 25


def test_ties_are_looked_for_in_what_an_artifact_is_fed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds get the arrays that the cut artifact gets, besides those that are computed."""
    model = _hybrid(tmp_path / "hybrid.onnx")
    calib = _calibration(tmp_path / "calib.npz", (1, WIDTH, 4, 4))
    fed: dict[str, Any] = {}
    given: dict[str, Any] = {}
    computed: dict[str, Any] = {}
    run_variant = replay.run_variant

    def seen(model: Any, values: Any, cut: Any, unit: Any, read: Any = None) -> Any:
        fed.update(read or {})
        computed.update(values if read else {})
        return bounds(model, values, cut, unit, read)

    def ran(subject: Any, variant: Any, values: Any) -> Any:
        given.update({b.name: values[b.name] for b in variant.part.inputs})
        return run_variant(subject, variant, values)

    monkeypatch.setattr(replay, "bounds", seen)
    monkeypatch.setattr(replay, "run_variant", ran)
    options = {"target": "linux-x86", "precision": "w8a8", "calibration": str(calib)}
    api.compile(model, **options, output=tmp_path / "m.edgevit")  # type: ignore[arg-type]
    read = fed.keys() & given.keys()
    assert fed.keys() - read <= {"logits"}  # the output, which nobody is fed
    for name in read:
        np.testing.assert_array_equal(fed[name], given[name].reshape(fed[name].shape))
    assert any(not np.array_equal(fed[name], computed[name]) for name in read)
