"""Run a canonical graph in PyTorch, node by node, so that every value has gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.errors import Availability, UnsupportedModelError, probe_package
from edgevit.torchgraph import op_elementwise, op_layout, op_linear, op_reduce, op_resize
from edgevit.torchgraph.site import Operator, Site, Tensor, unsupported

__all__ = ["OPERATORS", "Interpreter", "interpreter", "probe"]

OPERATORS: dict[str, Operator] = {
    **op_elementwise.OPERATORS,
    **op_layout.OPERATORS,
    **op_linear.OPERATORS,
    **op_reduce.OPERATORS,
    **op_resize.OPERATORS,
}
# Kept as codes: a narrow float would be no torch dtype, and int4 is none.
_WHOLE = {"int4": "int8", "uint4": "uint8", "uint16": "int32", "uint32": "int64"}


def probe() -> Availability:
    """Whether torch is installed; it is not imported."""
    return probe_package("torch", "torch", "torch")


@dataclass(frozen=True, eq=False)
class Interpreter:
    """A canonical model with its constants as tensors.

    Attributes:
        model: The model.
        t: The torch module.
        dtype: Of all floats, ``float32`` or ``float64``.
    """

    model: ir.Model
    t: Any
    dtype: str

    def run(self, feeds: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
        """Every value of the graph on one sample, by name; float inputs require gradients.

        Args:
            feeds: Arrays of the graph inputs.
        """
        values: dict[ir.Value, Tensor] = {}
        for value in self.model.graph.inputs:
            tensor = self._tensor(feeds[str(value.name)])
            values[value] = tensor.requires_grad_() if tensor.is_floating_point() else tensor
        self.advance(self.model.graph, values, {})
        return {str(v.name): tensor for v, tensor in values.items()}

    def advance(
        self,
        nodes: Iterable[ir.Node],
        values: dict[ir.Value, Tensor],
        handed: Mapping[str, Any],
    ) -> None:
        """Add the results of nodes to ``values``, which holds what they read.

        Args:
            nodes: In order.
            values: Tensors by value; constants are added as they are met.
            handed: Attributes of the function call whose body this is, by name.
        """
        for node in nodes:
            inputs = [self._read(v, values) for v in node.inputs]
            attributes = _attributes(node, handed)
            function = self.model.functions.get(node.op_identifier())
            if function is not None:
                made = self._call(function, inputs, attributes)
            else:
                made = self._node(node, attributes, inputs)
            if any(v is not None and v.const_value is None for v in node.inputs):
                made = [_followed(tensor) for tensor in made]
            values.update(zip(node.outputs, made, strict=True))

    def _call(
        self, function: ir.Function, inputs: list[Tensor], attributes: Mapping[str, Any]
    ) -> list[Tensor]:
        values = dict(zip(function.inputs, inputs, strict=True))
        self.advance(function, values, attributes)
        return [values[v] for v in function.outputs]

    def _node(
        self, node: ir.Node, attributes: Mapping[str, Any], inputs: list[Tensor]
    ) -> list[Tensor]:
        if node.op_type == "Constant" and not node.domain:
            return [self._tensor(_stored(attributes))]
        operator = None if node.domain else OPERATORS.get(node.op_type)
        what = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        site = Site(what, str(node.outputs[0].name), attributes, len(node.outputs))
        if operator is None:
            raise unsupported(site, "the operator")
        made = operator(self.t, site, inputs)
        return list(made) if isinstance(made, (list, tuple)) else [made]

    def _read(self, value: ir.Value | None, values: dict[ir.Value, Tensor]) -> Tensor:
        if value is None:
            return None
        if value not in values:
            if value.const_value is None:
                raise KeyError(value.name)
            values[value] = self._tensor(value.const_value.numpy())
        return values[value]

    def _tensor(self, array: np.ndarray[Any, Any]) -> Tensor:
        name = array.dtype.name
        if array.dtype.kind == "f" or name == "bfloat16":
            return self.t.tensor(array.astype(self.dtype))
        return self.t.tensor(array.astype(_WHOLE.get(name, array.dtype)))


def _followed(tensor: Tensor) -> Tensor:
    """A float that comes of integers alone (an image of bytes, tokens) has gradients too."""
    follows = tensor.is_floating_point() and not tensor.requires_grad
    return tensor.requires_grad_() if follows else tensor


def interpreter(model: ir.Model, dtype: str = "float32") -> Interpreter:
    """An interpreter of a canonical model.

    Raises:
        BackendMissingError: torch is not installed.
    """
    probe().require()
    import torch

    return Interpreter(model, torch, dtype)


def _attributes(node: ir.Node, handed: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        if isinstance(attribute, ir.Attr) and attribute.is_ref():
            value = handed.get(str(attribute.ref_attr_name))
        else:
            value = attribute.value
        if value is not None:
            found[name] = value
    return found


def _stored(attributes: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """The array of a ``Constant`` in a function's body."""
    for name, value in attributes.items():
        if name == "value":
            return np.asarray(value.numpy())
        dtype = np.float32 if "float" in name else np.int64
        return np.asarray(value, dtype)
    raise UnsupportedModelError("a Constant without a value")
