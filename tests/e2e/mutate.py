"""Seeded damage to model files, from flipped bytes to contradictory graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

__all__ = ["MUTATIONS", "mutate"]

Rng = np.random.Generator
_NUMBERS = (-1, 0, 1, 2, 3, 7, -2, 1 << 20, (1 << 31) - 1, -(1 << 31), 1 << 40, -(1 << 62))
_OPERATORS = ("Relu", "Concat", "MatMul", "Reshape", "Split", "If", "Nonsense", "Tile", "Pad")


def mutate(content: bytes, rng: Rng) -> tuple[str, bytes]:
    """Damage a model file in one or two ways; returns their names and the bytes."""
    names = []
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(sorted(MUTATIONS)))
        try:
            content = MUTATIONS[name](content, rng)
        except (DecodeError, ValueError, TypeError):
            continue  # cannot be applied to what an earlier mutation left
        names.append(name)
    return "+".join(names), content


def _flip(content: bytes, rng: Rng) -> bytes:
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        data[int(rng.integers(len(data)))] ^= int(rng.integers(1, 256))
    return bytes(data)


def _flip_head(content: bytes, rng: Rng) -> bytes:
    """Flip a bit where the graph is, not the weights."""
    at = content.find(b"Conv") if rng.random() < 0.5 else int(rng.integers(64))
    data = bytearray(content)
    index = min(max(at + int(rng.integers(-40, 400)), 0), len(data) - 1)
    data[index] ^= int(rng.integers(1, 256))
    return bytes(data)


def _truncate(content: bytes, rng: Rng) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _splice(content: bytes, rng: Rng) -> bytes:
    a, b = sorted(int(x) for x in rng.integers(len(content), size=2))
    size = int(rng.integers(1, 300))
    return content[:a] + content[b : b + size] + content[a + int(rng.integers(2)) * size :]


def _on_graph(
    change: Callable[[onnx.GraphProto, Rng], None],
) -> Callable[[bytes, Rng], bytes]:
    def apply(content: bytes, rng: Rng) -> bytes:
        model = onnx.ModelProto.FromString(content)
        if not model.graph.node or not model.graph.initializer or not model.graph.input:
            raise ValueError("nothing left to damage")
        change(model.graph, rng)
        return bytes(model.SerializeToString())

    return apply


def _node(graph: onnx.GraphProto, rng: Rng) -> onnx.NodeProto:
    return graph.node[int(rng.integers(len(graph.node)))]


def _number(rng: Rng) -> int:
    return int(_NUMBERS[int(rng.integers(len(_NUMBERS)))])


def _tensor(graph: onnx.GraphProto, rng: Rng) -> onnx.TensorProto:
    inner = [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
    every = [*graph.initializer, *inner]
    return every[int(rng.integers(len(every)))]


def _dims(graph: onnx.GraphProto, rng: Rng) -> None:
    tensor = _tensor(graph, rng)
    if tensor.dims and rng.random() < 0.8:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _number(rng)
    else:
        tensor.dims.append(_number(rng))


def _data_type(graph: onnx.GraphProto, rng: Rng) -> None:
    _tensor(graph, rng).data_type = int(rng.integers(0, 40))


def _raw_data(graph: onnx.GraphProto, rng: Rng) -> None:
    tensor = _tensor(graph, rng)
    tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]


def _integers(graph: onnx.GraphProto, rng: Rng) -> None:
    """Change a number in a shape, an axis or a pad held as a constant."""
    inner = [a.t for n in graph.node for a in n.attribute if a.HasField("t")]
    found = [t for t in (*graph.initializer, *inner) if t.data_type == onnx.TensorProto.INT64]
    if not found:
        raise ValueError("no integers")
    tensor = found[int(rng.integers(len(found)))]
    values = np.array(onnx.numpy_helper.to_array(tensor)).reshape(-1)
    if not values.size:
        raise ValueError("empty")
    values[int(rng.integers(values.size))] = _number(rng)
    tensor.ClearField("int64_data")
    tensor.raw_data = values.tobytes()


def _delete_node(graph: onnx.GraphProto, rng: Rng) -> None:
    del graph.node[int(rng.integers(len(graph.node)))]


def _delete_initializer(graph: onnx.GraphProto, rng: Rng) -> None:
    del graph.initializer[int(rng.integers(len(graph.initializer)))]


def _rename(graph: onnx.GraphProto, rng: Rng) -> None:
    value = rng.choice(["input", "initializer", "output"])
    if value == "initializer":
        _tensor(graph, rng).name = "renamed"
    else:
        getattr(graph, str(value))[0].name = "renamed"


def _rewire(graph: onnx.GraphProto, rng: Rng) -> None:
    """Read some other value: earlier, later (a cycle), of another shape, or itself."""
    node, other = _node(graph, rng), _node(graph, rng)
    if not node.input or not other.output:
        raise ValueError("nothing to rewire")
    node.input[int(rng.integers(len(node.input)))] = other.output[0]


def _swap_inputs(graph: onnx.GraphProto, rng: Rng) -> None:
    node = _node(graph, rng)
    names = [str(n) for n in rng.permutation(list(node.input))]
    del node.input[:]
    node.input.extend(names)


def _arity(graph: onnx.GraphProto, rng: Rng) -> None:
    node = _node(graph, rng)
    names = node.input if rng.random() < 0.7 else node.output
    if names and rng.random() < 0.4:
        del names[-1]
    elif names and rng.random() < 0.3:
        names[int(rng.integers(len(names)))] = ""
    else:
        names.append(graph.input[0].name if names is node.input else "extra")


def _attribute_value(graph: onnx.GraphProto, rng: Rng) -> None:
    found = [a for n in graph.node for a in n.attribute if a.ints or a.HasField("i")]
    if not found:
        raise ValueError("no attribute")
    attribute = found[int(rng.integers(len(found)))]
    if not attribute.ints:
        attribute.i = _number(rng)
    elif rng.random() < 0.7:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _number(rng)
    elif rng.random() < 0.5:
        attribute.ints.append(_number(rng))
    else:
        del attribute.ints[:]


def _attribute_kind(graph: onnx.GraphProto, rng: Rng) -> None:
    found = [a for n in graph.node for a in n.attribute]
    attribute = found[int(rng.integers(len(found)))]
    choice = int(rng.integers(5))
    if choice == 0:
        attribute.type = int(rng.choice(onnx.AttributeProto.AttributeType.values()))
    elif choice == 1:
        attribute.name = str(rng.choice(["axis", "perm", "group", "odd"]))
    elif choice == 2:
        attribute.ref_attr_name = "alpha"
    elif choice == 3:
        attribute.f = float(rng.choice([np.nan, np.inf, -1.0, 0.0, 1e38]))
    else:
        attribute.s = b"\xff\xfe"


def _operator(graph: onnx.GraphProto, rng: Rng) -> None:
    node = _node(graph, rng)
    if rng.random() < 0.3:
        node.domain = str(rng.choice(["com.example", "ai.edgevit", "ai.onnx.ml"]))
    else:
        node.op_type = str(rng.choice(_OPERATORS))


def _repeat_output(graph: onnx.GraphProto, rng: Rng) -> None:
    _node(graph, rng).output[0] = _node(graph, rng).output[0]


def _input_type(graph: onnx.GraphProto, rng: Rng) -> None:
    kind = graph.input[0].type.tensor_type
    choice = int(rng.integers(3))
    if choice == 0:
        kind.elem_type = int(rng.integers(0, 30))
    elif choice == 1 and kind.shape.dim:
        kind.shape.dim[int(rng.integers(len(kind.shape.dim)))].dim_value = _number(rng)
    else:
        kind.shape.dim.add().dim_value = _number(rng)


def _poison(graph: onnx.GraphProto, rng: Rng) -> None:
    """Write NaN, infinity or a huge number into a weight."""
    found = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    tensor = found[int(rng.integers(len(found)))]
    values = np.array(onnx.numpy_helper.to_array(tensor))
    values.reshape(-1)[int(rng.integers(values.size))] = rng.choice([np.nan, np.inf, 3e38])
    tensor.ClearField("float_data")
    tensor.raw_data = values.tobytes()


def _output_shape(graph: onnx.GraphProto, rng: Rng) -> None:
    graph.output[0].type.tensor_type.elem_type = int(rng.integers(0, 20))


def _opset(content: bytes, rng: Rng) -> bytes:
    model = onnx.ModelProto.FromString(content)
    if not model.opset_import:
        raise ValueError("no opset")
    model.opset_import[0].version = int(rng.choice([-1, 0, 7, 11, 12, 13, 17, 22, 28, 99]))
    return bytes(model.SerializeToString())


MUTATIONS: dict[str, Callable[[bytes, Rng], bytes]] = {
    "flip": _flip,
    "flip-head": _flip_head,
    "truncate": _truncate,
    "splice": _splice,
    "opset": _opset,
    "dims": _on_graph(_dims),
    "data-type": _on_graph(_data_type),
    "raw-data": _on_graph(_raw_data),
    "integers": _on_graph(_integers),
    "delete-node": _on_graph(_delete_node),
    "delete-initializer": _on_graph(_delete_initializer),
    "rename": _on_graph(_rename),
    "rewire": _on_graph(_rewire),
    "swap-inputs": _on_graph(_swap_inputs),
    "arity": _on_graph(_arity),
    "attribute-value": _on_graph(_attribute_value),
    "attribute-kind": _on_graph(_attribute_kind),
    "operator": _on_graph(_operator),
    "repeat-output": _on_graph(_repeat_output),
    "input-type": _on_graph(_input_type),
    "output-type": _on_graph(_output_shape),
    "poison": _on_graph(_poison),
}
