"""Make a function ready to run: constants decoded, operators looked up, lifetimes known.

Everything that can be wrong with a program independently of its inputs is found here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil.context import Kernel
from edgevit.runtimes.mil.execute import execute
from edgevit.runtimes.mil.ops.table import OPERATORS
from edgevit.runtimes.mil.spec import Binding, Function, Operation, Program
from edgevit.runtimes.mil.step import Step, failure
from edgevit.runtimes.mil.values import Value, hold, kind_of

__all__ = ["Prepared", "prepare"]

_OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}


@dataclass(frozen=True)
class Prepared:
    """A function ready to run.

    Attributes:
        function: The function.
        opset: The iOS release of its operator set.
        constants: Value name -> constant.
        steps: The operations that run, in order.
    """

    function: Function
    opset: int
    constants: Mapping[str, Value]
    steps: tuple[Step, ...]


def prepare(program: Program, function: str | None = None) -> Prepared:
    """Prepare a function of the program, the default one if not named.

    Raises:
        ArtifactError: An operator is not known, the program is inconsistent, or it has no
            such function.
    """
    wanted = program.default if function is None else function
    if wanted not in program.functions:
        raise ArtifactError(
            f"expected the function {wanted!r} in the ML program, found"
            f" {sorted(program.functions)}"
        )
    chosen = program.functions[wanted]
    opset = _OPSETS.get(chosen.opset)
    if opset is None:
        raise ArtifactError(
            f"expected one of the operator sets {sorted(_OPSETS)}, found {chosen.opset!r}"
        )
    constants: dict[str, Value] = {}
    steps: list[Step] = []
    for operation in chosen.operations:
        if operation.type == "const":
            constants.update(_constant(operation))
            continue
        step = _step(operation, constants)
        if operation.type.startswith("constexpr_"):
            with np.errstate(all="ignore"):
                constants.update(execute(step, constants, opset, half=False))
        else:
            steps.append(step)
    _check_names(chosen, constants, steps)
    return Prepared(
        chosen, opset, constants, _with_lifetimes(steps, constants, chosen.outputs)
    )


def _constant(operation: Operation) -> dict[str, Value]:
    value = operation.attributes.get("val")
    if value is None or len(operation.outputs) != 1:
        raise failure(operation, "expected one constant, found none or several results")
    declared = operation.outputs[0]
    shape = () if isinstance(value, str) else value.shape
    if kind_of(value) != declared.dtype or not declared.admits(shape):
        raise failure(
            operation,
            f"expected {declared.dtype} of shape {list(declared.shape)}, found"
            f" {kind_of(value)} of shape {list(shape)}",
        )
    return {declared.name: hold(value, declared.dtype)}


def _step(operation: Operation, constants: dict[str, Value]) -> Step:
    """The operation as a step; literals in its arguments become constants."""
    kernel = OPERATORS.get(operation.type)
    if kernel is None or operation.blocks:
        raise failure(
            operation,
            "the evaluator does not know this operator",
            hint="Core ML runs it on macOS; elsewhere it cannot be verified",
        )
    inputs = dict(operation.inputs)
    for name, literal in operation.attributes.items():
        inputs[name] = (Binding(literal=literal),)
    tuples = _check_signature(operation, kernel, inputs)
    arguments = {}
    for name, bindings in inputs.items():
        names = []
        for i, binding in enumerate(bindings):
            key = binding.name
            if binding.literal is not None:
                key = f"{operation.name}\0{name}\0{i}"  # no value of a program has a NUL
                constants[key] = hold(binding.literal, kind_of(binding.literal))
            names.append(key)
        arguments[name] = tuple(names)
    return Step(operation, kernel, arguments, tuples, ())


def _check_signature(
    operation: Operation, kernel: Kernel, given: Mapping[str, tuple[Binding, ...]]
) -> frozenset[str]:
    """The parameters that take a tuple, once the given ones fit the kernel's."""
    parameters = dict(list(inspect.signature(kernel).parameters.items())[1:])
    unknown = sorted(set(given) - set(parameters))
    missing = sorted(
        name for name, p in parameters.items() if p.default is p.empty and name not in given
    )
    if unknown or missing:
        raise failure(
            operation, f"expected other arguments: missing {missing}, not known {unknown}"
        )
    tuples = frozenset(name for name, p in parameters.items() if p.annotation == "Tensors")
    for name, bindings in given.items():
        if name not in tuples and len(bindings) != 1:
            raise failure(operation, f"expected one value for {name!r}, found {len(bindings)}")
    return tuples


def _check_names(
    function: Function, constants: Mapping[str, Value], steps: list[Step]
) -> None:
    """Every value is written before it is read, and once."""
    known = set(constants) | {declared.name for declared in function.inputs}
    for step in steps:
        read = {name for names in step.arguments.values() for name in names}
        if not read <= known:
            raise failure(step.operation, f"reads undefined values {sorted(read - known)}")
        written = {declared.name for declared in step.operation.outputs}
        if written & known or len(written) != len(step.operation.outputs):
            raise failure(step.operation, "writes a value that exists")
        known |= written
    if not set(function.outputs) <= known or not function.outputs:
        raise ArtifactError(
            f"function {function.name!r} returns undefined values:"
            f" {sorted(set(function.outputs) - known) or 'none at all'}"
        )


def _with_lifetimes(
    steps: list[Step], constants: Mapping[str, Value], outputs: tuple[str, ...]
) -> tuple[Step, ...]:
    """The steps, each with the values that nobody reads after it."""
    needed = set(constants) | set(outputs)
    result = []
    for step in reversed(steps):
        touched = {name for names in step.arguments.values() for name in names}
        touched |= {declared.name for declared in step.operation.outputs}
        result.append(replace(step, free=tuple(sorted(touched - needed))))
        needed |= touched
    return tuple(reversed(result))
