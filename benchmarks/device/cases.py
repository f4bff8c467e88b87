"""Which models run on a device, on which engine, and on what inputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import load_full, load_slice
from benchmarks.corpus.fashion import preprocess as fashion_preprocess
from benchmarks.corpus.store import ROOT
from benchmarks.corpus.text_images import default_source, generate
from benchmarks.corpus.text_images import preprocess as text_preprocess
from benchmarks.edgevit_json import call
from benchmarks.five.cases import Case, choose
from edgevit.bundle import npz_bytes

__all__ = ["ENGINES", "MODELS", "Engine", "compile_bundle", "models", "runs", "samples"]

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
# SQNR of single hard texts differs much: a wrong letter moves many outputs.
TEXTS = 8
SEED = 3
CALIBRATION, CALIBRATION_SEED = 64, 4


@dataclass(frozen=True)
class Engine:
    """An engine of a device.

    Attributes:
        label: Shown in the table; also the choice on the command line.
        target: What is compiled for it.
        modules: The packages of which one must be loaded after a run.
        foreign: Whether this machine cannot run what it compiles: then the device does it
            for the first time.
        precision: What is compiled; integers are calibrated on other samples than run.
        recipe: Name of a recipe, which says how; empty: the target's own passes.
    """

    label: str
    target: str
    modules: tuple[str, ...]
    foreign: bool = False
    precision: str = "fp32"
    recipe: str = ""


_PI = "raspberry-pi-5:backend=tvm"
ENGINES = (
    Engine("litert", "raspberry-pi-5", ("ai_edge_litert", "tflite_runtime")),
    Engine("onnx", "onnx", ("onnxruntime",)),
    Engine("tvm", _PI, ("tvm_ffi",), foreign=True),
    Engine("tvm-w8a8", _PI, ("tvm_ffi",), foreign=True, precision="w8a8"),
    Engine("tvm-shift-2", _PI, ("tvm_ffi",), True, "w8a8", "shift-2"),
)


def models(names: list[str]) -> tuple[Case, ...]:
    """The cases of these names; those of ``MODELS`` if there are none.

    Raises:
        ValueError: A name fits no case.
    """
    return choose(names or MODELS)


def runs(case: Case, engine: Engine) -> bool:
    """Whether an engine runs a model: recipes fit weights to data, and noise is none."""
    return not engine.recipe or case.task is not None


def compile_bundle(case: Case, engine: Engine) -> Path:
    """Compile a model with the command line of this machine.

    Raises:
        CorpusUnavailableError: The model cannot be had here.
        RuntimeError: The compile failed.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundle = FOLDER / f"{case.name}-{engine.label}.edgevit"
    options = ["--target", engine.target, "--precision", engine.precision]
    options += ["--output", str(bundle)]
    options += ["--recipe", engine.recipe] if engine.recipe else []
    for name, dims in case.shapes.items():
        options += ["--shape", f"{name}={','.join(map(str, dims))}"]
    options += ["--no-verify"] if engine.foreign else []
    if engine.precision != "fp32":
        options += _calibrated(case)
    answer = call(["compile", str(case.find()), *options, "--overwrite"])
    if answer.exit_code:
        raise RuntimeError(f"{case.name} for {engine.target}: {answer.error}")
    return bundle


def _calibrated(case: Case) -> list[str]:
    """Options: training samples or other texts, self-check included; noise for random weights.

    Noise as a self-check would say nothing of a model whose ranges are those of images.
    """
    if case.task is None:
        return ["--calib", "synthetic"]
    name, path = _input(case), FOLDER / f"{case.name}-calibration.npz"
    if case.task == "text":
        drawn = generate(default_source(), "hard", CALIBRATION_SEED, CALIBRATION)
        arrays = np.stack([text_preprocess(sample.image) for sample in drawn])
    else:
        arrays = fashion_preprocess(load_full("train").images[:CALIBRATION])[:, None]
    path.write_bytes(npz_bytes({name: arrays}))
    return ["--calib", str(path), "--selfcheck-input", str(path)]


def _input(case: Case) -> str:
    import onnx

    name: str = onnx.load(case.find(), load_external_data=False).graph.input[0].name
    return name


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
        drawn = generate(default_source(), "hard", SEED, TEXTS)
        return [text_preprocess(sample.image) for sample in drawn]
    if case.task == "fashion":
        images = fashion_preprocess(load_slice().images[:SAMPLES])
        return [images[i : i + 1] for i in range(SAMPLES)]
    rng = np.random.default_rng(SEED)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(SAMPLES)]
