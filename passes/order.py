"""The order of canonicalization, and the function that runs it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgevit import registry
from edgevit.errors import InternalError
from edgevit.pipeline import Observer, PassRecord, Pipeline

__all__ = ["CANONICAL", "ROUNDS", "canonicalize"]

# Each round repairs what the previous one exposed; five rounds were the most any of our
# models took, so the bound only stops a pair of passes that undo each other.
ROUNDS = 12

CANONICAL: tuple[str, ...] = (
    # First, because every other pass asks for shapes and constants.
    "infer-shapes",
    "fold-constants",
    # Before the normal forms, because dead branches and no-ops would be normalized in vain.
    "remove-dead",
    "remove-noops",
    # Before passes that compare or read attributes: they may then rely on their presence.
    "normalize-attributes",
    "split-variadic",
    "normalize-cast",
    "einsum-to-matmul",
    # Before rules that look for a constant only as the second operand.
    "order-operands",
    "normalize-power",
    "normalize-clip",
    "decompose-norms",
    "decompose-col2im",
    "normalize-conv",
    "normalize-pool",
    "normalize-pad",
    "normalize-resize",
    # After normalize-conv, -pool and -pad, because it adds up written-out pads.
    "fold-pad",
    "widen-conv",
    "fold-batchnorm",
    # After fold-batchnorm, because the branches are normalized ones.
    "merge-branches",
    "normalize-expand",
    "remove-expand",
    "gemm-to-matmul",
    # After gemm-to-matmul, because it transposes stored weights.
    "move-stored",
    "normalize-gather",
    "normalize-slice",
    "normalize-split",
    # After both normal forms, because it reads cuts; before hoisting, which moves one Split
    # more cheaply than several slices.
    "slices-to-split",
    "hoist-selections",
    "normalize-reduce",
    # After the passes above, because they leave chains of reshapes behind.
    "merge-transpose",
    "normalize-transpose",
    "normalize-reshape",
    # After hoist-selections, because it leaves an axis of length one where the parts were.
    "drop-unit-axes",
    # --- recoveries begin (their own section: patterns over the forms above) ---
    "recover-layer-norm",
    "normalize-layer-norm",
    "recover-group-norm",
    "recover-gelu",
    # Before fold-affine, because it would fold the x + 3 of a hard sigmoid into a convolution.
    "recover-activations",
    "recover-attention",
    "normalize-attention",
    # --- recoveries end ---
    # After recover-attention, because it asks which projections an attention reads.
    "merge-projections",
    # After the recoveries, because they know selections by the axes that exporters write.
    "narrow-transpose",
    "narrow-pointwise",
    "narrow-reduce",
    # After fold-batchnorm, because it leaves a product and a sum per normalization.
    "hoist-affine",
    "fold-affine",
    # After fold-affine: what the layer in front can take costs the layer behind nothing.
    "fold-affine-ahead",
    # Last, because equal nodes show only once everything is in normal form.
    "merge-duplicates",
    "remove-dead",
)


def canonicalize(
    model: ir.Model, observers: Sequence[Observer] = ()
) -> tuple[PassRecord, ...]:
    """Bring a loaded model to canonical form, in place (``docs/canonical.md``).

    Args:
        model: As ``edgevit.loading.load`` returns it: static input shapes, opset 23.
        observers: Called after each pass.

    Raises:
        InternalError: The passes still change the model after ``ROUNDS`` rounds.
    """
    pipeline = Pipeline.parse(CANONICAL, lambda n: registry.load("passes", n), rounds=ROUNDS)
    records = pipeline.run(model, observers)
    restless = [r.spec for r in records[-len(CANONICAL) :] if r.changes]
    if restless:
        raise InternalError(
            f"canonicalization did not settle in {ROUNDS} rounds: "
            f"{', '.join(restless)} still change the model",
            hint="please report it with the model",
        )
    return records
