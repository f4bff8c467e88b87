"""What a network's layers would cost on the accelerator model, way by way of multiplying.

A model, not a measurement (``edgevit.accelerator``). Rows come in pairs that tell apart what
is often sold as one: shifts instead of multiplications at equal traffic, and fewer bits moved
with the same multiplications. Layers with constant weights are counted: products and
convolutions; attention and what is element by element is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edgevit.accelerator import PICOJOULES, Energy, Layer, Words, energy, product_energy
from edgevit.model import constant, shape_of

__all__ = ["ROWS", "Account", "Site", "accounts", "sites", "text_of_accounts"]

_ACTIVATIONS = 8
_RELEASED = (16 + 5) // 2


@dataclass(frozen=True)
class Site:
    """A layer with constant weights.

    Attributes:
        name: Of its first output.
        op: Operator.
        rows: Rows of a product; pixels of a convolution.
        depth: Input channels of a group, or K.
        columns: Output channels of a group, or N.
        image: Output rows and columns, of a convolution.
        kernel: Rows and columns of the window.
        stride: Input pixels between windows.
        groups: How often all of it is done: groups times images.
        terms: Powers of two a weight, 0 if it is no shift layer.
        bits: Of a stored term.
    """

    name: str
    op: str
    rows: int
    depth: int
    columns: int
    image: tuple[int, int] | None = None
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    terms: int = 0
    bits: int = 4

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.rows * self.depth * self.columns * self.kernel**2 * self.groups


@dataclass(frozen=True)
class Account:
    """One row: a way to compute every site.

    Attributes:
        name: Of the way.
        energy: Sum over the sites that fit the array.
    """

    name: str
    energy: Energy


def _shift(terms: int) -> float:
    """Picojoules of so many shifts of bytes, and the additions between them."""
    return terms * PICOJOULES["shift", 8] + (terms - 1) * PICOJOULES["add", 8]


# Name -> words of a site; sites that are no shift layers count as one term.
ROWS: Mapping[str, Callable[[Site], Words]] = {
    "float32": lambda s: Words(PICOJOULES["multiply", 32], 32, 32),
    "shifts, released accounting": lambda s: Words(
        max(s.terms, 1) * PICOJOULES["shift", 32], _RELEASED, _RELEASED
    ),
    "shifts, float32's traffic": lambda s: Words(
        max(s.terms, 1) * PICOJOULES["shift", 32], 32, 32
    ),
    "float16": lambda s: Words(PICOJOULES["multiply", 16], 16, 16),
    "int8": lambda s: Words(PICOJOULES["multiply", 8], _ACTIVATIONS, 8),
    "shifts, int8's traffic": lambda s: Words(_shift(max(s.terms, 1)), _ACTIVATIONS, 8),
    "shifts, packed codes": lambda s: Words(
        _shift(max(s.terms, 1)), _ACTIVATIONS, s.bits * max(s.terms, 1)
    ),
    "integers of as many bits": lambda s: Words(
        PICOJOULES["multiply", 8], _ACTIVATIONS, s.bits * max(s.terms, 1)
    ),
}


def sites(model: ir.Model) -> tuple[Site, ...]:
    """Every layer with constant weights, in execution order."""
    found = (_site(node) for node in model.graph)
    return tuple(s for s in found if s is not None)


def _site(node: ir.Node) -> Site | None:
    kind = node.op_type.removeprefix("Wide")
    if kind == "ShiftLinear":
        return _linear(node, shape_of(_input(node, 1))[-1])
    if kind == "ShiftConv":
        return _conv(node, tuple(node.attributes["weight_shape"].as_ints()))
    if node.op_type not in ("MatMul", "Conv"):
        return None
    weight = node.inputs[1]
    if weight is None or not _stored(weight):
        return None
    shape = shape_of(weight)
    if node.op_type == "Conv":
        return _conv(node, shape) if len(shape) == 4 else None
    return _linear(node, shape[-1]) if len(shape) == 2 else None


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"node {node.name!r} has no input {index}")
    return value


def _stored(value: ir.Value) -> bool:
    """Whether a value is constant, or constant codes with a DequantizeLinear."""
    if value.const_value is not None:
        return True
    maker = value.producer()
    codes = None if maker is None or not maker.inputs else maker.inputs[0]
    dequantized = maker is not None and maker.op_type == "DequantizeLinear"
    return dequantized and codes is not None and codes.const_value is not None


def _terms(node: ir.Node) -> tuple[int, int]:
    """Terms of a weight and bits of each; (0, 4) of other layers."""
    if "Shift" not in node.op_type:
        return 0, 4
    codes = constant(_input(node, 1))
    return (0 if codes is None else len(codes)), 5 if node.op_type.startswith("Wide") else 4


def _linear(node: ir.Node, columns: int) -> Site:
    *lead, depth = shape_of(_input(node, 0))
    terms, bits = _terms(node)
    name, rows = node.outputs[0].name or "", math.prod(lead)
    return Site(name, node.op_type, rows, depth, columns, terms=terms, bits=bits)


def _conv(node: ir.Node, weight: tuple[int, ...]) -> Site:
    out, (m, per, kernel, _) = shape_of(node.outputs[0]), weight
    channels = shape_of(_input(node, 0))[1]
    groups, (terms, bits) = channels // per, _terms(node)
    strides = node.attributes.get("strides")
    stride = 1 if strides is None else int(strides.as_ints()[0])
    return Site(
        node.outputs[0].name or "",
        node.op_type,
        out[2] * out[3],
        per,
        m // groups,
        (out[2], out[3]),
        kernel,
        stride,
        groups * out[0],
        terms,
        bits,
    )


def _energy(site: Site, words: Words) -> Energy:
    if site.image is None or site.kernel == 1:
        one = product_energy(site.rows, site.depth, site.columns, words)
    else:
        high, wide = site.image
        layer = Layer(site.depth, site.columns, high, wide, site.kernel, site.stride)
        one = energy(layer, words)
    return Energy(site.groups * one.arithmetic, site.groups * one.traffic)


def accounts(found: Sequence[Site]) -> tuple[tuple[Account, ...], tuple[Site, ...]]:
    """A row a way of ``ROWS``, and the sites of which no tiling fits the array."""
    fitting, left = [], []
    for site in found:
        try:
            _energy(site, ROWS["float32"](site))
        except ValueError:
            left.append(site)
        else:
            fitting.append(site)
    rows = []
    for name, words in ROWS.items():
        parts = (_energy(site, words(site)) for site in fitting)
        rows.append(Account(name, sum(parts, Energy(0.0, 0.0))))
    return tuple(rows), tuple(left)


def _number(energy: float, whole: float) -> str:
    """Tenths, or three digits where the whole is so small that tenths say nothing."""
    return f"{energy:.1f}" if whole >= 100 else f"{energy:.3g}"


def text_of_accounts(found: Sequence[Site]) -> list[str]:
    """The rows as lines; the first names what is counted."""
    rows, left = accounts(found)
    whole = rows[0].energy.total or 1.0
    lines = [
        f"modelled energy of {len(found) - len(left)} layers, microjoules a run "
        "(arithmetic + traffic): the accelerator and constants of ShiftAddViT's release, "
        "45 nm; not a measurement"
    ]
    for r in rows:
        parts = (r.energy.arithmetic, r.energy.traffic, r.energy.total)
        arithmetic, traffic, total = (_number(part, whole) for part in parts)
        saved = 100 * (1 - r.energy.total / whole)
        lines.append(f"{r.name}: {arithmetic} + {traffic} = {total} ({saved:+.1f} % saved)")
    if left:
        lines.append(f"{len(left)} layers fit the modelled array in no tiling: not counted")
    return lines
