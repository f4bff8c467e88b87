"""The steps of the ablation, as pass specs, and the scheme that all of them share."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.target import QuantScheme, Target, load_target

__all__ = ["BITS", "EXTRA", "PLAIN", "STEPS", "Step", "precision_of", "target_for"]

BITS = (8, 6, 4)


@dataclass(frozen=True)
class Step:
    """A pipeline.

    Attributes:
        label: Row of the table.
        passes: Specs, separated by commas.
        bits: Widths that it is measured at.
        torch: Whether it needs the extra ``[torch]``.
    """

    label: str
    passes: str
    bits: tuple[int, ...] = BITS
    torch: bool = False


_FOLDS = "smooth-quant{explicit=true}"
# Each differs from the one before in one thing.
STEPS = (
    Step("min-max", "quantize{observer=minmax,weight-observer=minmax}"),
    Step("scale", "bridge-quant{hessian=none,granularity=false,scheme=symmetric}"),
    Step("+ granularity", "bridge-quant{hessian=none,scheme=symmetric}"),
    Step("+ scheme", "bridge-quant{hessian=none}"),
    Step("+ bridge exit", "bridge-quant"),
    Step("+ folds", f"{_FOLDS},bridge-quant"),
    Step("+ compensation", f"{_FOLDS},bridge-quant{{weights=-1}},compensate"),
)
# Beside the ladder: the recipes' way of folding, where bridge-quant chooses what is folded;
# and other weights of channels, instead of those of "+ bridge exit".
EXTRA = (
    Step(
        "folds by choice, compensation",
        "bridge-quant{weights=-1,explicit=true},compensate",
        (6, 4),
    ),
    Step("gradient, bridges", "bridge-quant{curvature=gradient}", (4,), torch=True),
    Step(
        "gradient, every layer",
        "bridge-quant{hessian=layers,curvature=gradient,probes=16}",
        (6, 4),
        torch=True,
    ),
)
_MINMAX = "observer=minmax,weight-observer=minmax"
_EVERYWHERE = "outputs=Conv|MatMul"
# The red flag: plain min-max W8A8, all convolutions and linear layers.
PLAIN = (
    Step("channel", f"quantize{{{_MINMAX}}}", (8,)),
    Step("tensor", f"quantize{{{_MINMAX},weight-axis=tensor}}", (8,)),
    Step("channel, symmetric", f"quantize{{{_MINMAX},scheme=symmetric}}", (8,)),
    Step(
        "tensor, symmetric",
        f"quantize{{{_MINMAX},weight-axis=tensor,scheme=symmetric}}",
        (8,),
    ),
    Step("channel, results too", f"quantize{{{_MINMAX},{_EVERYWHERE}}}", (8,)),
    Step(
        "tensor, results too", f"quantize{{{_MINMAX},weight-axis=tensor,{_EVERYWHERE}}}", (8,)
    ),
)


def precision_of(bits: int) -> str:
    """Name of a precision with as many bits for weights as for activations."""
    return f"w{bits}a{bits}"


def target_for(bits: int) -> Target:
    """ONNX Runtime's target, with one scheme for all widths.

    Device files leave depthwise convolutions float at 8 bits, where that is faster: here all
    convolutions and linear layers are quantized at every width, so that widths compare.
    """
    narrow = 0 if bits == 8 else bits
    scheme = QuantScheme(
        weights="int8",
        weight_bits=narrow,
        activations="uint8",
        activation_bits=narrow,
        scheme="asymmetric",
        operators=("Conv", "MatMul"),
        source="the ablation: every convolution and linear layer, depthwise ones too",
    )
    return load_target("onnx").model_copy(
        update={"quantization": {precision_of(bits): scheme}}
    )
