"""Teacher forcing: cut the shipped flatbuffer at every mapped tensor.

Works on the bytes that ship: the model is unpacked, each mapped tensor becomes an input,
and the operator that makes it writes to a new tensor that is an output. Everything between
two mapped tensors is left as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgevit.backend import Lowered
from edgevit.bundle import Binding, Part
from edgevit.errors import InternalError
from edgevit.targets.litert.shapes import select
from edgevit.targets.litert.writer import pack, signature

__all__ = ["SUFFIX", "expose", "replay"]

SUFFIX = "/replayed"


def _copy(tensor: Any) -> Any:
    """An activation tensor like ``tensor``, under a name of its own."""
    return schema.TensorT(
        shape=tensor.shape,
        type=tensor.type,
        buffer=0,
        name=_name(tensor) + SUFFIX,
        quantization=tensor.quantization,
        hasRank=True,
    )


def _name(tensor: Any) -> str:
    name = tensor.name
    return name.decode() if isinstance(name, bytes) else str(name)


def _index(graph: Any, binding: Binding) -> int:
    """Index of the tensor that a binding names."""
    found = [i for i, t in enumerate(graph.tensors) if _name(t) == binding.artifact]
    if len(found) != 1:
        raise InternalError(
            f"expected one tensor {binding.artifact!r} in the artifact, found {len(found)}"
        )
    return found[0]


def _cut(graph: Any, tensor: int) -> int:
    """Let the operator that makes ``tensor`` write to a copy; returns the copy."""
    graph.tensors.append(_copy(graph.tensors[tensor]))
    copy = len(graph.tensors) - 1
    makers = [op for op in graph.operators if tensor in list(op.outputs)]
    if len(makers) != 1:
        raise InternalError(
            f"tensor {_name(graph.tensors[tensor])!r} is made by {len(makers)} operators"
        )
    makers[0].outputs = [copy if t == tensor else t for t in makers[0].outputs]
    return copy


def _consumed(graph: Any) -> set[int]:
    return {int(t) for op in graph.operators for t in op.inputs}


def _edit(graph: Any, lowered: Lowered) -> tuple[dict[Binding, int], dict[Binding, int]]:
    """Cut at every mapped value; returns the new inputs and outputs."""
    inputs = {b: _index(graph, b) for b in lowered.part.inputs}
    outputs: dict[Binding, int] = {}
    mapped = {b.name: b for b in lowered.values}
    mapped |= {b.name: b for b in lowered.part.outputs if b.name not in mapped}
    for binding in mapped.values():
        tensor = _index(graph, binding)
        copy = _cut(graph, tensor)
        made = dataclasses.replace(binding, artifact=_name(graph.tensors[copy]))
        outputs[made] = copy
        inputs[binding] = tensor
    used = _consumed(graph)
    return {b: t for b, t in inputs.items() if t in used}, outputs


def _signed(model: Any, inputs: Mapping[Binding, int], outputs: Mapping[Binding, int]) -> None:
    graph = model.subgraphs[0]
    graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
    model.signatureDefs = [
        signature(
            {b.artifact: t for b, t in inputs.items()},
            {b.artifact: t for b, t in outputs.items()},
        )
    ]


def replay(lowered: Lowered) -> Lowered:
    """The artifact cut at every mapped value; see ``edgevit.backend.Backend.replay``.

    Inputs are the model's inputs and all mapped values that an operator reads; outputs are
    all mapped values, as the shipped operators compute them from those inputs.

    Raises:
        InternalError: The debug map and the artifact do not fit together.
    """
    ((path, data),) = lowered.files.items()
    model = select(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)), lowered.part)
    inputs, outputs = _edit(model.subgraphs[0], lowered)
    _signed(model, inputs, outputs)
    part = Part(lowered.part.engine, path, tuple(inputs), tuple(outputs))
    return Lowered({path: pack(model)}, part, tuple(outputs))


def expose(lowered: Lowered) -> Lowered:
    """The artifact with every mapped value as an output, uncut.

    Raises:
        InternalError: The debug map and the artifact do not fit together.
    """
    ((path, data),) = lowered.files.items()
    model = select(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0)), lowered.part)
    graph = model.subgraphs[0]
    inputs = {b: _index(graph, b) for b in lowered.part.inputs}
    outputs = {b: _index(graph, b) for b in lowered.values}
    _signed(model, inputs, outputs)
    part = dataclasses.replace(lowered.part, outputs=lowered.values, function=None)
    return Lowered({path: pack(model)}, part, lowered.values)
