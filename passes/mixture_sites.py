"""Perceptrons and linear layers over tokens: where a mixture of experts can stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.passes.convshare import TokenProduct, token_product
from edgevit.passes.facts import Array, operand, single_use
from edgevit.passes.token_functions import ACTIVATIONS
from edgevit.views import graph

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["Layer", "Site", "sites"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer.

    Attributes:
        weight: float32 ``[d, m]``.
        bias: float32 ``[m]``; zeros where there is none.
    """

    weight: Array
    bias: Array


@dataclass(frozen=True, eq=False)
class Site:
    """One or two layers over the same tokens.

    Attributes:
        root: The node whose result is the site's.
        x: Tokens ``[.., d]``.
        layers: One, or two with an activation between.
        activation: Operator between two layers, else ``None``.
        tokens: Product of all axes of x but the last.
        alike: Sites of the model with the same layers and number of tokens, with this one.
    """

    root: ir.Node
    x: ir.Value
    layers: tuple[Layer, ...]
    activation: str | None
    tokens: int
    alike: int = 1

    @property
    def name(self) -> str:
        """Name of the result."""
        return str(self.root.outputs[0].name)

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for the sites of repeated blocks."""
        shapes = tuple(layer.weight.shape for layer in self.layers)
        return (self.activation, self.tokens, shapes)


def sites(model: ir.Model, kind: str) -> tuple[Site, ...]:
    """All sites, in order, each knowing how often it is repeated.

    Args:
        model: Canonical model.
        kind: ``mlp``: two layers with an activation between; ``linear``: single layers.
    """
    view = graph(model)
    found = [site for node in model.graph for site in _at(view, node, kind)]
    counts = Counter(site.signature for site in found)
    return tuple(
        Site(s.root, s.x, s.layers, s.activation, s.tokens, counts[s.signature]) for s in found
    )


def _at(view: nx.MultiDiGraph[ir.Node], node: ir.Node, kind: str) -> Iterator[Site]:
    first = _layer(view, node)
    if first is None:
        return
    product, layer, root = first
    if kind == "linear":
        yield Site(root, product.x, (layer,), None, product.tokens)
        return
    acted = _next(view, root)
    if acted is None or acted.op_type not in ACTIVATIONS:
        return
    if acted.op_type == "Gelu" and _approximate(acted):
        return
    following = _next(view, acted)
    second = None if following is None else _layer(view, following)
    if second is not None and second[0].x is acted.outputs[0]:
        layers = (layer, second[1])
        yield Site(second[2], product.x, layers, acted.op_type, product.tokens)


def _approximate(gelu: ir.Node) -> bool:
    found = gelu.attributes.get("approximate")
    return found is not None and found.as_string() != "none"


def _next(view: nx.MultiDiGraph[ir.Node], node: ir.Node) -> ir.Node | None:
    """The one node that reads a result, if nothing else does."""
    following = list(view.successors(node))
    return following[0] if len(following) == 1 and single_use(node.outputs[0]) else None


def _layer(
    view: nx.MultiDiGraph[ir.Node], node: ir.Node
) -> tuple[TokenProduct, Layer, ir.Node] | None:
    """What a product multiplies, the layer with its bias, and the layer's last node."""
    if node.op_type != "MatMul" or node.domain:
        return None
    product = token_product(node)
    if not isinstance(product, TokenProduct) or product.weight.dtype != np.float32:
        return None
    width = product.weight.shape[1]
    added = _next(view, node)
    if added is not None and added.op_type == "Add" and not added.domain:
        other = operand(added, 1 if added.inputs[0] is node.outputs[0] else 0)
        bias = constant(other)
        if bias is not None and bias.size in (1, width) and bias.shape[-1:] in ((width,), ()):
            full = np.broadcast_to(bias.reshape(-1), (width,)).astype(np.float32)
            return product, Layer(product.weight, full), added
    return product, Layer(product.weight, np.zeros(width, np.float32)), node
