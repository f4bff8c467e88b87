"""Packages that other converters wrote run in our evaluator and agree with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import oracles_coreml
from benchmarks.corpus.store import CorpusUnavailableError


@pytest.mark.long
def test_foreign_packages_agree_with_onnx_runtime() -> None:
    try:
        found = oracles_coreml.measure(oracles_coreml.MODEL)
    except CorpusUnavailableError as e:
        pytest.skip(str(e))
    assert {a.converter for a in found} == {"onnx2coreml", "onnxsim"}
    assert {a.precision for a in found} == {"float32", "float16"}
    for agreement in found:
        assert agreement.passed, agreement
        assert agreement.accumulate16_psnr_db is not None
        assert agreement.psnr_db is not None
        if agreement.precision == "float16":
            # float16 sums are worse, or they were not formed
            assert agreement.accumulate16_psnr_db < agreement.psnr_db


def test_a_missing_environment_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(oracles_coreml, "ENVIRONMENT", tmp_path / ".venv-oracles")
    assert oracles_coreml.main([]) == 0
    assert capsys.readouterr().out.startswith("skipped: needs .venv-oracles")


@pytest.mark.parametrize(("noise", "passed"), [(1e-6, True), (1e-2, False)])
def test_the_gate_rejects_a_package_that_disagrees(
    noise: float, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = np.array([[1.0, -2.0, 0.5]], np.float32)

    class Fake:
        inputs, outputs = ("x",), ("y",)

        def __init__(self, package: Path) -> None:
            self.package = package

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *error: object) -> None:
            return None

        def run(self, feeds: object, accumulate: str = "float32") -> dict[str, object]:
            return {"y": r + np.float32(noise)}

    monkeypatch.setattr(oracles_coreml, "Evaluator", Fake)
    got = oracles_coreml._judge(oracles_coreml.CONVERSIONS[0], tmp_path, "x", r, r)
    assert got.passed is passed
