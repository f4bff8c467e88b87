"""The ONNX backend: the canonical model itself is the artifact.

ONNX Runtime inlines ``ai.edgevit`` functions by their bodies, so nothing is rewritten here
except what serialization needs to be byte-stable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass

from edgevit.attention import is_plain, take_apart
from edgevit.backend import Arithmetic, Lowered, LowerOptions
from edgevit.bundle import Binding, Part
from edgevit.errors import Availability, probe_packages
from edgevit.manifest import DTYPES
from edgevit.model import Names, constant, dtype_of, shape_of
from edgevit.rewrite import Builder
from edgevit.target import Target
from edgevit.targets.onnx.adjacent_quantizers import adjacent_quantizers
from edgevit.targets.onnx.groups import feed_codes, inside_integer_group, requantized
from edgevit.targets.onnx.integer_conv import integer_convolutions
from edgevit.targets.onnx.integer_linear import dynamic_products, integer_products
from edgevit.targets.onnx.unsigned import unsigned_weights

__all__ = ["OnnxBackend"]

REPLAYED = ".replayed"
STORED = ".stored"
# What is added to a score so that it does not count is far below this.
_MASKED = -1e30
# A Cast for a shorter constant costs more bytes than it saves.
HALF_FROM = 64


class OnnxBackend:
    """Serializes the canonical model; see ``edgevit.backend.Backend``."""

    name: ClassVar[str] = "onnx"
    executes_bodies: ClassVar[bool] = True
    precisions: ClassVar[frozenset[str]] = frozenset(
        {"fp32", "fp16", "w8", "w4", "w8a8", "w8a8-dyn", "w4a8", "w6a6", "w4a4", "mixed"}
    )

    def probe(self) -> Availability:
        """Lowering needs the ``onnx`` package."""
        return probe_packages(self.name, "compile", "onnx", ("onnx-ir", "compile"))

    def unsupported(self, node: ir.Node, target: Target, precision: str) -> str | None:
        """Every ONNX operator and every ``ai.edgevit`` function runs in ONNX Runtime."""
        if node.domain not in ("", "ai.onnx", "ai.edgevit"):
            return f"operators of domain {node.domain!r} are not part of ONNX"
        for out in node.outputs:
            if out.name and dtype_of(out).name not in DTYPES:
                return f"value {out.name!r} is {dtype_of(out).name}, which bundles do not hold"
        return None

    def arithmetic(self, precision: str) -> Arithmetic:
        """``fp16`` stores weights in float16 and computes in float32."""
        if precision == "fp16":
            return Arithmetic(weights="float16", narrow_from=HALF_FROM)
        return Arithmetic(dynamic=precision == "w8a8-dyn")

    def lower(self, model: ir.Model, target: Target, options: LowerOptions) -> Lowered:
        """Serialize ``model`` deterministically; both ``io`` forms are the source's own."""
        if options.precision == "fp16":
            model = model.clone()
            _halve(model)
        path = f"{options.stem}.onnx"
        graph = model.graph
        every = (out for node in graph for out in node.outputs if out.name and _alive(out))
        # A reference keeps every value; an artifact of integers only what engines keep.
        grouped = options.precision not in ("fp32", "fp16")
        values = tuple(_binding(v) for v in every if not (grouped and inside_integer_group(v)))
        engine = target.engine if target.backend == self.name else "ort"
        if engine != "ort":
            model = model.clone()
            _plain_forms(model)
        elif grouped:
            model = model.clone()
            dynamic = options.precision == "w8a8-dyn"
            portable = target.options.get("cpu") == "any"
            _integer_forms(model, dynamic=dynamic, portable=portable)
        graph = model.graph
        # A layer that became another one may have moved the codes that it read.
        left = {str(out.name) for node in graph for out in node.outputs}
        values = tuple(b for b in values if b.artifact in left)
        part = Part(
            engine=engine,
            artifact=path,
            inputs=tuple(_binding(v) for v in graph.inputs),
            outputs=tuple(_binding(v) for v in graph.outputs),
        )
        return Lowered({path: _serialize(model)}, part, values)

    def merge(
        self, variants: Sequence[Lowered], target: Target, stem: str
    ) -> tuple[Lowered, ...]:
        """A graph for each input shape, all over one file of weights."""
        from edgevit.targets.onnx.shapes import merge

        return merge(variants, stem)

    def replay(self, lowered: Lowered) -> Lowered:
        """Cut at every mapped value; the cut tensor's producer writes ``NAME.replayed``."""
        model = _parse(lowered)
        made = _values_by_name(model)
        outputs, inputs = [], list(model.graph.inputs)
        model.graph.outputs.clear()
        for binding in lowered.values:
            old = made[binding.artifact]
            dtype = ir.DataType.from_numpy(np.dtype(binding.artifact_dtype))
            cut = ir.val(binding.artifact, dtype, list(binding.artifact_shape))
            old.name = binding.artifact + REPLAYED
            fed, made_now = cut, list[ir.Node]()
            border = old.producer()
            if border is not None and _ends_integers(border):
                fed, made_now = requantized(cut, border)
            ir.convenience.replace_all_uses_with(old, fed)
            if border is not None:
                model.graph.insert_after(border, made_now)
                feed_codes(border, made_now)
            inputs.append(cut)
            outputs.append(old)
        model.graph.inputs.clear()
        model.graph.inputs.extend(inputs)
        model.graph.outputs.extend(outputs)
        renamed = tuple(
            dataclasses.replace(b, artifact=b.artifact + REPLAYED) for b in lowered.values
        )
        part = dataclasses.replace(
            lowered.part, inputs=lowered.part.inputs + lowered.values, outputs=renamed
        )
        return Lowered({part.artifact: _serialize(model)}, part, renamed)

    def expose(self, lowered: Lowered) -> Lowered:
        """The same file with every mapped value among the graph's outputs."""
        model = _parse(lowered)
        made = _values_by_name(model)
        model.graph.outputs.clear()
        model.graph.outputs.extend(made[b.artifact] for b in lowered.values)
        part = dataclasses.replace(lowered.part, outputs=lowered.values)
        return Lowered({part.artifact: _serialize(model)}, part, lowered.values)


def _integer_forms(model: ir.Model, *, dynamic: bool, portable: bool) -> None:
    """What ONNX Runtime runs in integer kernels, in place.

    Attention is in pieces: the engine's ``Attention`` does not use a second thread, its
    products do (benchmarks/RESULTS-quantization-latency.md). Not so where a mask may leave a
    row no key: the operator gives zeros for it, and a softmax does not.

    Args:
        model: The quantized graph.
        dynamic: Activations are quantized as the model runs.
        portable: No sum of products may saturate on a processor without VNNI.
    """
    if dynamic:
        dynamic_products(model)
    integer_products(model)
    integer_convolutions(model)
    _attention_in_pieces(model, _leaves_keys)
    if portable:
        unsigned_weights(model)
    RemoveUnusedNodesPass()(model)


def _plain_forms(model: ir.Model) -> None:
    """What OpenVINO reads, and fuses, in place: it knows no functions.

    It takes an ``Attention`` apart by itself, but in a form whose keys are moved once more and
    whose products stay float if they read codes (benchmarks/RESULTS-quantization-latency.md).
    """
    InlinePass()(model)
    _attention_in_pieces(model, is_plain)
    adjacent_quantizers(model)
    RemoveUnusedNodesPass()(model)


def _leaves_keys(node: ir.Node) -> bool:
    """Whether every query of an attention has a key, whatever its inputs are."""
    mask = node.inputs[3] if len(node.inputs) > 3 else None
    if mask is None:
        return True
    added = constant(mask)
    return added is not None and bool((added.max(axis=-1) > _MASKED).all())


def _attention_in_pieces(model: ir.Model, wanted: Callable[[ir.Node], bool]) -> None:
    names = Names(model.graph)
    for node in [n for n in model.graph if is_plain(n) and wanted(n)]:
        op = Builder("attention", model.graph, str(node.outputs[0].name), names)
        take_apart(model.graph, node, op)


def _halve(model: ir.Model) -> None:
    """Store float32 constants as float16, each read through a Cast to float32.

    ONNX Runtime folds the Casts when it loads the file: half the size, float32 arithmetic.
    """
    graph = model.graph
    first = next(iter(graph), None)
    for value in list(graph.initializers.values()):
        array = constant(value)
        if array is None or array.dtype != np.float32 or array.size < HALF_FROM:
            continue
        largest = np.float32(np.finfo(np.float16).max)
        half = np.clip(array, -largest, largest).astype(np.float16)
        name = str(value.name)
        stored = ir.val(f"{name}{STORED}", ir.DataType.FLOAT16, list(array.shape))
        stored.const_value = ir.tensor(half, name=stored.name)
        cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast")
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
        del graph.initializers[name]
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        cast.outputs[0].name = name
        graph.register_initializer(stored)
        assert first is not None
        graph.insert_before(first, cast)


def _alive(value: ir.Value) -> bool:
    producer = value.producer()
    if producer is not None and producer.op_type == "Cast" and _constant_input(producer):
        return False  # a stored constant on its way to float32
    return constant(value) is None and (bool(value.uses()) or value.is_graph_output())


def _ends_integers(node: ir.Node) -> bool:
    """Whether a node gives the numbers of codes that are computed, not stored."""
    return node.op_type == "DequantizeLinear" and not _constant_input(node)


def _constant_input(node: ir.Node) -> bool:
    return constant(node.inputs[0]) is not None


def _binding(value: ir.Value) -> Binding:
    name, shape, dtype = str(value.name), shape_of(value), str(dtype_of(value))
    return Binding(name, name, dtype, shape, dtype, shape)


def _parse(lowered: Lowered) -> ir.Model:
    import onnx

    from edgevit.targets.onnx.shapes import inline_weights

    proto = onnx.load_model_from_string(lowered.files[lowered.part.artifact])
    inline_weights(proto, lowered.files)
    model: ir.Model = ir.from_proto(proto)
    return model


def _values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    return {str(out.name): out for node in model.graph for out in node.outputs}


def _serialize(model: ir.Model) -> bytes:
    """Deterministic bytes; exporter metadata (stack traces, paths) is left out."""
    proto = ir.to_proto(model)
    proto.producer_name, proto.producer_version = "edgevit", ""
    proto.doc_string = proto.graph.doc_string = ""
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for tensor in proto.graph.initializer:
        _embed(tensor, model.graph)
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    return bytes(proto.SerializeToString(deterministic=True))


def _embed(tensor: Any, graph: ir.Graph) -> None:
    """Put the bytes of a weight of the source's external data into the artifact."""
    if not tensor.external_data:
        return
    stored = graph.initializers[tensor.name].const_value
    assert stored is not None
    tensor.raw_data = stored.tobytes()
    del tensor.external_data[:]
    tensor.ClearField("data_location")
