"""A fingerprint of a graph that does not depend on names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["digest", "value_digests"]

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal"})


def digest(model: ir.Model, weights: bool = True) -> str:
    """Sha256 (hex) of topology, attributes, dtypes, shapes and tensor bytes of a model.

    Args:
        model: The model.
        weights: Whether the numbers in floating-point constants of rank one and more count;
            exporters that fold a normalization round them differently.

    Two models with equal digests compute the same by the same operators. Names, doc strings,
    metadata, node order and the order of operands of commutative operators do not count;
    how often a node occurs does.
    """
    hashes = value_digests(model.graph, weights)
    nodes = sorted(hashes[n.outputs[0]] for n in model.graph)
    outputs = [hashes[v] for v in model.graph.outputs]
    functions = [_function(model.functions[key]) for key in sorted(model.functions)]
    return _sha(b"model", *outputs, b"nodes", *nodes, b"functions", *functions).hex()


def value_digests(
    graph: ir.Graph | ir.Function, weights: bool = True
) -> dict[ir.Value, bytes]:
    """Digest of each value: equal for values that are computed in the same way."""
    hashes: dict[ir.Value, bytes] = {}
    for index, value in enumerate(graph.inputs):
        hashes[value] = _sha(b"input", str(index).encode(), _kind(value))
    if isinstance(graph, ir.Graph):
        for value in graph.initializers.values():
            hashes[value] = _sha(b"constant", _kind(value), _data(value, weights))
    for node in graph:
        base = _node(node, hashes)
        for index, out in enumerate(node.outputs):
            hashes[out] = _sha(base, str(index).encode(), _kind(out))
    return hashes


def _data(value: ir.Value, weights: bool) -> bytes:
    tensor = value.const_value
    if tensor is None or (not weights and tensor.dtype.is_floating_point() and tensor.shape):
        return b""
    return tensor.tobytes()


def _sha(*parts: bytes) -> bytes:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))  # so that parts cannot run together
        sha.update(part)
    return sha.digest()


def _kind(value: ir.Value) -> bytes:
    shape = None if value.shape is None else [str(d) for d in value.shape.dims]
    return f"{value.dtype} {shape}".encode()


def _node(node: ir.Node, hashes: dict[ir.Value, bytes]) -> bytes:
    inputs: Iterable[bytes] = [b"" if v is None else hashes[v] for v in node.inputs]
    if node.domain == "" and node.op_type in _COMMUTATIVE:
        inputs = sorted(inputs)
    attributes = [_attribute(a) for _, a in sorted(node.attributes.items())]
    head = f"{node.domain}:{node.op_type}:{node.overload}".encode()
    return _sha(b"node", head, *inputs, b"attributes", *attributes)


def _attribute(attribute: ir.Attr) -> bytes:
    value = attribute.value
    head = f"{attribute.name} {attribute.type} {attribute.ref_attr_name}".encode()
    if isinstance(value, ir.TensorProtocol):
        shape = f"{value.dtype} {tuple(value.shape)}".encode()
        return _sha(head, shape, value.tobytes())
    if isinstance(value, ir.Graph):
        hashes = value_digests(value)
        return _sha(head, *(hashes[v] for v in value.outputs))
    text = repr(tuple(value)) if isinstance(value, list | tuple) else repr(value)
    return _sha(head, text.encode())


def _function(function: ir.Function) -> bytes:
    hashes = value_digests(function)
    name = "::".join(function.identifier()).encode()
    return _sha(name, *(hashes[v] for v in function.outputs))
