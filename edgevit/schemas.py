"""Which operators a model uses, and whether each node is one its operator set defines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgevit.errors import InputError
from edgevit.protocheck import describe

if TYPE_CHECKING:
    import onnx

__all__ = [
    "OPSET",
    "OPSET_MIN",
    "UnknownOperator",
    "check_operators",
    "opset_version",
    "unknown_operators",
]

OPSET = 23
OPSET_MIN = 11
# Deprecated in the version that first had it, and read here as it was meant.
_REVIVED = frozenset({"GroupNormalization"})


@dataclass(frozen=True)
class UnknownOperator:
    """A node that no known operator set defines.

    Attributes:
        node: Node name, or its first output.
        domain: Operator domain; empty for the default one.
        operator: Operator type.
    """

    node: str
    domain: str
    operator: str


def opset_version(model: onnx.ModelProto, file: str) -> int:
    """The version of the default operator set that the model imports.

    Raises:
        InputError: None or several, or outside 11 .. the newest that ``onnx`` knows.
    """
    import onnx

    found = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(found) != 1:
        raise InputError(
            f"{file}: expected one version of the ONNX operator set, found {found or 'none'}"
        )
    if not OPSET_MIN <= found[0] <= newest:
        raise InputError(
            f"{file}: operator set {found[0]} is out of range, "
            f"expected {OPSET_MIN} to {newest}",
            hint=f"export the model with opset {OPSET}, or convert it",
        )
    return int(found[0])


def unknown_operators(
    model: onnx.ModelProto, version: int, file: str
) -> tuple[UnknownOperator, ...]:
    """All nodes whose operator neither ONNX nor a function of the model defines.

    Raises:
        InputError: A function that uses another operator set than the model.
    """
    return tuple(
        UnknownOperator(node.name or next(iter(node.output), ""), node.domain, node.op_type)
        for node, schema in _nodes(model, version, file)
        if schema is None
    )


def check_operators(model: onnx.ModelProto, version: int, file: str) -> None:
    """Check every node against the schema of its operator at ``version``.

    Raises:
        InputError: All unknown operators at once, or the first node with wrong inputs,
            outputs or attributes.
    """
    unknown = unknown_operators(model, version, file)
    if unknown:
        raise InputError(_unknown_message(unknown, version, file), hint=_hint(unknown))
    for node, schema in _nodes(model, version, file):
        _check_node(node, schema, f"{file}: {describe(node)}")


def _nodes(
    model: onnx.ModelProto, version: int, file: str
) -> Iterator[tuple[onnx.NodeProto, Any]]:
    """Every node that is no function call, with its schema or ``None``."""
    functions = {(f.domain, f.name) for f in model.functions}
    scopes = [(model.graph.node, version)]
    for function in model.functions:
        scopes.append((function.node, _function_version(function, version, file)))
    for nodes, at in scopes:
        for node in nodes:
            if (node.domain, node.op_type) not in functions:
                yield node, _schema(node, at)


def _function_version(function: onnx.FunctionProto, version: int, file: str) -> int:
    found = [o.version for o in function.opset_import if o.domain in ("", "ai.onnx")]
    if found and found != [version]:
        raise InputError(
            f"{file}: function {function.domain}.{function.name} uses operator set "
            f"{found[0]}, the model {version}: expected the same"
        )
    return version


def _schema(node: onnx.NodeProto, version: int) -> Any:
    import onnx

    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    usable = not schema.deprecated or node.op_type in _REVIVED
    return schema if usable else None


def _unknown_message(unknown: tuple[UnknownOperator, ...], version: int, file: str) -> str:
    lines = [
        f"node {u.node!r}: operator {u.operator!r} of domain {u.domain or 'ai.onnx'!r}"
        for u in unknown
    ]
    head = f"{file}: {len(unknown)} unknown operator{'s' if len(unknown) > 1 else ''}"
    return f"{head} (operator set {version}):\n  " + "\n  ".join(lines)


def _hint(unknown: tuple[UnknownOperator, ...]) -> str:
    if any(u.domain.startswith("com.microsoft") for u in unknown):
        return "give the model that ONNX Runtime's optimizer was given: it writes these"
    if any(u.domain for u in unknown):
        return "export without operators of other domains, or as functions with a body"
    return "check the model's opset_import: the operator may be newer or older than it says"


def _check_node(node: onnx.NodeProto, schema: Any, where: str) -> None:
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise InputError(
            f"{where} has {len(node.input)} inputs, expected {schema.min_input} "
            f"to {schema.max_input}"
        )
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise InputError(
            f"{where} has {len(node.output)} outputs, expected {schema.min_output} "
            f"to {schema.max_output}"
        )
    _check_presence(node, schema, where)
    _check_attributes(node, schema, where)


def _check_presence(node: onnx.NodeProto, schema: Any, where: str) -> None:
    import onnx

    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    # The last formal parameter stands for all the rest where it is variadic.
    more = [schema.inputs[-1]] * len(node.input) if schema.inputs else []
    for formal, name in zip([*schema.inputs, *more], node.input, strict=False):
        if not name and formal.option != optional:
            raise InputError(f"{where} lacks its input {formal.name!r}")
    for formal, name in zip(schema.outputs, node.output, strict=False):
        if not name and formal.option != optional:
            raise InputError(f"{where} does not name its output {formal.name!r}")


def _check_attributes(node: onnx.NodeProto, schema: Any, where: str) -> None:
    known: Mapping[str, Any] = schema.attributes
    for attribute in node.attribute:
        if attribute.name not in known:
            raise InputError(
                f"{where} has the unknown attribute {attribute.name!r}, "
                f"expected {', '.join(sorted(known)) or 'none'}"
            )
        if attribute.type != known[attribute.name].type.value:
            raise InputError(
                f"{where}: attribute {attribute.name!r} has the wrong type, "
                f"expected {known[attribute.name].type.name}"
            )
    missing = {k for k, a in known.items() if a.required} - {a.name for a in node.attribute}
    if missing:
        raise InputError(f"{where} lacks the attribute {sorted(missing)[0]!r}")
