"""Latency and energy of a graph on a device, estimated: a roofline by class of operator.

Williams, Waterman and Patterson, "Roofline" (CACM 2009): an operator takes as long as its
arithmetic at the rate that its class sustains, or as long as its bytes take through memory,
whichever is more; to that comes the time to dispatch it, and once the time to start the
program. The figures come from the device file, each with its source; nothing is measured
here, and every estimate says that it is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from edgevit.cost import node_cost
from edgevit.model import shape_of
from edgevit.target import Figure, Target

__all__ = ["Estimate", "Estimates", "Load", "estimate", "faster", "latency_ms", "loads"]

_POINTWISE = frozenset(
    {"Abs", "Add", "Ceil", "Clip", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu"}
    | {"HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Mish", "Mul", "Neg", "PRelu", "Pow"}
    | {"Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Silu", "Softplus", "Sqrt", "Sub"}
    | {"Tanh"}
)
# Needed for a latency; `power` adds an energy; `compute_X` and `bandwidth_X` are
# factors of chip X.
NEEDED = ("conv", "depthwise", "matmul", "memory", "layout", "dispatch", "program", "spread")
_UNITS = {
    "conv": "GFLOP/s",
    "depthwise": "GFLOP/s",
    "matmul": "GFLOP/s",
    "memory": "GB/s",
    "layout": "GB/s",
    "dispatch": "us",
    "program": "us",
    "spread": "1",
    "power": "W",
}
_BYTES = {"fp32": 1.0, "fp16": 0.5}


@dataclass(frozen=True)
class Load:
    """What one operator asks of a device.

    Attributes:
        kind: ``conv``, ``depthwise``, ``matmul``, ``memory`` (element by element, norms,
            softmax, reductions) or ``layout`` (moves data and computes nothing).
        flops: Two for each multiply-accumulate.
        nbytes: Activations read and written, and weights read, in float32.
    """

    kind: str
    flops: int
    nbytes: int


@dataclass(frozen=True)
class Estimate:
    """A range: the true value lies in it about nine times of ten, by the device's figures."""

    low: float
    mid: float
    high: float

    def to_json(self, confidence: str) -> dict[str, Any]:
        """Three significant digits, and the word that says what this is."""
        digits = {k: float(f"{v:.3g}") for k, v in vars(self).items()}
        return {**digits, "estimate": True, "confidence": confidence}


@dataclass(frozen=True)
class Estimates:
    """Latency in milliseconds, energy in millijoules; ``None`` without figures.

    Attributes:
        latency: Of one run at the graph's batch size.
        energy: Latency times the unit's power.
        confidence: The lowest among the figures used.
    """

    latency: Estimate | None
    energy: Estimate | None
    confidence: str

    def to_json(self) -> dict[str, Any]:
        """The keys ``latency_ms`` and ``energy_mj`` of a report's ``cost``."""
        both = {"latency_ms": self.latency, "energy_mj": self.energy}
        return {k: None if e is None else e.to_json(self.confidence) for k, e in both.items()}


def loads(model: ir.Model) -> tuple[Load, ...]:
    """What every operator that is dispatched asks for.

    Element-wise operators of one activation ride on the convolution, the product or the
    element-wise operator before them, and reshapes cost nothing, as on every device here.

    Raises:
        ValueError: A shape is not static.
    """
    return tuple(_load(node) for node in model.graph if not _is_free(node))


def _is_free(node: ir.Node) -> bool:
    if node.op_type in ("Reshape", "Identity", "Expand"):
        return True
    given = [v for v in node.inputs if v is not None and v.const_value is None]
    if node.op_type not in _POINTWISE or len(given) != 1:
        return False
    producer = given[0].producer()
    if producer is None or len(given[0].uses()) > 1:
        return False
    return producer.op_type in _POINTWISE or node_cost(producer).macs > 0


def _load(node: ir.Node) -> Load:
    cost = node_cost(node)
    return Load(_kind(node, cost.macs), 2 * cost.macs, cost.moved_bytes + cost.weight_bytes)


def _kind(node: ir.Node, macs: int) -> str:
    if node.op_type in ("Conv", "ConvTranspose") and node.inputs[1] is not None:
        channels = shape_of(node.inputs[1])[1]
        return "depthwise" if channels == 1 and _groups(node) > 1 else "conv"
    if macs:
        return "matmul"
    return "memory" if node_cost(node).elements else "layout"


def _groups(node: ir.Node) -> int:
    return int(node.attributes.get_int("group", 1) or 1)


def faster(figures: Mapping[str, float], compute: float, bandwidth: float) -> dict[str, float]:
    """The figures of another chip of the same kind; dispatching stays what it is."""
    factor = dict.fromkeys(("conv", "depthwise", "matmul"), compute)
    factor |= dict.fromkeys(("memory", "layout"), bandwidth)
    return {name: value * factor.get(name, 1.0) for name, value in figures.items()}


def latency_ms(
    found: Iterable[Load], figures: Mapping[str, float], bytes_factor: float
) -> float:
    """The roofline's sum in milliseconds.

    Args:
        found: What the operators ask for.
        figures: The names of ``NEEDED``; GFLOP/s, GB/s and microseconds.
        bytes_factor: Bytes of the device's numbers for each byte of float32.
    """
    micros = figures["program"]
    for load in found:
        through = figures["layout" if load.kind == "layout" else "memory"]
        move = load.nbytes * bytes_factor / through / 1e3  # bytes / (GB/s) = ns
        work = load.flops / figures[load.kind] / 1e3 if load.flops else 0.0
        micros += max(move, work) + figures["dispatch"]
    return micros / 1e3


def estimate(model: ir.Model, target: Target, precision: str) -> Estimates:
    """Estimate a canonical graph on a target.

    The figures of a device file hold for its default precision; at any other, and where
    figures are missing, there is no estimate.

    Raises:
        ValueError: A figure has another unit than the model of this module expects, or a
            shape is not static.
    """
    known = target.figures
    if precision != target.default_precision or precision not in _BYTES:
        return Estimates(None, None, "none")
    if any(name not in known for name in NEEDED):
        return Estimates(None, None, "none")
    chip = target.options.get("chip")
    factors = [known[f"{kind}_{chip}"] for kind in ("compute", "bandwidth")] if chip else []
    used = [known[n] for n in NEEDED] + factors
    figures = {n: _value(n, known[n]) for n in NEEDED}
    if chip:
        figures = faster(figures, *(f.value for f in factors))
    mid = latency_ms(loads(model), figures, _BYTES[precision])
    latency = _ranged(mid, figures["spread"])
    energy = None
    if "power" in known:
        energy = _ranged(mid * _value("power", known["power"]), figures["spread"])
        used.append(known["power"])
    order = ("measured", "published", "estimated")
    return Estimates(latency, energy, max((f.confidence for f in used), key=order.index))


def _value(name: str, figure: Figure) -> float:
    if figure.unit != _UNITS[name]:
        raise ValueError(f"figure {name!r}: expected {_UNITS[name]}, found {figure.unit}")
    if not math.isfinite(figure.value) or figure.value <= 0:
        raise ValueError(f"figure {name!r}: expected a positive number, found {figure.value}")
    return figure.value


def _ranged(mid: float, spread: float) -> Estimate:
    return Estimate(mid / spread, mid, mid * spread)
