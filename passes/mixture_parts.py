"""The nodes of a mixture: its router's scores, its experts' constants, the call."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgevit.edits import MixExperts
from edgevit.errors import InternalError
from edgevit.model import shape_of
from edgevit.passes.facts import Array, attr, operand, static
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.mixture_experts import multiplied
from edgevit.passes.mixture_sites import Site
from edgevit.passes.nodewise import substitute
from edgevit.passes.token_functions import ACTIVATIONS
from edgevit.rewrite import Builder
from edgevit.shift_codes import encode

__all__ = ["attention_ahead", "put"]


def attention_ahead(model: ir.Model, site: Site) -> ir.Node | None:
    """The last attention before a site, if it is of the site's tokens and one sample."""
    found = None
    for node in model.graph:
        if node is site.root:
            break
        if node.op_type == "Attention" and not node.domain:
            found = node
    shape = None if found is None else static(operand(found, 0))
    if shape is None or len(shape) != 4 or shape[0] != 1 or shape[2] != site.tokens:
        return None
    return found


def put(model: ir.Model, site: Site, edit: MixExperts, rule: str) -> None:
    """Replace the layers of a site by a mixture, in place."""
    out = site.root.outputs[0]
    op = Builder(rule, model.graph, site.name)
    score = _score(op, model, site, edit)
    name = "MixtureOfPrimitives" if site.activation is None else ACTIVATIONS[site.activation]
    width = {"capacity": edit.capacity, "inputs": site.layers[0].weight.shape[0]}
    if site.activation is not None:
        width["hidden"] = site.layers[1].weight.shape[0]
    y = op.op(
        name,
        [site.x, score, *_multiply(op, site, edit), *_shifts(op, edit)],
        {**width, "result": list(shape_of(out))},
        domain=DOMAIN,
        shape=out.shape,
        dtype=out.dtype,
    )
    ensure_function(model, name)
    substitute(model.graph, site.root, (y,), op.nodes)


def _multiply(op: Builder, site: Site, edit: MixExperts) -> list[ir.Value]:
    """Weight and bias of each layer of the multiplication expert."""
    found = []
    for layer in site.layers:
        if edit.narrow:
            codes, scale = multiplied(layer, edit.least)
            stored = [op.constant(codes), op.constant(scale)]
            kept = {"axis": 1, "block_size": 0, "output_dtype": 0}
            shape, dtype = layer.weight.shape, ir.DataType.FLOAT
            weight = op.op("DequantizeLinear", stored, kept, shape=shape, dtype=dtype)
        else:
            weight = op.constant(layer.weight)
        found += [weight, op.constant(layer.bias)]
    return found


def _shifts(op: Builder, edit: MixExperts) -> list[ir.Value]:
    """Codes, scale and bias of each layer of the shift expert."""
    held = [(edit.q, edit.scale, edit.bias)]
    if edit.q2 is not None and edit.scale2 is not None and edit.bias2 is not None:
        held.append((edit.q2, edit.scale2, edit.bias2))
    return [
        op.constant(array)
        for q, scale, bias in held
        for array in (encode(q, edit.terms).codes, scale, bias)
    ]


def _score(op: Builder, model: ir.Model, site: Site, edit: MixExperts) -> ir.Value:
    """One number a token; the tokens with the largest are multiplied."""
    x = site.x
    shape = (*shape_of(x)[:-1], 1)
    if edit.router == "norm":
        last = op.constant(np.array([len(shape) - 1], np.int64))
        fixed = {"keepdims": 1, "noop_with_empty_axes": 0}
        return op.op("ReduceL2", [x, last], fixed, shape=shape, dtype=x.dtype)
    if edit.router == "class-attention":
        node = attention_ahead(model, site)
        if node is None:
            raise InternalError(f"{edit.value!r}: no attention in front")
        return _looked_at(op, node)
    if edit.linear is None:
        raise InternalError(f"{edit.value!r}: the plan holds no router")
    if edit.router == "random":
        return op.constant(edit.linear)
    score = _weighted(op, x, edit.linear, shape)
    if edit.square is None:
        return score
    squares = op.op("Mul", [x, x], shape=x.shape, dtype=x.dtype)
    other = _weighted(op, squares, edit.square, shape)
    return op.op("Add", [score, other], shape=shape, dtype=x.dtype)


def _weighted(op: Builder, x: ir.Value, weight: Array, shape: tuple[int, ...]) -> ir.Value:
    held = op.constant(np.ascontiguousarray(weight[:, None]))
    return op.op("MatMul", [x, held], shape=shape, dtype=x.dtype)


def _looked_at(op: Builder, attention: ir.Node) -> ir.Value:
    """How much the first token looks at each, mean over heads ``[1, t]``."""
    q, k = operand(attention, 0), operand(attention, 1)
    b, h, t, d = shape_of(k)
    dtype = q.dtype
    ends = [op.constant(np.array([n], np.int64)) for n in (0, 1, 2, 1)]
    first = op.op("Slice", [q, *ends], shape=(b, h, 1, d), dtype=dtype)
    turned = op.op("Transpose", [k], {"perm": [0, 1, 3, 2]}, shape=(b, h, d, t), dtype=dtype)
    products = op.op("MatMul", [first, turned], shape=(b, h, 1, t), dtype=dtype)
    scale = op.constant(np.asarray(attr(attention, "scale", d**-0.5), np.float32))
    scaled = op.op("Mul", [products, scale], shape=(b, h, 1, t), dtype=dtype)
    weights = op.op("Softmax", [scaled], {"axis": 3}, shape=(b, h, 1, t), dtype=dtype)
    heads = op.constant(np.array([1, 2], np.int64))
    fixed = {"keepdims": 0, "noop_with_empty_axes": 0}
    return op.op("ReduceMean", [weights, heads], fixed, shape=(b, t), dtype=dtype)
