"""The quantization benchmark's own arithmetic: intervals, kept cells, timing, the probe."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpus import probe
from benchmarks.corpus.store import FIXTURES
from benchmarks.quantization import cells, run
from benchmarks.quantization.cases import Case
from benchmarks.quantization.cells import Cell
from benchmarks.quantization.cost import ROWS
from benchmarks.quantization.recipes import FORMS, SOURCE, Form, Ours, Peer
from benchmarks.quantization.table import ahead, paired, rows
from benchmarks.quantization.timing import timed
from edgevit.recipe import load_recipe

_PEER = Peer("theirs", "W8A8", "OpenVINO", "nncf-w8a8", ".xml")
_OURS = Ours("w8a8", "onnx", "w8a8")
_LABELS = [1] * 10
_BASE = Cell("m", "fp32", answers=(1,) * 8 + (0,) * 2)


def test_the_interval_is_of_the_paired_differences() -> None:
    found = replace(_BASE, answers=(0,) + (1,) * 9)  # one lost, two won
    change, half = paired(found, _BASE, _LABELS)
    # By hand: mean (2 - 1)/10; variance 3/10 - 1/100; 1.96 sqrt(.29/10).
    assert change == pytest.approx(10.0)
    assert half == pytest.approx(196 * np.sqrt(0.029))
    assert paired(_BASE, _BASE, _LABELS) == (0.0, 0.0)


def test_fewer_answers_are_compared_on_the_images_both_have() -> None:
    short = replace(_BASE, answers=(1,) * 5)
    assert paired(short, _BASE, _LABELS) == (0.0, 0.0)
    assert paired(replace(short, answers=(0,) * 5), _BASE, _LABELS)[0] == -100.0


def test_a_failure_is_a_row_and_never_ahead() -> None:
    failed = Cell("m", _PEER.label, error="fails: zero scale")
    found: list[tuple[Form, Cell]] = [(SOURCE, _BASE), (_PEER, failed), (_OURS, _BASE)]
    assert "fails: zero scale" in rows(found, _LABELS)[3]
    assert ahead(found, _LABELS) == []
    found[1] = (_PEER, replace(_BASE, answers=(1,) * 10))
    assert ahead(found, _LABELS)[2:] == [
        "| W8A8 | any | onnx w8a8: +0.00, 0.00 MB | theirs: +20.00, 0.00 MB | -20.00 ± 24.79 |"
    ]


def test_forms_have_names_of_their_own() -> None:
    names = [cells.file_name("m", form.label) for form in FORMS]
    assert len(set(names)) == len(names)
    assert FORMS[0] is SOURCE


def _fixture() -> Path:
    return FIXTURES / "models" / "fashion_vit_ts.onnx"


def test_a_cell_of_other_code_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("m", _fixture, lambda *_: iter(()), lambda n: [], lambda p: int, 10)
    monkeypatch.setattr(cells, "BUILD", tmp_path)
    monkeypatch.setattr(run, "_answered", lambda begun, *_: begun)
    fresh = run.cell(case, SOURCE, 10, 1.0, resume=False)
    cells.write(replace(fresh, run_s=7.0), 10)
    assert run.cell(case, SOURCE, 10, 1.0, resume=False).run_s == 7.0
    cells.write(replace(fresh, run_s=7.0, code="of old"), 10)
    assert run.cell(case, SOURCE, 10, 1.0, resume=True).run_s == 7.0
    assert run.cell(case, SOURCE, 10, 1.0, resume=False) == fresh


def test_peak_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    hold = "import time; x = bytearray(b'1' * 100_000_000); time.sleep(.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    alone = timed([sys.executable, "-c", "print('done')"], tmp_path, 60)
    assert (alone.status, alone.output) == (0, "done\n")
    found = timed([sys.executable, "-c", child], tmp_path, 60)
    # 100 MB of the child, and two interpreters, each of less than 50 MB.
    assert 100 < found.peak_mb < 300
    assert alone.peak_mb < 50


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    late = f"import time; time.sleep(1); open({str(mark)!r}, 'w')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {late!r}])"
    with pytest.raises(TimeoutError, match="not done"):
        timed([sys.executable, "-c", child], tmp_path, 0.3)
    time.sleep(1.2)
    assert not mark.exists()


def test_the_probe_is_the_minimum() -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(3.0, 2.0, (60, 4)), rng.integers(0, 3, 60)
    strength = 0.5
    w, b = probe.fit(x, labels, 3, strength)
    std = x.std(0)

    def loss(w: np.ndarray, b: np.ndarray) -> float:
        scores = x @ w.T + b
        logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        # Weights of standardized inputs are those of x times the deviation.
        penalty = 0.5 * float(((w * std) ** 2).sum())
        return penalty - strength * float(logs[np.arange(60), labels].sum())

    best = loss(w, b)
    # The loss is convex: a minimum if no step to either side along any axis goes down. Float32
    # weights leave an error of the loss of second order, far below that of a step of 1e-2.
    for i in range(3):
        for step in (-1e-2, 1e-2):
            assert loss(w, b + step * np.eye(3)[i]) > best - 1e-9
            for j in range(4):
                moved = w.copy()
                moved[i, j] += step
                assert loss(moved, b) > best


def test_the_full_recipe_that_is_timed_is_the_named_one() -> None:
    full = {row.passes for row in ROWS if row.label.startswith("full recipe")}
    assert full == {",".join(load_recipe("hybrid-w8a8").passes)}
    assert len({row.label for row in ROWS}) == len(ROWS)
