"""Cut the shipped program at every mapped value, for per-node verification.

The operation that computes a mapped tensor ``t`` writes ``t__replay`` instead, which becomes
an output of the function; ``t`` becomes an input. So each operation reads what it is given
and not what the operations before it made of it. The weights are the shipped file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgevit.backend import Lowered
from edgevit.bundle import Binding, Part
from edgevit.errors import ArtifactError
from edgevit.targets.coreml.names import Names
from edgevit.targets.coreml.package import WEIGHTS, feature, package, parse_model
from edgevit.targets.coreml.shapes import select

__all__ = ["expose", "replay"]


def _rebind(binding: Binding, artifact: str) -> Binding:
    return Binding(**{**vars(binding), "artifact": artifact})


def _main_block(model: Any) -> tuple[Any, Any]:
    functions = model.mlProgram.functions
    if "main" not in functions:
        raise ArtifactError("the ML program has no function 'main'")
    function = functions["main"]
    return function, function.block_specializations[function.opset]


def _tensor_names(block: Any) -> set[str]:
    return {out.name for operation in block.operations for out in operation.outputs}


def _redirect(function: Any, block: Any, renamed: Mapping[str, str]) -> set[str]:
    """Rename the written tensors and declare the read ones; gives the names found."""
    found = set()
    for operation in block.operations:
        for out in operation.outputs:
            if out.name not in renamed:
                continue
            found.add(out.name)
            entry = function.inputs.add()
            entry.CopyFrom(out)
            out.name = renamed[out.name]
    return found


def replay(proto: Any, lowered: Lowered, stem: str) -> Lowered:
    """Build the replay artifact from ``lowered.files`` (see ``edgevit.backend.Backend``).

    Args:
        proto: ``coremltools.proto``.
        lowered: What ships.
        stem: File name stem of the new package.

    Raises:
        ArtifactError: The shipped program lacks a tensor that the debug map names.
    """
    model = select(parse_model(proto, lowered.files, lowered.part.artifact), lowered.part)
    function, block = _main_block(model)
    inputs = {b.artifact for b in lowered.part.inputs}
    names = Names(_tensor_names(block) | inputs)
    renamed = {b.artifact: names.claim(f"{b.artifact}__replay") for b in lowered.values}
    missing = set(renamed) - _redirect(function, block, renamed)
    if missing:
        raise ArtifactError(
            f"the ML program lacks tensors of its debug map: {sorted(missing)}"
        )
    outputs = tuple(_rebind(b, renamed[b.artifact]) for b in lowered.values)
    del block.outputs[:]
    block.outputs.extend(b.artifact for b in outputs)
    _redescribe(proto, model, lowered.values, outputs)
    weights = lowered.files.get(f"{lowered.part.artifact}/{WEIGHTS}", b"")
    part = Part(
        engine=lowered.part.engine,
        artifact=f"{stem}.mlpackage",
        inputs=(*lowered.part.inputs, *lowered.values),
        outputs=outputs,
    )
    return Lowered(files=package(stem, model, weights), part=part, values=outputs)


def expose(proto: Any, lowered: Lowered, stem: str) -> Lowered:
    """The shipped program with every mapped value among its outputs, uncut.

    Args:
        proto: ``coremltools.proto``.
        lowered: What ships.
        stem: File name stem of the new package.
    """
    model = select(parse_model(proto, lowered.files, lowered.part.artifact), lowered.part)
    _, block = _main_block(model)
    del block.outputs[:]
    block.outputs.extend(b.artifact for b in lowered.values)
    _redescribe(proto, model, (), lowered.values)
    weights = lowered.files.get(f"{lowered.part.artifact}/{WEIGHTS}", b"")
    part = Part(
        engine=lowered.part.engine,
        artifact=f"{stem}.mlpackage",
        inputs=lowered.part.inputs,
        outputs=lowered.values,
    )
    return Lowered(package(stem, model, weights), part, lowered.values)


def _redescribe(
    proto: Any, model: Any, values: tuple[Binding, ...], outputs: tuple[Binding, ...]
) -> None:
    description = model.description
    for b in values:
        description.input.append(
            feature(proto, b.artifact, b.artifact_shape, b.artifact_dtype)
        )
    del description.output[:]
    for b in outputs:
        description.output.append(
            feature(proto, b.artifact, b.artifact_shape, b.artifact_dtype)
        )
