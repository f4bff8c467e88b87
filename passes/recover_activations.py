"""HardSigmoid, HardSwish, SiLU, Mish and Softplus from their parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from edgevit.passes.activation_rules import (
    HardSigmoidFromClip,
    HardSwishFromHardSigmoid,
    MishFromTanh,
    SiluFromSigmoid,
    SoftplusFromLog,
)
from edgevit.passes.functions import DOMAIN, ensure_function
from edgevit.passes.sites import require_opset
from edgevit.pipeline import Effect, Outcome
from edgevit.rewrite import RewritePass, Rule

__all__ = ["RecoverActivations"]

_FIRST: tuple[Rule, ...] = (HardSigmoidFromClip(), SoftplusFromLog())
_SECOND: tuple[Rule, ...] = (HardSwishFromHardSigmoid(), SiluFromSigmoid(), MishFromTanh())


@dataclass(frozen=True)
class _Stage(RewritePass):
    stage: tuple[Rule, ...] = ()

    def rules(self) -> Sequence[Rule]:
        return self.stage


@dataclass(frozen=True)
class RecoverActivations(RewritePass):
    """Recover the activation operators that exporters take apart.

    ==============================================  =========================
    ``Clip(x + 3, 0, 6) / 6``                       ``HardSigmoid(1/6, 1/2)``
    ``Clip(x / 6 + 1/2, 0, 1)``                     ``HardSigmoid(1/6, 1/2)``
    ``Log(1 + Exp(x))``                             ``Softplus``
    ``x * HardSigmoid(1/6, 1/2)(x)``                ``HardSwish``
    ``x * Sigmoid(x)``                              ``ai.edgevit.Silu``
    ``x * Tanh(Softplus(x))``                       ``Mish``
    ==============================================  =========================

    Conditions:

    1. Factors and terms may come in any order and nesting, a division by 6 as ``Div`` or as
       ``Mul`` by 1/6, also after the multiplication by x.
    2. Constants are exact up to two roundings of their dtype. ``HardSwish`` has alpha 1/6
       and beta 1/2 and no other (Howard et al., arXiv 1905.02244, section 5.2); Keras'
       HardSigmoid (alpha 1/5) is recovered, x times it is not HardSwish.
    3. ``x * Sigmoid(c x)`` with c other than 1 is refused (quick-GELU has c = 1.702).
    4. Nothing between x and the result is used elsewhere.
    """

    name: ClassVar[str] = "recover-activations"
    effect: ClassVar[Effect] = Effect.EXACT

    def requires(self, model: ir.Model) -> None:
        """``Mish`` needs opset 18."""
        require_opset(model, 18, self.name)

    def rules(self) -> Sequence[Rule]:
        """The gates first, then what multiplies by them."""
        return (*_FIRST, *_SECOND)

    def call(self, model: ir.Model) -> Outcome:
        """Run both stages; define ``Silu`` if it came to be used."""
        first, second = _Stage(_FIRST).call(model), _Stage(_SECOND).call(model)
        if any(node.domain == DOMAIN for node in model.graph):
            ensure_function(model, "Silu")
        return Outcome(
            model,
            first.modified or second.modified,
            first.changes + second.changes,
            first.refusals + second.refusals,
        )
