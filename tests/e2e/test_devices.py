"""Artifacts on other devices: the judge, the skips, and the real runs (long)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.arm64 import root
from benchmarks.corpus.store import ROOT, CorpusUnavailableError
from benchmarks.device import tables
from benchmarks.device.cases import ENGINES, models, runs
from benchmarks.device.measure import GATE, Device, judge_outputs, measure, strangers
from edgevit.parity import Gate

SHAPE = (1, 10)


def outputs() -> list[dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]]:
    rng = np.random.default_rng(5)
    return [{"y": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(2)]


def test_outputs_within_the_gate_pass() -> None:
    found = [{"y": a["y"] * np.float32(1 + GATE.limit / 4)} for a in outputs()]
    figure = judge_outputs(outputs(), found)
    assert figure.passed
    assert figure.value == pytest.approx(GATE.limit / 4, rel=0.01)


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("fault", ["scaled", "nan", "swapped", "lost", "shape", "renamed"])
def test_a_fault_in_one_sample_fails(sample: int, fault: str) -> None:
    found = outputs()
    y = found[sample]["y"]
    if fault == "scaled":
        found[sample]["y"] = y * np.float32(1.001)
    elif fault == "nan":
        y[0, 3] = np.nan
    elif fault == "swapped":
        found.reverse()
    elif fault == "lost":
        del found[sample]
    elif fault == "shape":
        found[sample]["y"] = y.reshape(-1)
    else:
        found[sample] = {"z": y}
    assert not judge_outputs(outputs(), found).passed


def test_integers_are_judged_by_the_gate_of_the_bundle() -> None:
    found = [{"y": a["y"] * np.float32(1.1)} for a in outputs()]  # 20 dB
    assert judge_outputs(outputs(), found, Gate("sqnr_db", 19.9)).passed
    assert not judge_outputs(outputs(), found, Gate("sqnr_db", 20.1)).passed


@pytest.mark.parametrize("sample", [0, 1])
def test_integers_are_judged_by_all_samples_together(sample: int) -> None:
    found = outputs()
    found[sample]["y"] = found[sample]["y"] * np.float32(1.1)  # 20 dB of it
    power = [float(np.sum(np.square(a["y"]))) for a in outputs()]
    together = 20 + 10 * np.log10(sum(power) / power[sample])
    assert judge_outputs(outputs(), found, Gate("sqnr_db", together - 0.01)).passed
    assert not judge_outputs(outputs(), found, Gate("sqnr_db", together + 0.01)).passed
    found[sample]["y"][0, 3] = np.nan
    assert not judge_outputs(outputs(), found, Gate("sqnr_db", 0.0)).passed


def test_recipes_run_where_samples_are_data() -> None:
    fitted = next(e for e in ENGINES if e.recipe)
    plain = next(e for e in ENGINES if not e.recipe)
    noise, garments = models(["deit_tiny_ts"])[0], models(["fashion_vit_ts"])[0]
    assert runs(garments, fitted)
    assert not runs(noise, fitted)
    assert runs(noise, plain)


def test_no_outputs_at_all_fail() -> None:
    assert not judge_outputs(outputs(), []).passed


def test_compiler_modules_are_strangers_on_a_device() -> None:
    device = ["edgevit", "edgevit.cli", "edgevit.runtimes.session", "numpy", "onnxruntime"]
    assert strangers(device) == ()
    aliens = ("edgevit.passes.order", "edgevit.api", "onnx.helper", "onnx_ir")
    assert strangers([*device, *aliens]) == aliens


def test_missing_tools_are_a_skip_with_its_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(root, "_which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["arm64"])

    def prepare() -> Device:
        root.require_tools(install=False)
        raise AssertionError("went on without its tools")

    assert tables.run("A trial.", prepare, ("litert",)) == tables.SKIPPED == 77
    said = capsys.readouterr().out
    assert said.startswith("skipped: needs qemu-user-static, debootstrap")


def test_a_root_that_is_not_there_needs_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CorpusUnavailableError, match="skipped: needs the ARM64 root"):
        root.prepare_root(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_pins_are_another_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = root.key()
    lock = tmp_path / "arm64.lock"
    lock.write_text(root.LOCK.read_text(encoding="utf-8") + "six==1.17.0\n", encoding="utf-8")
    assert root.key() == before
    monkeypatch.setattr(root, "LOCK", lock)
    assert root.key() != before


@pytest.mark.long
def test_a_device_that_is_not_the_expected_machine_is_a_fault(tmp_path: Path) -> None:
    here = Device("pdp11", (sys.executable,), (ROOT,))
    (case,), engine = models(["fashion_vit_ts"]), ENGINES[0]
    row = measure(case, engine, here)
    assert any("expected a pdp11" in fault for fault in row.faults)


def report(module: str) -> str:
    """Run a device benchmark whole; its table."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode == tables.SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_bundles_run_on_arm64_within_the_gates() -> None:
    printed = report("benchmarks.arm64")
    assert printed.count("aarch64") == 23
    assert "PASS: 23 bundles, 0 faults" in printed


@pytest.mark.long
def test_litert_bundles_run_in_the_last_tflite_runtime() -> None:
    printed = report("benchmarks.tflite_runtime")
    assert printed.count("tflite_runtime") == 5
    assert "PASS: 5 bundles, 0 faults" in printed
