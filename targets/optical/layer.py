"""A layer as the mappings see it: a grouped convolution, with how its tensors are laid out.

A linear layer is a convolution with 1 x 1 kernels over a picture of tokens; a product of two
computed tensors is one whose kernel is a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevit.errors import InternalError
from edgevit.sim4f.moves import Move, moved_shape

__all__ = ["Layer", "Window"]


@dataclass(frozen=True)
class Window:
    """One direction of a convolution.

    Attributes:
        size: Input elements.
        kernel: Taps.
        stride: Input elements between outputs.
        dilation: Input elements between taps.
        before: Padding before the first element.
        out: Outputs.
    """

    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    before: int = 0
    out: int = 0

    def __post_init__(self) -> None:
        if self.out < 1:
            object.__setattr__(self, "out", self.size)

    @property
    def reach(self) -> int:
        """Input elements from the first tap to the last."""
        return (self.kernel - 1) * self.dilation

    @property
    def pitch(self) -> int:
        """Least distance of tiles at which no read pixel sees another tile's product.

        Products of a tile with its own kernel reach from ``before - reach`` to
        ``size - 1 + before`` around the first output, with ``reach = (kernel - 1) dilation``;
        outputs are read from 0 to ``(out - 1) stride``. Copies a pitch away on either side
        must stay clear of that.
        """
        below = (self.out - 1) * self.stride + 1 + self.reach - self.before
        return max(self.size + self.before, below, self.size)


@dataclass(frozen=True)
class Layer:
    """A grouped convolution ``[n, g, i, y, x] * [g, o, i, ky, kx] -> [n, g, o, y', x']``.

    Attributes:
        name: Of the output tensor.
        source: Tensor that is displayed, and its shape.
        kernel: Tensor that is masked, and its shape.
        static: The kernel is a stored weight.
        batch: ``n``.
        groups: ``g``.
        inputs: ``i``.
        outputs: ``o``.
        rows: Along y.
        columns: Along x.
        show: Moves from the source to ``[n, g, i, y, x]``.
        mask: Moves from the kernel to ``[g, o, i, ky, kx]``.
        collect: Moves from ``[n, g, o, y', x']`` to the output tensor.
        bias: Stored weight that is added; ``""`` if none.
    """

    name: str
    source: str
    source_shape: tuple[int, ...]
    kernel: str
    kernel_shape: tuple[int, ...]
    static: bool
    batch: int
    groups: int
    inputs: int
    outputs: int
    rows: Window
    columns: Window
    show: tuple[Move, ...]
    mask: tuple[Move, ...]
    collect: tuple[Move, ...]
    bias: str = ""

    def __post_init__(self) -> None:
        shown = moved_shape(self.show, self.source_shape)
        want = (self.batch, self.groups, self.inputs, self.rows.size, self.columns.size)
        masked = moved_shape(self.mask, self.kernel_shape)
        taps = (self.groups, self.outputs, self.inputs, self.rows.kernel, self.columns.kernel)
        if shown != want or masked != taps:
            raise InternalError(
                f"layer {self.name!r}: expected operands {want} and {taps}, found {shown} "
                f"and {masked}"
            )

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding included."""
        outs = self.batch * self.groups * self.outputs * self.rows.out * self.columns.out
        return outs * self.inputs * self.rows.kernel * self.columns.kernel

    @property
    def pointwise(self) -> bool:
        """A linear layer: every kernel is one tap, and every input position one output."""
        return all(
            (w.kernel, w.stride, w.before, w.out) == (1, 1, 0, w.size)
            for w in (self.rows, self.columns)
        )

    @property
    def patches(self) -> bool:
        """Windows do not overlap and leave nothing out between them: a patch embedding."""
        return all(
            w.kernel == w.stride
            and w.dilation == 1
            and not w.before
            and w.out * w.kernel <= w.size
            for w in (self.rows, self.columns)
        )

    @property
    def tokens(self) -> int:
        """Positions of a linear layer, over the batch."""
        return self.batch * math.prod((self.rows.out, self.columns.out))
