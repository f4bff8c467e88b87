"""A model ready to be rounded in many ways: calibrated once, lowered as it would ship."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.quantization.cases import Case
from benchmarks.quantization.run import calibration_file
from benchmarks.shiftadd.forms import SOURCE, Form
from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.bundle import TensorInfo
from edgevit.calibration import open_source
from edgevit.edits import ShiftWeight
from edgevit.loading import load
from edgevit.model import shape_of
from edgevit.pipeline import Context, PassRecord, Pipeline, split_specs
from edgevit.recipe import load_recipe
from edgevit.target import load_target

__all__ = ["Made", "Subject", "answered"]

Array = np.ndarray[Any, Any]
TARGET, PRECISION = "onnx:cpu=vnni", "w8a8"
# Every layer's input in 8 bits, also where the engine is faster with floats; or as in w8a8.
EVERY, DEVICE = "quantize{weights=-1,rules=false}", "quantize{weights=-1}"
BEHIND = "sink-quantizers"
SMOOTH = load_recipe("shift-1").passes[0]


@dataclass(frozen=True)
class Made:
    """An artifact.

    Attributes:
        content: The ONNX file.
        terms: Mean shift terms a weight; 0 if there are none.
        packed: Bytes of the packed codes.
        seconds: Processor seconds of planning; what other forms have found is not counted.
    """

    content: bytes
    terms: float
    packed: int
    seconds: float


class Subject:
    """The canonical model with quantized activations; moments and roundings are kept."""

    def __init__(
        self,
        case: Case,
        seed: int = 0,
        every: bool = True,
        samples: Path | None = None,
        smooth: bool = False,
    ) -> None:
        self.case = case
        model = load(case.find(), dict(case.shapes)).model
        registry.load_attribute("edgevit.passes.order:canonicalize")(model, ())
        given = model.graph.inputs[0]
        info = TensorInfo(name=str(given.name), dtype="float32", shape=shape_of(given))
        data = open_source(str(samples or calibration_file(case)), (info,), None, 0)
        self._target = load_target(TARGET)
        self._context = Context(data, self._target, PRECISION, seed)
        ranges = EVERY if every else DEVICE
        self._run(model, f"{SMOOTH},{ranges}" if smooth else ranges)
        self._model = model
        self._seen: dict[str, Any] = {}
        self._known: dict[Any, dict[Any, Any]] = {}
        self._worth: dict[Any, Any] = {}

    def _run(self, model: ir.Model, specs: str) -> tuple[PassRecord, ...]:
        def find(name: str) -> Any:
            return registry.load("passes", name)

        return Pipeline.parse(split_specs(specs), find).run(model, (), self._context)

    def made(self, form: Form) -> Made:
        """The artifact of a form; of the source it is the model file itself."""
        if form is SOURCE:
            return Made(self.case.find().read_bytes(), 0.0, 0, 0.0)
        model, start = self._model.clone(), time.process_time()
        terms, packed = self._shift(model, form.spec) if form.spec else (0.0, 0)
        seconds = time.process_time() - start
        self._run(model, f"unpack-shifts,{BEHIND}")
        backend = registry.load("backends", self._target.backend)()
        options = LowerOptions(PRECISION, "source", "model")
        lowered = backend.lower(model, self._target, options)
        return Made(lowered.files["model.onnx"], terms, packed, seconds)

    def _shift(self, model: ir.Model, spec: str) -> tuple[float, int]:
        """Plan and perform; mean terms and bytes of codes."""

        def find(name: str) -> Any:
            return registry.load("passes", name)

        (chosen,) = Pipeline.parse([spec], find).passes
        shift: Any = chosen
        if shift.alone and not self._seen:
            self._seen = dict(shift.moments(model, self._context))
        seen = self._seen if shift.alone else {}
        key = shift.curvature, shift.probes, shift.exclude
        if key not in self._worth:
            self._worth[key] = shift.worth(model, self._context)
        worth, known = self._worth[key], self._known.setdefault(key, {})
        edits = shift.plan_on(model, self._context, seen, known, worth)
        shift.perform(model, edits)
        found = [e for e in edits if isinstance(e, ShiftWeight)]
        size = [e.inputs * len(e.scale) for e in found]
        terms = sum(n * e.codes.shape[0] for n, e in zip(size, found, strict=True))
        stored = sum(e.codes.nbytes for e in found)
        return terms / sum(size) if size else 0.0, stored


def answered(
    case: Case, content: bytes, images: Iterator[Array], seconds: float, keep: bool = False
) -> tuple[list[Any], float]:
    """Answers of ONNX Runtime, one thread, and the processor seconds of its runs.

    Ends behind a full hundred of images once ``seconds`` have gone, at 300 at the earliest.
    With ``keep`` outputs themselves instead of answers.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    read: Callable[[Array], Any] = case.answer(case.find())
    found: list[Any] = []
    spent = 0.0
    for image in images:
        start = time.process_time()
        output = np.asarray(session.run(None, {name: image})[0])
        spent += time.process_time() - start
        found.append(output if keep else read(output))
        if spent > seconds and len(found) >= 300 and len(found) % 100 == 0:
            break
    return found, spent
