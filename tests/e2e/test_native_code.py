"""The TVM target from the command line: trust, processors, damaged files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgevit.bundle import Part
from edgevit.errors import ArtifactError
from edgevit.runtimes.tvm import TVMEngine
from tests.support.cli import FIXTURES, edgevit

MODEL = FIXTURES / "models" / "fashion_vit_ts.onnx"
TARGET = "linux-x86:backend=tvm"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    out = folder / "vit.edgevit"
    ran = edgevit("compile", MODEL, "--target", TARGET, "-o", out, "--json", cwd=folder)
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)["result"]
    assert result["coverage"]["on_target"] == result["coverage"]["nodes"]
    assert result["parity"]["max_rel"]["pass"] is True
    return out


def test_code_runs_only_if_it_is_trusted(bundle: Path, tmp_path: Path) -> None:
    images = tmp_path / "x.npz"
    arrays: dict[str, Any] = {_input(bundle): np.zeros(_shape(bundle), np.float32)}
    np.savez(images, **arrays)
    for command in (["run", bundle, "--input", images], ["verify", bundle], ["bench", bundle]):
        ran = edgevit(*command, cwd=tmp_path)
        assert ran.code == 4
        assert "native code" in ran.err
        assert "--trust" in ran.err
    against = edgevit("verify", bundle, "--against", MODEL, cwd=tmp_path)
    assert against.code == 4
    assert edgevit("run", bundle, "--input", images, "--trust", cwd=tmp_path).code == 0
    assert edgevit("verify", bundle, "--trust", cwd=tmp_path).code == 0
    whole = edgevit("verify", bundle, "--against", MODEL, "--trust", cwd=tmp_path)
    assert whole.code == 0
    assert "within their derived tolerances" in whole.out


def _manifest(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "manifest.json").read_text()))


def _entry(bundle: Path) -> dict[str, Any]:
    return dict(_manifest(bundle)["entries"][0])


def _input(bundle: Path) -> str:
    return str(_entry(bundle)["inputs"][0]["name"])


def _shape(bundle: Path) -> tuple[int, ...]:
    return tuple(_entry(bundle)["inputs"][0]["shape"])


def test_a_worse_kernel_is_found_and_named(bundle: Path, tmp_path: Path) -> None:
    """One changed weight of the shipped parameters: the replay names the layer it is in."""
    copy = tmp_path / "copy.edgevit"
    shutil.copytree(bundle, copy)
    params = bytearray((copy / "model.params").read_bytes())
    weights = np.frombuffer(params, np.float32)
    weights[np.abs(weights).argmax()] *= 1.5
    (copy / "model.params").write_bytes(params)
    _reseal(copy, "model.params")
    ran = edgevit("verify", copy, "--against", MODEL, "--trust", "--json", cwd=tmp_path)
    assert ran.code == 1
    assert json.loads(ran.out)["result"]["first_divergent"]["node"]


def _reseal(bundle: Path, path: str) -> None:
    """Write the manifest anew, as somebody would who changes a bundle on purpose."""
    import dataclasses

    from edgevit import strictjson
    from edgevit.bundle import file_records
    from edgevit.manifest import Manifest

    place = bundle / "manifest.json"
    old = Manifest.from_json(strictjson.parse(place.read_bytes(), str(place)))
    assert path in {f.path for f in old.files}
    new = dataclasses.replace(old, files=file_records(bundle))
    place.write_bytes(strictjson.pretty(new.to_json()))


def _open(bundle: Path, **changes: Any) -> None:
    plan = json.loads((bundle / "model.plan.json").read_text())
    (bundle / "model.plan.json").write_text(json.dumps({**plan, **changes}))
    TVMEngine().open(bundle / "model.so", Part("tvm", "model.so", (), ()), threads=1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"triple": "aarch64-unknown-linux-gnu"}, "the code is for aarch64"),
        ({"features": ["avx2", "avx9000"]}, "the code uses avx9000"),
        ({"schema": 99}, "expected a plan of schema 1, found 99"),
        ({"params": 1}, "expected 1 bytes"),
    ],
)
def test_what_cannot_run_here_is_said_before_it_runs(
    bundle: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with pytest.raises(ArtifactError, match=said):
        _open(copy, **changes)


def _moved(plan: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"inputs": [{**plan["inputs"][0], **changes}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1 << 40},
        {"offset": -64},
        {"offset": 2},
        {"axes": [[[1 << 30, 4096]]]},
        {"axes": [[[2, -1]]]},
        {"axes": 7},
        {"dtype": "object"},
        {"block": "stack"},
    ],
    ids=str,
)
def test_a_plan_that_reaches_outside_its_blocks_is_refused(
    bundle: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    plan = json.loads((copy / "model.plan.json").read_text())
    with pytest.raises(ArtifactError, match="the plan is damaged") as e:
        _open(copy, **_moved(plan, **changes))
    assert e.value.exit_code == 4


def test_a_plan_without_its_entries_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for key in ("arena", "inputs", "features", "steps"):
        with pytest.raises(ArtifactError, match="the plan is damaged"):
            _open(copy, **{key: None})


def test_a_damaged_file_is_no_code(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.edgevit"
    shutil.copytree(bundle, copy)
    code = copy / "model.so"
    code.write_bytes(code.read_bytes()[:1000])
    assert edgevit("verify", copy, "--trust", cwd=tmp_path).code == 4  # its hash differs
    with pytest.raises(ArtifactError, match=r"model\.so: expected \d+ bytes, found 1000"):
        _open(copy)
    code.write_bytes(bytes(1000))
    with pytest.raises(ArtifactError, match="cannot be loaded as code"):
        _open(copy, code=1000)


def test_unknown_processors_and_precisions(tmp_path: Path) -> None:
    ran = edgevit("compile", MODEL, "--target", "linux-x86:backend=tvm,mcpu=z80", cwd=tmp_path)
    assert ran.code == 2
    assert "mcpu can be" in ran.err
    ran = edgevit("compile", MODEL, "--target", TARGET, "--precision", "w4", cwd=tmp_path)
    assert ran.code == 1
    assert "the nearest that it can: --precision w4a8" in ran.err


def test_code_for_another_machine_is_made_here_and_is_the_same_everywhere(
    tmp_path: Path,
) -> None:
    """An ARM64 object from an x86-64 machine: not verifiable here, and says so."""
    out = tmp_path / "pi.edgevit"
    target = "raspberry-pi-5:backend=tvm"
    ran = edgevit("compile", MODEL, "--target", target, "-o", out, cwd=tmp_path)
    assert ran.code == 1
    assert "not verifiable here: the code is for aarch64" in ran.err
    assert not out.exists()
    ran = edgevit("compile", MODEL, "--target", target, "-o", out, "--no-verify", cwd=tmp_path)
    assert ran.code == 0, ran.err
    content = (out / "model.so").read_bytes()
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == 183  # EM_AARCH64
    assert _manifest(out)["verified"] is False
    assert hashlib.sha256(content).hexdigest() in {
        f["sha256"] for f in _manifest(out)["files"]
    }


def test_codes_are_multiplied_as_codes(tmp_path: Path) -> None:
    """Every layer that the precision promises is an integer kernel of the shipped code."""
    images = np.load(FIXTURES / "data" / "fashion_test_500.npz")["images"][:20]
    samples = ((images.astype(np.float32) / 255 - 0.286) / 0.353)[:, None, None]
    np.savez(tmp_path / "calib.npz", x=samples)
    out = tmp_path / "q.edgevit"
    model = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
    options = ["--target", TARGET, "--precision", "w8a8", "--calib", "calib.npz", "--json"]
    ran = edgevit("compile", model, *options, "-o", out, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.result["parity"]["sqnr_db"]["value"] > 20
    kernels = json.loads((out / "model.plan.json").read_text())["kernels"]
    layers = {k for k in kernels if k.startswith(("gemm", "conv", "depthwise"))}
    assert layers == {"gemm_int8", "depthwise_int8"}  # its only dense window reads one channel
    size = {f["path"]: f["bytes"] for f in ran.result["files"]}["model.params"]
    assert size < 0.6 * 4 * ran.result["cost"]["params"]


def test_a_view_of_the_input_is_not_replayed(tmp_path: Path) -> None:
    """No call makes it: replaying it would compare memory that nobody wrote."""
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3,4] x) => (float[4,2,3] y) {
        t = Transpose<perm=[2,0,1]>(x)  y = Relu(t) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "turned.onnx")
    out = tmp_path / "turned.edgevit"
    ran = edgevit("compile", "turned.onnx", "--target", TARGET, "-o", out, cwd=tmp_path)
    assert ran.code == 0, ran.err
    plan = json.loads((out / "model.plan.json").read_text())
    assert [v["name"] for v in plan["values"]] == ["y"]


_THREADS = """
import os, sys
import numpy as np, tvm_ffi
import edgevit
before = os.sched_getaffinity(0)
for count in (1, 2, 1):
    with edgevit.load(sys.argv[1], threads=count, trust=True) as session:
        session.run({i.name: np.zeros(i.shape, i.dtype) for i in session.inputs})
    print(tvm_ffi.get_global_func("runtime.NumThreads")(), os.sched_getaffinity(0) == before)
"""


def test_a_session_has_the_threads_it_asks_for(bundle: Path) -> None:
    """Whatever OMP_NUM_THREADS says, and tied to no processor."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _THREADS, str(bundle)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert ran.stdout.split() == ["1", "True", "2", "True", "1", "True"]
