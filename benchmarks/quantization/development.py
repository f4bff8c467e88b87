"""Judge pipelines on development images, so that no test image decides a default.

    python -m benchmarks.quantization.development CASE COUNT "TARGET;PRECISION[;PASSES]" ...

Development images are in neither the calibration nor the tests: rendered text of another seed,
training garments far behind those of calibration. The quantized graph itself runs in ONNX
Runtime, neither lowered nor verified: seconds instead of minutes a row. ``--plain`` leaves
out ONNX Runtime's optimizations, for graphs of other engines' schemes that it cannot fuse.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.corpus.fashion import load_full
from benchmarks.corpus.fashion import preprocess as small
from benchmarks.corpus.text_images import default_source, generate
from benchmarks.corpus.text_images import preprocess as text_tensor
from benchmarks.quantization.cases import Case, choose
from benchmarks.quantization.run import calibration_file
from benchmarks.zoo_tasks import upscale
from edgevit import registry
from edgevit.bundle import TensorInfo
from edgevit.calibration import held_out, open_source
from edgevit.loading import load
from edgevit.model import shape_of
from edgevit.optimize import optimize, pipeline
from edgevit.pipeline import Context, split_specs
from edgevit.recipe import Recipe
from edgevit.target import load_target

__all__ = ["Score", "development", "quantized", "score"]

Array = np.ndarray[Any, Any]
SEED = 29  # calibration has 11, tests 2
FIRST = 30_000  # of the training garments; calibration takes the first 64, or hundreds


@dataclass(frozen=True)
class Score:
    """What a graph answers on development images.

    Attributes:
        accuracy: Share of right answers.
        change: To float32, in points, on the same images.
        half: Half of its 95 % interval.
        agreement: Share of answers equal to float32's.
        sqnr_db: Of the outputs.
    """

    accuracy: float
    change: float
    half: float
    agreement: float
    sqnr_db: float


def development(case: Case, count: int) -> tuple[list[Array], list[Any]]:
    """Input tensors and labels."""
    source = load(case.find(), dict(case.shapes)).model
    height, width = shape_of(source.graph.inputs[0])[-2:]
    if case.shapes:
        texts = list(generate(default_source(), "hard", SEED, count))
        return [text_tensor(t.image) for t in texts], [t.label for t in texts]
    data = load_full("train")
    images = data.images[FIRST : FIRST + count]
    labels = [int(label) for label in data.labels[FIRST : FIRST + count]]
    if (height, width) == (28, 28):
        return [small(i[None])[0][None] for i in images], labels
    return [upscale(i, (height, width)) for i in images], labels


def quantized(case: Case, form: str) -> ir.Model:
    """The canonical model after the passes of ``TARGET;PRECISION;PASSES``."""
    target_name, precision, passes = (*form.split(";"), "")[:3]
    model = load(case.find(), dict(case.shapes)).model
    registry.load_attribute("edgevit.passes.order:canonicalize")(model, ())
    if precision == "fp32":
        return model
    given = model.graph.inputs[0]
    info = TensorInfo(name=str(given.name), dtype="float32", shape=shape_of(given))
    data, _ = held_out(open_source(str(calibration_file(case)), (info,), None, 0))
    target = load_target(target_name)
    recipe = Recipe(precision=precision, passes=split_specs(passes))
    chosen = pipeline(target, recipe, precision, True)
    optimize(model, chosen, Context(data, target, precision))
    return model


def answers(model: ir.Model, images: Sequence[Array], plain: bool) -> list[Array]:
    """Outputs of ONNX Runtime, one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [np.asarray(session.run(None, {name: x})[0]) for x in images]


def score(
    true: Sequence[Array], found: Sequence[Array], read: Any, labels: Sequence[Any]
) -> Score:
    """Compare outputs, one for each image.

    Args:
        true: Of float32.
        found: Of the quantized graph.
        read: Output -> answer.
        labels: What is right.
    """
    before, after = [read(y) for y in true], [read(y) for y in found]
    right = np.array([a == b for a, b in zip(after, labels, strict=True)], np.int64)
    change = right - np.array([a == b for a, b in zip(before, labels, strict=True)], np.int64)
    signal = sum(float(np.square(y.astype(np.float64)).sum()) for y in true)
    pairs = zip(true, found, strict=True)
    noise = sum(float(np.square(y.astype(np.float64) - q).sum()) for y, q in pairs)
    same = float(np.mean([a == b for a, b in zip(before, after, strict=True)]))
    half = 196 * float(change.std()) / len(change) ** 0.5
    ratio = 10 * float(np.log10(signal / max(noise, signal * 1e-20)))
    return Score(float(right.mean()), 100 * float(change.mean()), half, same, ratio)


def main() -> None:
    """Print a Markdown row for each form."""
    parser = argparse.ArgumentParser(description="Judge pipelines on development images.")
    parser.add_argument("case")
    parser.add_argument("count", type=int)
    parser.add_argument("forms", nargs="+")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    (case,) = choose([options.case])
    images, labels = development(case, options.count)
    true = answers(quantized(case, "onnx;fp32"), images, options.plain)
    read = case.answer(case.find())
    print(f"{case.name}, {options.count} development images")
    print("| form | accuracy | to fp32, points | same answer | SQNR, dB | MB of the graph |")
    print("|---|---|---|---|---|---|")
    for form in options.forms:
        model = quantized(case, form)
        s = score(true, answers(model, images, options.plain), read, labels)
        size = len(ir.to_proto(model).SerializeToString()) / 1e6
        print(
            f"| {form} | {s.accuracy:.4f} | {s.change:+.2f} ± {s.half:.2f} "
            f"| {s.agreement:.4f} | {s.sqnr_db:.1f} | {size:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
