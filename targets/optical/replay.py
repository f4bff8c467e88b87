"""Variants of a shipped artifact: cut at every mapped value, or with all as outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgevit.backend import Lowered
from edgevit.bundle import Binding
from edgevit.sim4f.program import Electronic, Optical, Program, Tensor
from edgevit.targets.optical.artifact import program_of, with_program

__all__ = ["expose", "replay"]

REPLAYED = ".replayed"


def replay(lowered: Lowered) -> Lowered:
    """Steps read the fed tensor, and write ``NAME.replayed`` beside it."""
    program = program_of(lowered.files, lowered.part.artifact)
    renamed = {b.artifact: b.artifact + REPLAYED for b in lowered.values}
    outputs = tuple(
        dataclasses.replace(b, artifact=renamed[b.artifact]) for b in lowered.values
    )
    cut = dataclasses.replace(
        program,
        steps=tuple(_renamed(step, renamed) for step in program.steps),
        inputs=(*program.inputs, *(_tensor(b) for b in lowered.values)),
        outputs=tuple(_tensor(b) for b in outputs),
    )
    part = dataclasses.replace(
        lowered.part, inputs=lowered.part.inputs + lowered.values, outputs=outputs
    )
    return _with(lowered, cut, dataclasses.replace(lowered, part=part, values=outputs))


def expose(lowered: Lowered) -> Lowered:
    """Every mapped value is an output."""
    program = program_of(lowered.files, lowered.part.artifact)
    wider = dataclasses.replace(program, outputs=tuple(_tensor(b) for b in lowered.values))
    part = dataclasses.replace(lowered.part, outputs=lowered.values)
    return _with(lowered, wider, dataclasses.replace(lowered, part=part))


def _with(lowered: Lowered, program: Program, variant: Lowered) -> Lowered:
    files = with_program(lowered.files, lowered.part.artifact, program)
    return dataclasses.replace(variant, files=files)


def _tensor(binding: Binding) -> Tensor:
    return Tensor(binding.artifact, binding.artifact_shape, binding.artifact_dtype)


def _renamed(step: Optical | Electronic, names: Mapping[str, str]) -> Optical | Electronic:
    if isinstance(step, Optical):
        return dataclasses.replace(step, name=names.get(step.name, step.name))
    outputs = tuple((inner, names.get(name, name)) for inner, name in step.outputs)
    return dataclasses.replace(step, outputs=outputs)
