"""The smallest useful TFLite file, ``y = x * x``, written with the schema alone."""

from __future__ import annotations

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def _tensor(name: str, shape: tuple[int, ...]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = name, list(shape), schema.TensorType.FLOAT32
    tensor.buffer = 0
    return tensor


def square(shape: tuple[int, ...]) -> bytes:
    """A model of one multiplication.

    Args:
        shape: Of the float32 input ``x`` and output ``y``.
    """
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
    operator.builtinOptions = schema.MulOptionsT()
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MUL
    code.version = 1
    graph = schema.SubGraphT()
    graph.tensors = [_tensor("x", shape), _tensor("y", shape)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
