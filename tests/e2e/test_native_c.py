"""The C example: native code without Python, here and as ARM64 under emulation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import edgevit
from benchmarks.arm64.root import CPU, EMULATOR, SYSTEM, prepare_native, prepare_root
from benchmarks.arm64.root import missing_tools as missing
from benchmarks.corpus.store import CorpusUnavailableError
from examples.c.build import build, build_here
from examples.c.plan_header import header
from tests.support.cli import FIXTURES
from tests.support.cli import edgevit as command

MODEL = FIXTURES / "models" / "fashion_vit_ts.onnx"
TURNED = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3,4] x) => (float[4,2,3] y)'
ZIG = (sys.executable, "-m", "ziglang", "cc")
GATE = 1e-4  # of max|y|: float32, whole network


def compiled(folder: Path, target: str, model: Path = MODEL) -> Path:
    out = folder / f"{model.stem}.edgevit"
    options = ["--target", target, "-o", out, "--no-verify"]
    ran = command("compile", model, *options, cwd=folder)
    assert ran.code == 0, ran.err
    return out


def sample(bundle: Path) -> tuple[bytes, np.ndarray]:
    """The self-check's input, and the source model's answer in ONNX Runtime."""
    with np.load(bundle / "selfcheck.npz") as check:
        return check["0.input.0"].tobytes(), check["0.output.0"]


def answer(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle for this machine and its program."""
    folder = tmp_path_factory.mktemp("c")
    bundle = compiled(folder, "linux-x86:backend=tvm")
    build_here(bundle, folder / "program")
    return bundle, folder / "program"


def run(*words: str | Path, given: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*map(str, words)], input=given, capture_output=True, check=False)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_it_computes_what_the_model_computes(made: tuple[Path, Path], threads: str) -> None:
    bundle, program = made
    given, expected = sample(bundle)
    done = run(program, bundle, threads, given=given)
    assert done.returncode == 0, done.stderr
    found = answer(done.stdout).reshape(expected.shape)
    assert np.abs(found - expected).max() <= GATE * np.abs(expected).max()
    with edgevit.load(bundle, trust=True, threads=1) as session:
        (name,), (out,) = (
            [v.name for v in side] for side in (session.inputs, session.outputs)
        )
        image = answer(given).reshape(session.inputs[0].shape)
        assert np.array_equal(session.run({name: image})[out], found)
    zeros = run(program, bundle, threads, given=bytes(len(given)))
    assert np.abs(answer(zeros.stdout) - expected.ravel()).max() > 1000 * GATE


def test_elements_go_through_their_strides(tmp_path: Path) -> None:
    """A transposed view of the input, read out of the input's memory; no parameters."""
    nodes = "{ t = Transpose<perm=[2,0,1]>(x) y = Relu(t) }"
    onnx.save(onnx.parser.parse_model(f"{TURNED} {nodes}"), tmp_path / "turned.onnx")
    bundle = compiled(tmp_path, "linux-x86:backend=tvm", tmp_path / "turned.onnx")
    path = bundle / "model.plan.json"
    plan = json.loads(path.read_text())
    view = {"name": "t", "axes": [[[4, 1]], [[2, 12]], [[3, 4]]]}
    plan["outputs"].append({**plan["inputs"][0], **view})
    path.write_text(json.dumps(plan))
    assert "{4, 2, 3}, {1, 12, 4}" in header(path)
    build_here(bundle, tmp_path / "program")
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    done = run(tmp_path / "program", bundle, given=x.tobytes())
    assert done.returncode == 0, done.stderr
    turned = x.transpose(2, 0, 1)
    expected = np.stack([np.maximum(turned, 0), turned])
    assert np.array_equal(answer(done.stdout).reshape(expected.shape), expected)


def test_what_is_missing_is_said(made: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, program = made
    given, _ = sample(bundle)
    short = run(program, bundle, given=given[:-4])
    assert (short.returncode, short.stderr) == (1, b"run_model: x: the input ends early\n")
    copy = tmp_path / "copy.edgevit"
    shutil.copytree(bundle, copy)
    content = (copy / "model.params").read_bytes()
    (copy / "model.params").write_bytes(content[:-1])
    damaged = run(program, copy, given=given)
    assert damaged.returncode == 1
    assert b"model.params: is not as long as the plan says" in damaged.stderr
    (copy / "model.so").write_bytes(b"no code")
    broken = run(program, copy, given=given)
    assert broken.returncode == 1
    assert b"model.so: file too short" in broken.stderr


def test_a_program_is_for_one_architecture(made: tuple[Path, Path], tmp_path: Path) -> None:
    plan = json.loads((made[0] / "model.plan.json").read_text())
    plan["triple"] = "aarch64-unknown-linux-gnu"
    (tmp_path / "model.plan.json").write_text(json.dumps(plan))
    with pytest.raises(RuntimeError, match="the code is for aarch64"):
        build_here(tmp_path, tmp_path / "program")


@pytest.mark.long
def test_it_runs_on_arm64(tmp_path: Path) -> None:
    try:
        root, packages = prepare_root() / SYSTEM, prepare_native()
    except CorpusUnavailableError as e:
        pytest.skip(str(e))
    if missing():
        pytest.skip(f"needs {', '.join(missing())}")
    bundle = compiled(tmp_path, "raspberry-pi-5:backend=tvm")
    program, cross = tmp_path / "program", (*ZIG, "-target", "aarch64-linux-gnu.2.36")
    build(bundle, program, cross, packages / "tvm_ffi", packages / "edgevit_tvm_runtime")
    given, expected = sample(bundle)
    emulator = (EMULATOR, "-cpu", CPU, "-L", root)
    done = run(*emulator, program, bundle, "2", given=given)
    assert done.returncode == 0, done.stderr
    found = answer(done.stdout).reshape(expected.shape)
    assert np.abs(found - expected).max() <= GATE * np.abs(expected).max()
