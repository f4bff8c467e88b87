"""Run a bundle on a device and compare what comes back with the source model's outputs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.device.cases import Engine, compile_bundle, samples
from benchmarks.five.cases import Case
from edgevit.bundle import npz_bytes, open_bundle
from edgevit.parity import Figure, Gate, compare, judge, worst_of
from edgevit.reference import run_reference
from edgevit.verify import whole

__all__ = ["GATE", "Device", "Row", "gate_of", "judge_outputs", "measure", "strangers"]

Arrays = Mapping[str, np.ndarray[Any, Any]]
PROGRAM = Path(__file__).with_name("program.py")
GATE = Gate("max_rel", 1e-4)  # float32, whole network
TIMEOUT_S = 3600
_COMPILER = (
    "onnx",
    "onnx_ir",
    "onnxscript",
    "networkx",
    "pydantic",
    "jinja2",
    "rich",
    "coremltools",
    "edgevit.api",
    "edgevit.loading",
    "edgevit.model",
    "edgevit.partition",
    "edgevit.passes",
    "edgevit.pipeline",
    "edgevit.reference",
    "edgevit.rewrite",
    "edgevit.sim4f",
    "edgevit.targets",
    "edgevit.verify",
    "edgevit.views",
)


@dataclass(frozen=True)
class Device:
    """Another Python, and what it can import.

    Attributes:
        machine: What ``platform.machine()`` must say there.
        python: The command that starts it.
        site: Folders of packages.
    """

    machine: str
    python: tuple[str, ...]
    site: tuple[Path, ...]


@dataclass(frozen=True)
class Row:
    """One model on one engine of a device.

    Attributes:
        model: Case name.
        engine: Label of the engine.
        package: The engine's package that was loaded there.
        machine: What ``platform.machine()`` said there.
        python: The version of Python there.
        metric: The whole-network gate's: ``max_rel`` for floats, ``sqnr_db`` for integers.
        value: Of the worst output of the worst sample; ``None`` if equal or not finite.
        limit: Of the metric.
        selfcheck: The same of the bundled self-check; ``None`` if equal or not finite.
        verify_s: Seconds of ``edgevit verify`` there.
        run_s: Seconds of ``edgevit run`` there, opening included, for all samples.
        total_s: Seconds of the whole process.
        faults: What is wrong, one line each.
    """

    model: str
    engine: str
    package: str
    machine: str
    python: str
    metric: str
    value: float | None
    limit: float
    selfcheck: float | None
    verify_s: float
    run_s: float
    total_s: float
    faults: tuple[str, ...]


def measure(case: Case, engine: Engine, device: Device) -> Row:
    """Compile a model here, check and run it there, compare with ONNX Runtime here.

    Raises:
        CorpusUnavailableError: The model cannot be had.
        RuntimeError: The compile failed, the source's outputs are dead, or the device's
            Python crashed.
    """
    bundle = compile_bundle(case, engine)
    (info,) = open_bundle(bundle).inputs
    feeds = [{info.name: x} for x in samples(case, info.shape)]
    expected = run_reference(case.find().read_bytes(), feeds).outputs
    _require_alive(case.name, expected)
    with tempfile.TemporaryDirectory() as name:
        answer, seconds = _execute(device, bundle, feeds, Path(name))
        found = _outputs(Path(name) / "outputs.npz")
    figure = judge_outputs(expected, found, gate_of(bundle, engine))
    return _row(case.name, engine, device, answer, figure, seconds)


def gate_of(bundle: Path, engine: Engine) -> Gate:
    """What the outputs must keep; for integers what the device's self-check must too."""
    if engine.precision == "fp32":
        return GATE
    ((metric, limit),) = open_bundle(bundle).selfcheck.gates.items()
    return Gate(metric, limit)


def _require_alive(name: str, expected: Sequence[Arrays]) -> None:
    for output, first in expected[0].items():
        dead = float(np.std(first)) == 0 or np.array_equal(first, expected[-1][output])
        if dead or not np.all(np.isfinite(first)):
            raise RuntimeError(f"{name}: output {output!r} of the source is not alive")


def _execute(
    device: Device, bundle: Path, feeds: Sequence[Arrays], folder: Path
) -> tuple[dict[str, Any], float]:
    inputs = [folder / f"in{i}.npz" for i in range(len(feeds))]
    for path, arrays in zip(inputs, feeds, strict=True):
        path.write_bytes(npz_bytes(arrays))
    answer, outputs = folder / "answer.json", folder / "outputs.npz"
    command = [*device.python, "-P", str(PROGRAM), str(bundle), str(answer), str(outputs)]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *map(str, inputs)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=_environment(device),
        cwd=folder,
    )
    seconds = time.perf_counter() - start
    if done.returncode or not answer.is_file():
        raise RuntimeError(
            f"{bundle.name}: the device's Python ended with status {done.returncode}:\n"
            f"{done.stderr[-2000:]}"
        )
    return json.loads(answer.read_text(encoding="utf-8")), seconds


def _environment(device: Device) -> dict[str, str]:
    """Nothing of this machine's Python: what is not in ``site`` is not there."""
    site = os.pathsep.join(map(str, device.site))
    fixed = {"PYTHONPATH": site, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **fixed}


def _outputs(path: Path) -> list[dict[str, np.ndarray[Any, Any]]]:
    """The outputs of each run; none if the run failed."""
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as data:
        stacked = {name: data[name] for name in data.files}
    count = len(next(iter(stacked.values())))
    return [{name: array[i] for name, array in stacked.items()} for i in range(count)]


def judge_outputs(
    expected: Sequence[Arrays], found: Sequence[Arrays], gate: Gate = GATE
) -> Figure:
    """The worst figure over outputs; a run or output that lacks fails.

    Floats keep their gate sample by sample. Integers are judged as ``edgevit compile`` does,
    by the error of all samples together: a single one has a few wrong letters or none.

    Args:
        expected: For each sample, output name -> the source's array.
        found: The same from the device.
        gate: What each must keep.
    """
    named = [sorted((name, a.shape) for name, a in arrays.items()) for arrays in expected]
    if named != [sorted((name, a.shape) for name, a in arrays.items()) for arrays in found]:
        return Figure(gate.metric, None, gate.limit, passed=False)
    if gate.metric == "sqnr_db":
        metrics = whole(expected, found)
    else:
        metrics = {
            f"{name} of sample {i}": compare(array, found[i][name])
            for i, arrays in enumerate(expected)
            for name, array in arrays.items()
        }
    broken = [m for m in metrics.values() if not judge(m, gate).passed]
    return judge(broken[0], gate) if broken else worst_of(metrics, gate)[1]


def strangers(modules: Sequence[str]) -> tuple[str, ...]:
    """Modules of the compiler among ``modules``: a device must load none."""
    return tuple(
        m for m in modules if any(m == own or m.startswith(own + ".") for own in _COMPILER)
    )


def _row(
    name: str,
    engine: Engine,
    device: Device,
    answer: Mapping[str, Any],
    figure: Figure,
    seconds: float,
) -> Row:
    verified = answer["verify"]["envelope"]["result"] or {}
    loaded = set(answer["modules"])
    return Row(
        model=name,
        engine=engine.label,
        package=next((m for m in engine.modules if m in loaded), ""),
        machine=answer["machine"],
        python=answer["python"],
        metric=figure.metric,
        value=figure.value,
        limit=figure.limit,
        selfcheck=verified.get("parity", {}).get(figure.metric, {}).get("value"),
        verify_s=round(answer["verify"]["seconds"], 3),
        run_s=round(answer["run"]["seconds"], 3),
        total_s=round(seconds, 3),
        faults=tuple(_faults(engine, device, answer, figure)),
    )


def _faults(
    engine: Engine, device: Device, answer: Mapping[str, Any], figure: Figure
) -> list[str]:
    lines = []
    for command in ("verify", "run"):
        if answer[command]["code"]:
            error = answer[command]["envelope"].get("error")
            lines.append(f"edgevit {command} ended with {answer[command]['code']}: {error}")
    if not figure.passed:
        lines.append(f"{figure.metric} {figure.value} is not within {figure.limit}")
    if answer["machine"] != device.machine:
        lines.append(f"expected a {device.machine}, found a {answer['machine']}")
    if not set(engine.modules) & set(answer["modules"]):
        lines.append(f"none of {engine.modules} was loaded")
    if alien := strangers(answer["modules"]):
        lines.append(f"compiler modules were loaded: {', '.join(alien)}")
    return lines
