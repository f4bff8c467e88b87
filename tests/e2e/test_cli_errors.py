"""Bad usage and bad input: the exit code, the message, the nearest that exists."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgevit import registry
from edgevit.errors import Availability
from tests.support.cli import FIXTURES, PREPROCESS, edgevit
from tests.support.optimized import optimized

VIT = FIXTURES / "models" / "fashion_vit_ts.onnx"


def _symbolic(path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def _unknown(path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], "first"),
        helper.make_node("Wobble", ["a"], ["y"], "second", domain="com.example"),
    ]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=imports), path
    )
    return path


USAGE: dict[str, tuple[list[Any], str, str]] = {
    "no command": ([], "COMMAND", "--help"),
    "unknown command": (["compil"], "invalid choice", "--help"),
    "unknown option": (["compile", VIT, "--tarquet", "x"], "--tarquet", "--help"),
    "no model": (["compile"], "model", "--help"),
    "no target": (["compile", VIT], "no target was given", "known: android-cpu"),
    "target": (["compile", VIT, "--target", "iphone-npx"], "unknown target", "'iphone-npu'"),
    "override": (["compile", VIT, "--target", "iphone-npu:os=3"], "os='3'", "os can be: "),
    "target file": (
        ["compile", VIT, "--target-file", "no.toml"],
        "no.toml cannot be read",
        "",
    ),
    "recipe": (["compile", VIT, "--recipe", "imagenet"], "unknown recipe", "'imagenet-224'"),
    "recipe file": (["compile", VIT, "--recipe", "no.toml"], "no.toml cannot be read", ""),
    "pass": (
        ["compile", VIT, "--target", "onnx", "--passes", "recover-gelus"],
        "unknown pass 'recover-gelus'",
        "'recover-gelu'",
    ),
    "pass option": (
        ["compile", VIT, "--target", "onnx", "--passes", "remove-dead{x=1}"],
        "no option 'x'",
        "it has: ",
    ),
    "precision": (
        ["compile", VIT, "--target", "onnx", "--precision", "fp23"],
        "unknown precision 'fp23'",
        "did you mean 'fp",
    ),
    "preprocess": (
        ["compile", VIT, "--target", "onnx", "--preprocess", "resize=big"],
        "resize",
        "",
    ),
    "head": (
        ["compile", VIT, "--target", "onnx", "--head", "tail"],
        "invalid choice",
        "--help",
    ),
    "bundle version": (
        ["compile", VIT, "--target", "onnx", "--bundle-version", "0"],
        "bundle_version",
        "",
    ),
    "seed": (["compile", VIT, "--target", "onnx", "--seed", "one"], "invalid int", "--help"),
    "missing model": (["compile", "no.onnx", "--target", "onnx"], "no.onnx", ""),
    "missing folder": (
        ["compile", VIT, "--target", "onnx", "-o", "no/out.edgevit"],
        "no: no such directory",
        "create it",
    ),
    "inputs": (
        ["compile", VIT, "--target", "onnx", "--inputs", "no.npz"],
        "no.npz: no such file",
        "",
    ),
    "shape form": (
        ["compile", VIT, "--target", "onnx", "--shape", "x=1,a"],
        "expected name=D0,D1",
        "--shape x=1,3,224,224",
    ),
    "shape sign": (
        ["compile", VIT, "--target", "onnx", "--shape", "x=1,0"],
        "positive integers",
        "--shape",
    ),
    "shape twice": (
        ["compile", VIT, "--target", "onnx", *(2 * ["--shape", "x=1,1,28,28"])],
        "the same input shapes twice: x=1,1,28,28",
        "give each combination of shapes once",
    ),
    "shape name": (["compile", VIT, "--target", "onnx", "--shape", "z=1"], "'z'", ""),
    "shape value": (
        ["compile", VIT, "--target", "onnx", "--shape", "x=1,1,28,29"],
        "28",
        "",
    ),
    "bench subject": (["bench", "no.edgevit"], "no.edgevit: no such bundle or model", ""),
    "bench engine": (["bench", VIT, "--against", "tvmm"], "unknown engine", "known: ort"),
    "quiet and verbose": (["passes", "-q", "-v"], "not allowed with", "--help"),
}


@pytest.mark.parametrize("kind", USAGE)
def test_bad_usage_is_exit_2(kind: str, call: Any) -> None:
    arguments, said, hint = USAGE[kind]
    ran = call(*arguments, "--json")
    assert ran.code == 2
    envelope = ran.envelope
    assert (envelope["status"], envelope["result"]) == ("error", {})
    assert envelope["command"] == (arguments[0] if arguments else "")
    assert ran.error["code"] in ("usage", "input")
    assert said in ran.error["message"]
    assert hint in ran.error["hint"]
    assert list(Path.cwd().iterdir()) == []
    plain = call(*arguments)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.count("error: ") == 1
    assert said in plain.err


def test_symbolic_dimensions_need_a_shape(tmp_path: Path, call: Any) -> None:
    model = _symbolic(tmp_path / "m.onnx")
    ran = call("compile", model, "--target", "onnx", "--json")
    assert ran.code == 2
    assert "batch" in ran.error["message"]
    assert "--shape x=" in ran.error["hint"]
    bound = call("inspect", model, "--shape", "x=2,4", "--json")
    assert bound.code == 0


def test_a_model_that_hands_its_inputs_back(tmp_path: Path, call: Any) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [x])
    imports = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "same.onnx")
    ran = call("compile", tmp_path / "same.onnx", "--target", "onnx", "--json")
    assert ran.code == 2
    assert "same.onnx: every output is an input of the model" in ran.error["message"]


def test_unknown_operators_are_named_and_inspect_lists_them_all(
    tmp_path: Path, call: Any
) -> None:
    model = _unknown(tmp_path / "m.onnx")
    ran = call("compile", model, "--target", "onnx", "--json")
    assert ran.code == 2
    assert "Frobnicate" in ran.error["message"]
    assert "first" in ran.error["message"]
    found = call("inspect", model, "--json")
    assert found.code == 1
    text = json.dumps(found.result)
    for word in ("Frobnicate", "Wobble", "com.example", "first", "second"):
        assert word in text


def test_operators_of_an_optimized_model_are_named(tmp_path: Path, call: Any) -> None:
    """ONNX Runtime's optimizer writes operators of its own, here among others a fused Gelu."""
    optimized(FIXTURES / "models" / "fashion_vit_ts.onnx", tmp_path / "m.onnx")
    ran = call("compile", tmp_path / "m.onnx", "--target", "linux-x86", "--json")
    assert ran.code == 2
    for name in ("Gelu", "FusedMatMul", "SkipLayerNormalization"):
        assert f"operator '{name}' of domain 'com.microsoft'" in ran.error["message"]
    assert "optimizer" in ran.error["hint"]


def test_an_existing_output_is_kept(tmp_path: Path, call: Any) -> None:
    out = tmp_path / "out.edgevit"
    out.mkdir()
    (out / "precious").write_text("mine")
    for more in ([], ["--overwrite"]):
        ran = call("compile", VIT, "--target", "onnx", "-o", out, *more, "--json")
        assert ran.code == 2
        assert f"{out} exists" in ran.error["message"]
    assert (out / "precious").read_text() == "mine"


def test_verification_inputs_must_fit_and_be_finite(tmp_path: Path, call: Any) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((2, 1, 28, 28), np.float32))
    np.savez(tmp_path / "nan.npz", x=np.full((1, 1, 1, 28, 28), np.nan, np.float32))
    for name, said in (("bad.npz", "expects samples of float32"), ("nan.npz", "NaN")):
        ran = call("compile", VIT, "--target", "onnx", "--inputs", name, "--json")
        assert ran.code == 2
        assert said in ran.error["message"]


def test_preprocessing_must_give_the_input_shape(tmp_path: Path, call: Any) -> None:
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    Image.new("L", (40, 40)).save(tmp_path / "pictures" / "a.png")
    spec = PREPROCESS.replace("28x28", "32x32")
    options = ["--target", "onnx", "--preprocess", spec, "--inputs", "pictures", "--json"]
    ran = call("compile", VIT, *options)
    assert ran.code == 2
    assert "preprocessing gives (1, 1, 32, 32)" in ran.error["message"]


def test_a_missing_backend_is_exit_3(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("ai-edge-litert", "flatbuffers"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    ran = call("compile", VIT, "--target", "linux-x86", "--json")
    assert ran.code == 3
    assert ran.error["code"] == "backend-missing"
    assert "edgevit[" in ran.error["hint"]


def test_a_bug_of_ours_is_exit_5(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[Availability, ...]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(registry, "plugins", broken)
    ran = call("targets", "--json")
    assert ran.code == 5
    assert ran.error["code"] == "internal"
    assert "ZeroDivisionError: oops" in ran.error["message"]
    plain = call("targets")
    assert plain.code == 5
    assert "this is a bug in edgevit" in plain.err
    assert "Traceback" not in plain.err
    assert "Traceback" in call("targets", "-v").err


def test_listings(call: Any) -> None:
    targets = call("targets", "--json").result["targets"]
    assert {t["name"] for t in targets} >= {"iphone-npu", "raspberry-pi-5", "onnx"}
    passes = call("passes", "--json").result["passes"]
    assert {"name", "effect", "options"} <= set(passes[0])
    assert {p["name"] for p in passes} == set(registry.names("passes"))
    backends = call("doctor", "--json").result["backends"]
    for row in backends:
        assert {"name", "can_lower", "can_run", "version", "reason"} <= set(row)
    for command in ("targets", "passes", "doctor"):
        text = call(command).out
        assert "litert" in text or "fold-pad" in text


def test_inspect(call: Any) -> None:
    ran = call("inspect", VIT, "--target", "iphone-npu", "--json")
    assert ran.code == 0
    expected = {"blocks", "bridges", "ops", "coverage", "placement", "macs", "params"}
    assert expected | {"activation_bytes"} <= set(ran.result)
    # The counts are of the source's own nodes: four blocks.
    assert ran.result["ops"]["Softmax"] == 4
    assert ran.result["coverage"]["fallback"] == []


def test_version_and_help(tmp_path: Path) -> None:
    version = edgevit("--version", cwd=tmp_path)
    assert (version.code, version.out) == (
        0,
        f"edgevit {importlib.metadata.version('edgevit')}\n",
    )
    text = edgevit("compile", "--help", cwd=tmp_path)
    assert text.code == 0
    assert "exit codes: 0 done; 1 a gate failed" in " ".join(text.out.split())
