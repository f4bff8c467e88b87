"""Time integer kernels against float kernels on every engine; layer rules come from it.

    make bench-integer-kernels
    python -m benchmarks.kernels [KIND ...] [--files make|only|reuse] [--runs N]

Each network is compiled in float32 and with *every* layer of its kind quantized, whatever the
device file's rules say: with float results, with results in codes, and with activations that
are quantized at run time. Ratios below 1: integers are faster. One thread, processor time,
medians of interleaved rounds with their distribution-free 95 % interval.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.corpus.store import ROOT
from benchmarks.kernels.networks import NETWORKS, Network
from benchmarks.peers import machine
from edgevit.bench import median_interval

__all__: list[str] = []

FOLDER = ROOT / "build" / "kernels"
PEERS = ROOT / ".venv-peers"  # make peers-env: every engine in one environment
_INNER = 5  # runs of which the fastest counts: what an interruption costs is not the kernel's


@dataclass(frozen=True)
class Engine:
    """How its artifacts are made.

    Attributes:
        name: Shown.
        base: The device file that it extends.
        more: Further lines of the device file.
        forms: Name -> precision and passes.
    """

    name: str
    base: str
    more: str
    forms: dict[str, tuple[str, str]]


_CODES = "quantize{outputs=Conv|MatMul},sink-quantizers"
_STATIC = {"float results": ("w8a8", ""), "codes": ("w8a8", _CODES)}
ENGINES = (
    Engine(
        "ONNX Runtime", "onnx", "",
        {**_STATIC, "dynamic": ("w8a8-dyn", "")},
    ),
    Engine(
        "OpenVINO", "onnx", 'engine = "openvino"\n',
        _STATIC,
    ),
    Engine("LiteRT", "linux-x86", "", {"codes": ("w8a8", ""), "dynamic": ("w8a8-dyn", "")}),
)  # fmt: skip
# Depthwise layers of a bottleneck stay float, so that the others are judged.
_LAYERS = """[[layers]]
name = "not judged"
kinds = ["depthwise"]
run = "float"
source = ""
"""


def _path(network: Network, engine: Engine, form: str) -> Path:
    stem = f"{network.kind} {network.size} {engine.name} {form}"
    return FOLDER / f"{''.join(c if c.isalnum() else '-' for c in stem)}.edgevit"


def _make(network: Network) -> None:
    """Every form of one network; nothing is verified here, the tests do that."""
    from edgevit import api

    model = FOLDER / "model.onnx"
    onnx.save(network.build(), model)
    for engine in ENGINES:
        device = FOLDER / "device.toml"
        judged = "" if network.kind.startswith("depthwise") else _LAYERS
        layers = judged or "layers = []\n"
        device.write_text(
            f'extends = "{engine.base}"\nname = "kernels"\ntitle = "any layer"\n'
            f"{engine.more}{layers}"
        )
        cpu = ":cpu=vnni" if engine.base == "onnx" else ""
        for form, (precision, passes) in {"float": ("fp32", ""), **engine.forms}.items():
            api.compile(
                model,
                target=f"{engine.base}{cpu}",
                target_file=device,
                precision=precision,
                passes=passes or None,
                calibration=None if precision == "fp32" else "synthetic",
                output=_path(network, engine, form),
                verify=False,
                overwrite=True,
            )


def _time(network: Network, engine: Engine, runs: int) -> str:
    """One row."""
    from edgevit.runtimes.session import load

    names = ["float", *engine.forms]
    sessions = [load(_path(network, engine, form), threads=1) for form in names]
    (given,) = sessions[0].inputs
    feeds = {given.name: np.random.default_rng(1).random(given.shape, np.float32)}
    rounds = [[_fastest(s, feeds) for s in sessions] for _ in range(runs + 1)][1:]
    base = float(np.median([r[0] for r in rounds])) * 1e6
    ratios = [median_interval([r[i] / r[0] for r in rounds]) for i in range(1, len(names))]
    by_form = dict(zip(engine.forms, ratios, strict=True))
    cells = [
        "{1:.2f} [{0:.2f}, {2:.2f}]".format(*by_form[form]) if form in by_form else ""
        for form in ("float results", "codes", "dynamic")
    ]
    about = (network.kind, network.size, f"{network.intensity:.0f}", engine.name)
    return f"| {' | '.join([*about, f'{base:.0f}', *cells])} |"


def _fastest(session: Any, feeds: dict[str, np.ndarray[Any, Any]]) -> float:
    best = float("inf")
    for _ in range(_INNER):
        start = time.process_time()
        session.run(feeds)
        best = min(best, time.process_time() - start)
    return best


_HEAD = """| layers | size | intensity | engine | float, us | float results | codes | dynamic |
|---|---|---|---|---|---|---|---|"""


def main(argv: Sequence[str]) -> int:
    """Make the files, then time them in the environment that has every engine."""
    parser = argparse.ArgumentParser(description="Integer kernels against float kernels.")
    parser.add_argument("kinds", nargs="*", help="beginnings of kinds")
    parser.add_argument("--files", choices=("make", "only", "reuse"), default="make")
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args(argv)
    chosen = [n for n in NETWORKS if n.kind.startswith(tuple(options.kinds) or "")]
    if options.files != "reuse":
        FOLDER.mkdir(parents=True, exist_ok=True)
        for network in chosen:
            _make(network)
    if options.files == "only":
        return 0
    python = PEERS / "bin" / "python"
    if Path(sys.executable) != python:
        again = [*options.kinds, "--files", "reuse", "--runs", str(options.runs)]
        command = [str(python), "-m", "benchmarks.kernels", *again]
        return subprocess.run(command, check=False, cwd=ROOT).returncode
    print(f"{machine()}; one thread, {options.runs} rounds\n\n{_HEAD}", flush=True)
    for network in chosen:
        for engine in ENGINES:
            print(_time(network, engine, options.runs), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
