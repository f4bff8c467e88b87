"""What is measured: shift terms, and integers under the very same compensation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ACTIVATIONS", "FORMS", "SOURCE", "Form"]


@dataclass(frozen=True)
class Form:
    """A way to store the weights.

    Attributes:
        label: Row of the table.
        spec: The pass that makes it; empty: weights stay float.
        activations: Whether activations are 8-bit integers.
        part: Letter of the acceptance item it belongs to; ``g``: with gradients, which need
            torch.
    """

    label: str
    spec: str
    activations: bool = True
    part: str = ""


# Outputs that make good for each other; the ridge for refitting is that of development images.
_TOGETHER = "curvature=gradient,ridge=0.1"
SOURCE = Form("fp32", "", activations=False)
ACTIVATIONS = Form("activations int8 alone", "")
FORMS = (
    SOURCE,
    ACTIVATIONS,
    Form("1 term, conv int8", "shiftadd{terms=1,conv=int8}", part="a"),
    Form("int4, conv int8", "shiftadd{terms=int4,conv=int8}", part="a"),
    Form("nearest 1 term, conv int8", "shift-round{terms=1,conv=int8}", part="a"),
    Form(
        "1 term, conv int8, together", f"shiftadd{{terms=1,conv=int8,{_TOGETHER}}}", part="g"
    ),
    Form(
        "int4, conv int8, together", f"shiftadd{{terms=int4,conv=int8,{_TOGETHER}}}", part="g"
    ),
    Form("2 terms", "shiftadd{terms=2}", part="b"),
    Form("int8", "shiftadd{terms=int8}", part="b"),
    Form("nearest 2 terms", "shift-round{terms=2}", part="b"),
    Form("3 terms", "shiftadd{terms=3}", part="c"),
    Form("1.5 terms", "shiftadd{terms=1|2|3,budget=1.5}", part="d"),
    Form("int6", "shiftadd{terms=int6}", part="d"),
    Form("3 terms, parallel", "shiftadd{terms=3,order=parallel}"),
    Form("1 term, free scale, conv int8", "shiftadd{terms=1,conv=int8,scale=free}"),
    Form("1 term", "shiftadd{terms=1}"),
    Form("1 term, free scale", "shiftadd{terms=1,scale=free}"),
    Form("int4", "shiftadd{terms=int4}"),
    Form("nearest 1 term", "shift-round{terms=1}"),
)
