"""Turn a trained network into one of shifts and additions, to be fine-tuned.

float  ->  shift    every linear layer and convolution gets power-of-two weights
shift  ->  mixture  attention gets 0/1 codes, perceptrons two experts and a router
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, get_args

from torch import nn

from examples.shiftadd_training.mixture import Mixture
from examples.shiftadd_training.primitives import BinaryAttention, ShiftConv2d, ShiftLinear

__all__ = ["LATENCIES", "STAGES", "Stage", "converted", "mixtures", "of_stage"]

Stage = Literal["float", "control", "shift", "mixture"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# Multiplication, shift: the released code's 6 to 4, so that 40 % of the tokens multiply.
LATENCIES = (6.0, 4.0)
Replace = Callable[[nn.Module], nn.Module | None]


def replaced(module: nn.Module, replace: Replace) -> None:
    """Put ``replace(child)`` in the place of each descendant for which it is not ``None``."""
    for name, child in module.named_children():
        made = replace(child)
        if made is None:
            replaced(child, replace)
        else:
            setattr(module, name, made)


def shifted(module: nn.Module) -> nn.Module | None:
    """A layer with power-of-two weights, of a layer that has weights."""
    if type(module) is nn.Linear:
        return ShiftLinear.of(module)
    if type(module) is nn.Conv2d:
        return ShiftConv2d.of(module)
    return None


def _binary(module: nn.Module) -> nn.Module | None:
    """Binary attention, of an attention of the fixtures or of timm's pvt_v2."""
    # Both have heads and a last layer ``proj``; the reduced keys of pvt_v2 (``sr``, ``norm``)
    # serve the softmax's cost, which linear attention does not have: they go.
    kind = type(module).__name__
    if kind != "Attention" or not hasattr(module, "proj"):
        return None
    held: Any = module
    if hasattr(held, "qkv"):
        return BinaryAttention(held.heads, {"qkv": held.qkv}, held.proj)
    return BinaryAttention(held.num_heads, {"q": held.q, "kv": held.kv}, held.proj)


def _mixed(latencies: tuple[float, float]) -> Replace:
    """Two experts of the same weights, of a perceptron or (pvt_v2) of each of its layers."""

    def of(shift: nn.Module, dim: int) -> Mixture:
        multiply = copy.deepcopy(shift)
        replaced(multiply, _plain)
        plain = _plain(multiply)
        return Mixture(multiply if plain is None else plain, shift, dim, latencies)

    def replace(module: nn.Module) -> nn.Module | None:
        if _is_perceptron(module):
            return of(module, module[0].in_features)
        if type(module).__name__ == "MlpWithDepthwiseConv":
            held: Any = module
            held.fc1, held.fc2 = (of(fc, fc.in_features) for fc in (held.fc1, held.fc2))
            return held
        return None

    return replace


def _is_perceptron(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential) or len(module) != 3:
        return False
    return all(isinstance(module[i], nn.Linear) for i in (0, 2))


def _plain(module: nn.Module) -> nn.Module | None:
    """A linear layer with weights of its own, of a shift layer."""
    if not isinstance(module, ShiftLinear):
        return None
    made = nn.Linear(module.in_features, module.out_features, module.bias is not None)
    made.load_state_dict(module.state_dict())
    return made


def mixtures(network: nn.Module) -> list[Mixture]:
    """All mixtures of a network, in order."""
    return [m for m in network.modules() if isinstance(m, Mixture)]


def converted(
    network: nn.Module, stage: Stage, latencies: tuple[float, float] = LATENCIES
) -> nn.Module:
    """The network of the next stage, weights kept; changed in place.

    Args:
        network: Of the stage before.
        stage: ``mixture`` needs one of stage ``shift``, the others one of ``float``.
        latencies: Of the experts.
    """
    if stage == "shift":
        replaced(network, shifted)
    if stage == "mixture":
        replaced(network, _mixed(latencies))
        replaced(network, _binary)
        # The convolution of the new attention is no exception.
        for module in network.modules():
            if isinstance(module, BinaryAttention) and type(module.conv) is nn.Conv2d:
                module.conv = ShiftConv2d.of(module.conv)
    return network


def of_stage(
    make: Callable[[], nn.Module],
    stage: Stage,
    latencies: tuple[float, float] = LATENCIES,
) -> nn.Module:
    """An untrained network in the form of a stage, to load weights into."""
    network = make()
    for step in ("shift", "mixture"):
        if stage == step or stage == "mixture":
            network = converted(network, step, latencies)
    return network
