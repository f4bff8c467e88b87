"""Which models run on a device, on which engine, and on what inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import load_slice
from benchmarks.corpus.fashion import preprocess as fashion_preprocess
from benchmarks.corpus.store import ROOT
from benchmarks.corpus.text_images import default_source, generate
from benchmarks.corpus.text_images import preprocess as text_preprocess
from benchmarks.edgevit_json import call
from benchmarks.five.cases import Case, choose

__all__ = ["ENGINES", "MODELS", "Engine", "compile_bundle", "models", "samples"]

Array = np.ndarray[Any, Any]
FOLDER = ROOT / "build" / "device"
MODELS = (
    "fashion_hybrid_ts",
    "fashion_vit_ts",
    "ppocrv4_rec",
    "deit_tiny_ts",
    "mobilevit_xxs_ts",
)
SAMPLES = 2
SEED = 3


@dataclass(frozen=True)
class Engine:
    """An engine of a device.

    Attributes:
        label: Shown in the table; also the choice on the command line.
        target: What is compiled for it.
        modules: The packages of which one must be loaded after a run.
        foreign: Whether this machine cannot run what it compiles: then the device does it
            for the first time.
    """

    label: str
    target: str
    modules: tuple[str, ...]
    foreign: bool = False


ENGINES = (
    Engine("litert", "raspberry-pi-5", ("ai_edge_litert", "tflite_runtime")),
    Engine("onnx", "onnx", ("onnxruntime",)),
    Engine("tvm", "raspberry-pi-5:backend=tvm", ("tvm_ffi",), foreign=True),
)


def models(names: list[str]) -> tuple[Case, ...]:
    """The cases of these names; those of ``MODELS`` if there are none.

    Raises:
        ValueError: A name fits no case.
    """
    return choose(names or MODELS)


def compile_bundle(case: Case, engine: Engine) -> Path:
    """Compile a model in float32 with the command line of this machine.

    Raises:
        CorpusUnavailableError: The model cannot be had here.
        RuntimeError: The compile failed.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundle = FOLDER / f"{case.name}-{engine.label}.edgevit"
    options = ["--target", engine.target, "--precision", "fp32", "--output", str(bundle)]
    for name, dims in case.shapes.items():
        options += ["--shape", f"{name}={','.join(map(str, dims))}"]
    options += ["--no-verify"] if engine.foreign else []
    answer = call(["compile", str(case.find()), *options, "--overwrite"])
    if answer.exit_code:
        raise RuntimeError(f"{case.name} for {engine.target}: {answer.error}")
    return bundle


def samples(case: Case, shape: tuple[int, ...]) -> list[Array]:
    """Inputs as the model knows them: text, garments, or seeded noise for random weights.

    Args:
        case: The model.
        shape: Of its only input, e.g. ``(1, 3, 224, 224)``.

    Returns:
        float32 arrays of that shape, the same at each call.

    Raises:
        CorpusUnavailableError: The fonts of the text images cannot be had.
    """
    if case.task == "text":
        drawn = generate(default_source(), "hard", SEED, SAMPLES)
        return [text_preprocess(sample.image) for sample in drawn]
    if case.task == "fashion":
        images = fashion_preprocess(load_slice().images[:SAMPLES])
        return [images[i : i + 1] for i in range(SAMPLES)]
    rng = np.random.default_rng(SEED)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(SAMPLES)]
