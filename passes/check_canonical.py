"""Say where a model is not in the canonical form of ``docs/canonical.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.facts import attr, given, ints, operand, rank, scalar, static
from edgevit.passes.normalize_slice import cuts_of
from edgevit.passes.order_operands import COMMUTATIVE

__all__ = ["OPERATORS", "check_canonical"]

_PLAIN = (
    "Abs Add And ArgMax Ceil Cos CumSum DepthToSpace DequantizeLinear Div Elu Equal Erf Exp "
    "Floor GatherElements GatherND Greater GreaterOrEqual LeakyRelu Less LessOrEqual Log "
    "MatMul Max Min Mish Mul Neg Not Or PRelu Pow QuantizeLinear Reciprocal Relu Resize Round "
    "ScatterND Sigmoid Sign Sin Softplus SpaceToDepth Sqrt Sub Tanh Tile TopK Where"
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"})
# Attributes that have to be written out.
_EXPLICIT = {
    "Conv": ("kernel_shape", "strides", "dilations", "pads", "group"),
    "ConvTranspose": (
        "kernel_shape", "strides", "dilations", "pads", "group", "output_padding"
    ),
    "MaxPool": ("kernel_shape", "strides", "pads", "ceil_mode"),
    "AveragePool": ("kernel_shape", "strides", "pads", "ceil_mode", "count_include_pad"),
    "LayerNormalization": ("axis", "epsilon"),
    "RMSNormalization": ("axis", "epsilon"),
    "InstanceNormalization": ("epsilon",),
    "GroupNormalization": ("epsilon", "num_groups"),
    "Attention": ("scale",),
    "Gelu": ("approximate",),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "Softmax": ("axis",),
    "Cast": ("to",),
    "Transpose": ("perm",),
    "Concat": ("axis",),
    "Split": ("axis",),
    "Gather": ("axis",),
    "Pad": ("mode",),
    **{f"Reduce{kind}": ("keepdims",) for kind in ("Mean", "Sum", "Max", "Min", "L2", "Prod")},
    "Reshape": (),
    "Slice": (),
    "Expand": (),
    "Clip": (),
    "Identity": (),
}  # fmt: skip
OPERATORS = frozenset(_PLAIN.split()) | frozenset(_EXPLICIT)
_OWN = "ai.edgevit"


def check_canonical(model: ir.Model) -> tuple[str, ...]:
    """List the violations of the canonical form, in graph order; empty if there are none."""
    found = [
        f"function {k[0]}::{k[1]} is not inlined" for k in model.functions if k[0] != _OWN
    ]
    for node in model.graph:
        where = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        site = f"{where} {node.outputs[0].name!r}"
        found += [f"{site}: {problem}" for problem in _node(model, node)]
    return tuple(found)


def _node(model: ir.Model, node: ir.Node) -> Iterator[str]:
    for out in node.outputs:
        if out.dtype is None or static(out) is None:
            yield f"output {out.name!r} has no dtype or no static shape"
            return
    if node.domain:
        if node.domain != _OWN or node.op_identifier() not in model.functions:
            yield "the domain is not canonical, or the function has no definition"
        return
    if node.op_type not in OPERATORS:
        yield "the operator is not in the canonical set"
        return
    for name in _EXPLICIT.get(node.op_type, ()):
        if name not in node.attributes:
            yield f"attribute {name!r} is not written out"
            return
    yield from _general(node)
    check = _CHECKS.get(node.op_type)
    if check is not None:
        yield from check(node)


def _general(node: ir.Node) -> Iterator[str]:
    axis = attr(node, "axis")
    if isinstance(axis, int) and axis < 0:
        yield f"axis {axis} is negative"
    if node.op_type in _BINARY and len(node.inputs) != 2:
        yield f"{len(node.inputs)} inputs, expected two"
    constants = [constant(v) is not None for v in node.inputs]
    if node.op_type in COMMUTATIVE and constants[:2] == [True, False]:
        yield "the constant operand is the first"
    kept = node.op_type in ("DequantizeLinear", "Identity")  # Identity: see its own check
    if not kept and constants and all(constants):
        yield "depends on constants only"


def _conv(node: ir.Node) -> Iterator[str]:
    if "auto_pad" in node.attributes:
        yield "auto_pad is present"
    if rank(operand(node, 0)) != 4:
        yield f"rank {rank(operand(node, 0))}, expected 4"
    bias = constant(given(node, 2))
    if bias is not None and not bias.any():
        yield "the bias is zero"
    producer = operand(node, 0).producer()
    if producer is not None and producer.op_type == "Pad" and _zero_spatial(producer):
        yield "a zero Pad in front is not folded in"


def _zero_spatial(pad: ir.Node) -> bool:
    pads = ints(given(pad, 1)) or (1,)
    half = len(pads) // 2
    zero = attr(pad, "mode") == "constant" and scalar(given(pad, 2)) == 0.0
    return zero and not any(pads[:2]) and not any(pads[half : half + 2])


def _pool(node: ir.Node) -> Iterator[str]:
    if "auto_pad" in node.attributes or attr(node, "ceil_mode") != 0:
        yield "auto_pad or ceil_mode is not resolved"
    if rank(operand(node, 0)) != 4 or len(node.outputs) != 1:
        yield "expected rank 4 and one output"
    if any(d != 1 for d in attr(node, "dilations", ())):
        yield "the kernel is dilated"


def _norm(node: ir.Node) -> Iterator[str]:
    size = rank(operand(node, 0)) or 0
    if attr(node, "axis", size - 1) != size - 1:
        yield "not over the last axis"
    affine = [constant(v) for v in node.inputs[1:]]
    wanted = 1 if node.op_type == "RMSNormalization" else 2
    if len(affine) != wanted or any(a is None or a.ndim != 1 for a in affine):
        yield f"expected {wanted} constant vectors behind the input"
    if len(node.outputs) != 1:
        yield "more than one output"


def _attention(node: ir.Node) -> Iterator[str]:
    if any(rank(operand(node, i)) != 4 for i in range(3)):
        yield "query, key and value are not all of rank 4"
    extra = ("is_causal", "softcap", "q_num_heads", "kv_num_heads", "qk_matmul_output_mode")
    if any(attr(node, name, 0) for name in extra):
        yield "a causal flag, softcap or packed heads are set"
    if len(node.outputs) != 1 or len(node.inputs) > 4:
        yield "past, or more than one output"


def _reshape(node: ir.Node) -> Iterator[str]:
    if ints(given(node, 1)) != static(node.outputs[0]):
        yield "the target is not the output shape, written out"
    if static(operand(node, 0)) == static(node.outputs[0]):
        yield "does not change the shape"
    producer = operand(node, 0).producer()
    if producer is not None and producer.op_type == "Reshape":
        yield "reads another Reshape"


def _transpose(node: ir.Node) -> Iterator[str]:
    perm = tuple(attr(node, "perm"))
    if perm == tuple(sorted(perm)):
        yield "does not permute anything"
    producer = operand(node, 0).producer()
    if producer is not None and producer.op_type == "Transpose":
        yield "reads another Transpose"


def _slice(node: ir.Node) -> Iterator[str]:
    bounds = [ints(given(node, i)) for i in range(1, 5)]
    if any(b is None for b in bounds):
        yield "bounds are not all constant"
        return
    shape = static(operand(node, 0)) or ()
    for start, end, axis, step in zip(*(b or () for b in bounds), strict=True):
        size = shape[axis]
        if axis < 0 or (step > 0 and not 0 <= start < end <= size):
            yield f"axis {axis}: [{start}, {end}) is not within [0, {size})"
    if not cuts_of(node):
        yield "takes everything"


def _split(node: ir.Node) -> Iterator[str]:
    axis = int(attr(node, "axis"))
    sizes = tuple((static(o) or ())[axis] for o in node.outputs)
    if "num_outputs" in node.attributes or ints(given(node, 1)) != sizes:
        yield "the sizes are not written out"


def _reduce(node: ir.Node) -> Iterator[str]:
    axes = ints(given(node, 1))
    if axes is None or tuple(sorted(axes)) != axes or min(axes, default=-1) < 0:
        yield f"axes {axes} are not constant, sorted and non-negative"


def _gather(node: ir.Node) -> Iterator[str]:
    indices = constant(given(node, 1))
    if indices is None:
        return
    flat = indices.reshape(-1)
    if np.array_equal(flat, flat[:1] + np.arange(flat.size)) or (flat < 0).any():
        yield "the indices are a range, or negative"


def _pad(node: ir.Node) -> Iterator[str]:
    pads, size = ints(given(node, 1)), rank(operand(node, 0)) or 0
    if pads is None or len(pads) != 2 * size or len(node.inputs) != 3:
        yield "pads are not of full rank, or the value is missing"


def _clip(node: ir.Node) -> Iterator[str]:
    bounds = [constant(given(node, i)) for i in (1, 2)]
    if any(b is None or b.ndim != 0 for b in bounds):
        yield "the bounds are not two constant numbers"


def _cast(node: ir.Node) -> Iterator[str]:
    if operand(node, 0).dtype == node.outputs[0].dtype:
        yield "does not change the dtype"


def _concat(node: ir.Node) -> Iterator[str]:
    if len(node.inputs) < 2:
        yield "joins fewer than two tensors"


def _resize(node: ir.Node) -> Iterator[str]:
    given_sizes = [constant(given(node, i)) is not None for i in (2, 3)]
    if given(node, 1) is not None or sum(given_sizes) != 1 or "axes" in node.attributes:
        yield "expected constant scales or sizes of all axes, and no roi"


def _expand(node: ir.Node) -> Iterator[str]:
    if ints(given(node, 1)) != static(node.outputs[0]):
        yield "the target is not the output shape, written out"


def _identity(node: ir.Node) -> Iterator[str]:
    """Allowed only where an output repeats an input, a constant or another output."""
    source = operand(node, 0)
    repeats = source.producer() is None or source.is_graph_output()
    if not (repeats and node.outputs[0].is_graph_output()):
        yield "is a no-op"


_CHECKS: dict[str, Callable[[ir.Node], Iterator[str]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LayerNormalization": _norm,
    "RMSNormalization": _norm,
    "Attention": _attention,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "Pad": _pad,
    "Clip": _clip,
    "Cast": _cast,
    "Concat": _concat,
    "Expand": _expand,
    "Resize": _resize,
    "Identity": _identity,
    **{name: _reduce for name in _EXPLICIT if name.startswith("Reduce")},
}
