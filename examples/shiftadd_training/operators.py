"""Trained layers as they are exported: one call of an ``ai.edgevit`` function each.

torch's exporter writes ``symbolic`` where a module calls ``apply``; what ``forward`` returns
has the shape only. ``examples.shiftadd_training.export`` compares the file with the network
that was trained, not with these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.shift_codes import encode
from examples.shiftadd_training.mixture import Mixture, capacity
from examples.shiftadd_training.primitives import (
    BinaryAttention,
    ShiftConv2d,
    ShiftLinear,
    shifts,
)

__all__ = ["exported_form"]

DOMAIN = "ai.edgevit"
_ACTIVATIONS = {nn.GELU: "Gelu", nn.SiLU: "Silu", nn.ReLU: "Relu"}


class _Call(torch.autograd.Function):  # type: ignore[misc] # torch is absent where mypy runs
    """One call: (name, attributes, shape of the result), then tensors."""

    @staticmethod
    def symbolic(g: Any, what: Any, *inputs: Any) -> Any:
        name, attributes, shape = what
        made = g.op(
            f"{DOMAIN}::{name}", *inputs, **{f"{k}_i": v for k, v in attributes.items()}
        )
        return made.setType(inputs[0].type().with_sizes(list(shape)))

    @staticmethod
    def forward(ctx: Any, what: Any, *inputs: Tensor) -> Tensor:
        return inputs[0].new_zeros(what[2])


def _call(name: str, attributes: dict[str, Any], shape: tuple[Any, ...], *x: Tensor) -> Tensor:
    # While torch traces, sizes are tensors.
    return _Call.apply((name, attributes, tuple(int(n) for n in shape)), *x)


def packed(weight: Tensor) -> tuple[Tensor, Tensor, int]:
    """Codes and scales of one term a weight ``[out, ..]``, and its inputs."""
    q, e = shifts(weight)
    flat = q.flatten(1).T.cpu().numpy().astype(np.int32)
    codes = torch.from_numpy(encode(flat, 1).codes.copy())
    return codes, torch.exp2(e).flatten().float(), len(flat)


class _Linear(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    def __init__(self, layer: ShiftLinear) -> None:
        super().__init__()
        codes, scale, self.inputs = packed(layer.weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.bias, self.outputs = layer.bias, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.outputs)
        y = _call("ShiftLinear", {"inputs": self.inputs}, shape, x, self.codes, self.scale)
        return y if self.bias is None else y + self.bias


class _Conv(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    def __init__(self, layer: ShiftConv2d) -> None:
        super().__init__()
        codes, scale, inputs = packed(layer.weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        zeros = torch.zeros(layer.out_channels)
        self.register_buffer("bias", zeros if layer.bias is None else layer.bias.detach())
        up, left = layer.padding
        self.attributes = {
            "inputs": inputs,
            "weight_shape": list(layer.weight.shape),
            "kernel_shape": list(layer.kernel_size),
            "strides": list(layer.stride),
            "dilations": list(layer.dilation),
            "pads": [up, left, up, left],
            "group": layer.groups,
        }

    def forward(self, x: Tensor) -> Tensor:
        a = self.attributes
        sizes = (
            (n + 2 * pad - step * (taps - 1) - 1) // stride + 1
            for n, pad, step, taps, stride in zip(
                x.shape[2:],
                a["pads"],
                a["dilations"],
                a["kernel_shape"],
                a["strides"],
                strict=False,
            )
        )
        shape = (x.shape[0], a["weight_shape"][0], *sizes)
        held = (self.codes, self.scale, self.bias)
        return _call("ShiftConv", self.attributes, shape, x, *held)


class _Attention(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    def __init__(self, attention: BinaryAttention) -> None:
        super().__init__()
        self.whole, weight = attention, attention.conv.weight
        q, e = shifts(weight) if isinstance(attention.conv, ShiftConv2d) else (weight, None)
        self.register_buffer("taps", q if e is None else q * torch.exp2(e))
        pad = weight.shape[2] // 2
        self.attributes = {"group": attention.heads, "pads": [pad, 0, pad, 0]}

    def forward(self, x: Tensor, *_: object) -> Tensor:
        q, k, v = self.whole.projected(x)
        tq, tk = self.whole.thresholds
        o = _call(
            "BinaryLinearAttention",
            self.attributes,
            tuple(v.shape),
            q,
            k,
            v,
            tq,
            tk,
            self.taps,
        )
        return self.whole.proj(o.transpose(1, 2).flatten(2))


def _linear_layers(expert: nn.Module) -> list[nn.Linear]:
    return [m for m in expert.modules() if isinstance(m, nn.Linear)]


class _Mixture(nn.Module):  # type: ignore[misc] # torch is absent where mypy runs
    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.whole = mixture
        inner = [type(m) for m in mixture.multiply.modules()]
        kinds = [name for kind, name in _ACTIVATIONS.items() if kind in inner]
        self.name = "MixtureOfPrimitives" + "".join(kinds)
        tensors: list[Tensor] = []
        for layer in _linear_layers(mixture.multiply):
            tensors += [layer.weight.detach().T.contiguous(), layer.bias.detach()]
        self.inputs = []
        for layer in _linear_layers(mixture.shift):
            codes, scale, inputs = packed(layer.weight)
            self.inputs.append(inputs)
            tensors += [codes, scale, layer.bias.detach()]
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"t{i}", tensor)
        self.count, self.outputs = len(tensors), len(tensors[-1])

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.outputs)
        attributes = {
            "capacity": capacity(int(x.shape[-2]), self.whole.latencies),
            "inputs": self.inputs[0],
            "result": [int(n) for n in shape],
        }
        if len(self.inputs) == 2:
            attributes["hidden"] = self.inputs[1]
        held = [getattr(self, f"t{i}") for i in range(self.count)]
        return _call(self.name, attributes, shape, x, self.whole.score(x), *held)


def exported_form(module: nn.Module) -> nn.Module | None:
    """The form that is exported, of a layer that has one."""
    if isinstance(module, ShiftLinear):
        return _Linear(module)
    if isinstance(module, ShiftConv2d):
        return _Conv(module)
    if isinstance(module, BinaryAttention):
        return _Attention(module)
    return _Mixture(module) if isinstance(module, Mixture) else None
