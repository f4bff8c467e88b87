"""Whether and how outputs of a layer make good for each other: options that passes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgevit.edits import Remark
from edgevit.errors import UsageError
from edgevit.passes.bridge_weights import gradient_products
from edgevit.passes.channel_layers import ChannelLayer
from edgevit.passes.facts import Array
from edgevit.passes.output_weights import Probe
from edgevit.pipeline import Context

__all__ = ["OutputWorth", "Worth"]

# Layer name -> mean ``E[g g^T]`` of gradients at its outputs, ``[o, o]``.
Worth = Mapping[str, Array]
_WAYS = ("none", "gradient")
# Outputs of a layer whose products are held and inverted: half a gigabyte in float64, with the
# copies that inverting takes. A word list at the end of a recognizer is beyond it.
_WIDEST = 4096


@dataclass(frozen=True)
class OutputWorth:
    """How errors of outputs are weighed together, for ``two_sided_rounding``.

    Attributes:
        curvature: ``none``: every output by itself; ``gradient``: by backward passes through
            torch.
        probes: Samples for them.
        ridge: Share of the diagonal's mean that is added to it.
        where: The pass as it is written.
    """

    curvature: str
    probes: int
    ridge: float
    where: str

    def check(self, name: str) -> None:
        """Refuse options that mean nothing, in the pass's name.

        Raises:
            UsageError: An unknown way, or a number that is not positive.
        """
        if self.curvature not in _WAYS:
            raise UsageError(
                f"{name}: curvature is {self.curvature!r}",
                hint="it can be: " + ", ".join(_WAYS),
            )
        if self.probes < 1 or not 0 < self.ridge < np.inf:
            raise UsageError(f"{name}: probes and together are positive numbers")

    def measured(
        self, model: ir.Model, layers: Sequence[ChannelLayer], context: Context
    ) -> Worth:
        """Of layers of one group and at most 4,096 outputs that answers depend on.

        Empty without curvature.

        Raises:
            BackendMissingError: torch is not installed.
            UnsupportedModelError: An operator has no gradient way.
        """
        whole = [x for x in layers if x.group == 1 and x.outputs <= _WIDEST]
        if self.curvature == "none" or not whole:
            return {}
        samples, probe = context.data(self.where), Probe(self.probes, seed=context.seed)
        found = gradient_products(model, whole, samples, probe)
        return {name: products for name, products in found.items() if products.any()}

    def remarks(self, worth: Worth, layers: int, context: Context) -> list[Remark]:
        """For the report: of how many of the pass's layers."""
        if self.curvature == "none":
            return []
        count = min(self.probes, len(context.data(self.where)))
        return [Remark(
            f"outputs of {len(worth)} of {layers} layers make good for each other's errors: "
            f"gradients through torch, {count} samples"
        )]  # fmt: skip
