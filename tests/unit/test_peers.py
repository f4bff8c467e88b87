"""The peer benchmarks' own arithmetic: gates, counting, processes and their memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compile_time import Command, Compiled, run, summary
from benchmarks.peers import MODELS, operators
from benchmarks.peers_latency import LIMIT, Row, slower
from edgevit.bench import Subject, bench
from edgevit.errors import InputError
from edgevit.targets.litert.writer import Writer

_EQUAL = (0.99, 1.0, 1.01)


def _file(path: Path) -> Path:
    """Write y = -abs(x) to ``path``."""
    writer = Writer()
    x, between, y = (writer.tensor(name, (1, 4), "float32") for name in "xby")
    writer.operator("ABS", [x], [between])
    writer.operator("NEG", [between], [y])
    path.write_bytes(writer.finish({"x": x}, {"y": y}, "main"))
    return path


@pytest.mark.parametrize(
    ("low", "expected"), [(0.5, False), (LIMIT, False), (LIMIT + 0.001, True), (2.0, True)]
)
def test_the_gate_is_on_the_lower_end(low: float, expected: bool) -> None:
    row = Row("m", 1, (1.0, 1.0, 1.0), _EQUAL, _EQUAL, _EQUAL)
    assert slower(replace(row, to_onnx2tf=(low, 3.0, 4.0))) is expected
    assert not slower(replace(row, to_ort=(9.0, 9.0, 9.0)))


def test_operators_are_counted_by_name(tmp_path: Path) -> None:
    assert operators(_file(tmp_path / "m.tflite")) == {"ABS": 1, "NEG": 1}


def test_a_bare_file_is_a_subject(tmp_path: Path) -> None:
    (timing,) = bench([Subject("m", str(_file(tmp_path / "m.tflite")))], threads=1, runs=2)
    assert timing.engine == "litert"
    assert 0 < timing.p50_ms <= timing.p90_ms


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(_file(tmp_path / "whole.tflite").read_bytes()[:64])
    with pytest.raises(InputError, match="m: "):
        bench([Subject("m", str(path))], threads=1, runs=1)


def _python(code: str, made: Path) -> Command:
    return Command("command", (sys.executable, "-c", code), made)


def test_memory_and_output_of_a_process(tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'w').close(); b'x' * (200 << 20)"
    small, large = run(_python(code.split(";")[0], made)), run(_python(code, made))
    assert large.peak_mb - small.peak_mb == pytest.approx(200, abs=20)
    assert large.cpu_s > 0
    assert large.wall_s > 0


def test_a_command_that_makes_nothing_failed(tmp_path: Path) -> None:
    """Also when an earlier run left the file there."""
    made = tmp_path / "made"
    made.write_text("old")
    with pytest.raises(RuntimeError, match="status 0"):
        run(_python("pass", made))
    with pytest.raises(RuntimeError, match="status 3"):
        run(_python(f"open({str(made)!r}, 'w').close(); raise SystemExit(3)", made))


def test_ratios_are_of_pairs() -> None:
    first = [Compiled(w, 1.0, 10.0) for w in (1.0, 2.0, 4.0)]
    other = [Compiled(w, 2.0, m) for w, m in ((2.0, 30.0), (2.0, 20.0), (16.0, 10.0))]
    found = summary("other", other, first)
    assert (found.wall_s, found.cpu_s, found.peak_mb) == (2.0, 2.0, 30.0)
    assert found.ratio == (1.0, 2.0, 4.0)
    assert found.cpu_ratio == (2.0, 2.0, 2.0)
    assert summary("first", first, first).ratio == (1.0, 1.0, 1.0)


def test_shapes_in_both_spellings() -> None:
    recognizer = next(m for m in MODELS if m.name == "ppocrv4_rec")
    assert np.prod(recognizer.shapes["x"]) == 3 * 48 * 320
    assert recognizer.texts("=") == ["x=1,3,48,320"]
    assert recognizer.texts(":") == ["x:1,3,48,320"]
