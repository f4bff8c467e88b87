"""Packages of public converters in our evaluator: is it more than our lowering's inverse?

``onnx2coreml`` and ``onnxsim --emit-coreml`` convert DeiT-Ti, in an environment of their own;
our reader and evaluator run what they wrote; ONNX Runtime says what it should be.

    make oracles            prints one JSON object; exit status 1 if a package disagrees
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.store import CACHE, ROOT, CorpusUnavailableError, sha256
from edgevit.runtimes.coreml import Evaluator
from edgevit.runtimes.mil.spec import Array

__all__ = ["ENVIRONMENT", "MODEL", "Agreement", "main", "measure"]

ENVIRONMENT = ROOT / ".venv-oracles"
MODEL = CACHE / "models" / "deit_tiny_patch16_224_ts.onnx"
LIMITS = {"float32": ("max_rel", 1e-4), "float16": ("psnr_db", 50.0)}  # design: verification
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Conversion:
    """A package to make.

    Attributes:
        converter: Distribution name.
        name: File name stem of the package.
        precision: Dtype that the converter computes in.
        arguments: Command line; ``{model}`` and ``{package}`` are filled in.
    """

    converter: str
    name: str
    precision: str
    arguments: tuple[str, ...]


_ONNX2COREML = ("onnx2coreml", "convert", "{model}", "-o", "{package}", "--precision")
_ONNXSIM = ("onnxsim", "{model}", "{package}.onnx", "--emit-coreml", "{package}")
CONVERSIONS = (
    Conversion("onnx2coreml", "onnx2coreml-fp32", "float32", (*_ONNX2COREML, "fp32")),
    Conversion("onnx2coreml", "onnx2coreml-fp16", "float16", (*_ONNX2COREML, "fp16")),
    # onnxsim has no float32 ML programs: its switch is the dtype of inputs and outputs
    Conversion("onnxsim", "onnxsim-io32", "float16", (*_ONNXSIM, "--coreml-io-dtype", "fp32")),
    Conversion("onnxsim", "onnxsim-io16", "float16", (*_ONNXSIM, "--coreml-io-dtype", "fp16")),
)


@dataclass(frozen=True)
class Agreement:
    """How well one package agrees with ONNX Runtime.

    Attributes:
        converter: Distribution name.
        package: Package name.
        precision: Dtype that the package computes in.
        max_rel: max|y - r| / max|r|.
        psnr_db: 10 log10(max|r|^2 / mean (y - r)^2); None if exact.
        accumulate16_psnr_db: The same with float16 sums.
        metric: The gated figure.
        limit: Its limit.
        passed: Whether it is within.
    """

    converter: str
    package: str
    precision: str
    max_rel: float
    psnr_db: float | None
    accumulate16_psnr_db: float | None
    metric: str
    limit: float
    passed: bool


def _reference(model: Path) -> tuple[str, Array, Array]:
    """Input name, a seeded input that float16 represents, and the first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"]
    )
    (info,) = session.get_inputs()
    x = np.random.default_rng(0).standard_normal([int(d) for d in info.shape])
    feed = x.astype(np.float16).astype(np.float32)
    return info.name, feed, np.asarray(session.run(None, {info.name: feed})[0])


def _convert(conversion: Conversion, model: Path, folder: Path) -> Path:
    package = folder / f"{conversion.name}.mlpackage"
    program, *rest = (a.format(model=model, package=package) for a in conversion.arguments)
    done = subprocess.run(
        [str(ENVIRONMENT / "bin" / program), *rest],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    if done.returncode or not package.is_dir():
        raise RuntimeError(f"{conversion.name} wrote no package:\n{done.stderr[-2000:]}")
    return package


def _psnr_db(y: Array, r: Array) -> float | None:
    noise = float(np.mean((y - r) ** 2))
    return None if noise == 0 else float(10 * np.log10(np.max(np.abs(r)) ** 2 / noise))


def _judge(conversion: Conversion, package: Path, name: str, x: Array, r: Array) -> Agreement:
    wanted = r.astype(np.float64)
    with Evaluator(package) as evaluator:
        feeds: Mapping[str, Array] = {evaluator.inputs[0]: x}
        y = evaluator.run(feeds)[evaluator.outputs[0]].astype(np.float64)
        pessimistic = evaluator.run(feeds, "float16")[evaluator.outputs[0]]
        if len(evaluator.inputs) != 1 or evaluator.inputs[0] != name:
            raise RuntimeError(f"expected the input {name}, found {evaluator.inputs}")
    max_rel = float(np.max(np.abs(y - wanted)) / np.max(np.abs(wanted)))
    psnr_db = _psnr_db(y, wanted)
    metric, limit = LIMITS[conversion.precision]
    within = max_rel <= limit if metric == "max_rel" else psnr_db is None or psnr_db >= limit
    return Agreement(
        conversion.converter,
        conversion.name,
        conversion.precision,
        max_rel,
        psnr_db,
        _psnr_db(pessimistic.astype(np.float64), wanted),
        metric,
        limit,
        bool(within and np.isfinite(y).all()),
    )


def measure(model: Path) -> tuple[Agreement, ...]:
    """Convert ``model`` with every converter and compare.

    Raises:
        CorpusUnavailableError: The converters' environment or the model is not there.
        RuntimeError: A converter wrote no package.
    """
    if not (ENVIRONMENT / "bin" / "onnx2coreml").exists():
        raise CorpusUnavailableError(ENVIRONMENT.name, reason="run make oracles")
    if not model.exists():
        raise CorpusUnavailableError(model.name, reason="run make models")
    name, x, r = _reference(model)
    with tempfile.TemporaryDirectory() as folder:
        return tuple(
            _judge(c, _convert(c, model, Path(folder)), name, x, r) for c in CONVERSIONS
        )


def main(arguments: list[str] | None = None) -> int:
    """Print the figures as JSON; 0 if all packages agree."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    model = parser.parse_args(arguments).model
    try:
        found = measure(model)
    except CorpusUnavailableError as e:
        print(e)
        return 0
    result: dict[str, Any] = {
        "model": model.name,
        "sha256": sha256(model),
        "packages": [asdict(a) for a in found],
    }
    print(json.dumps(result, indent=2))
    return 0 if all(a.passed for a in found) else 1


if __name__ == "__main__":
    sys.exit(main())
