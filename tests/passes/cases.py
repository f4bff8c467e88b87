"""Tables of small graphs: what a pass makes of each, or why it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgevit import registry
from edgevit.pipeline import Outcome, Pass, build, parse_spec
from tests.passes import harness

__all__ = ["Case", "Refusal", "load", "rng_array"]


def load(spec: str) -> Pass:
    """The pass that a spec names."""
    name, options = parse_spec(spec)
    return build(registry.load("passes", name), options)


def rng_array(*shape: int, seed: int = 1) -> harness.Array:
    """Normal numbers in float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A graph that a pass rewrites.

    Attributes:
        name: Shown in the test's id.
        spec: The pass.
        signature: As in ``harness.build``.
        body: As in ``harness.build``.
        makes: Operators after the pass and ``remove-dead``, separated by spaces.
        constants: Initializers.
        limit: Largest absolute difference; 0 where no number is recomputed.
        before: Passes that bring the graph to the form that the pass expects.
    """

    name: str
    spec: str
    signature: str
    body: str
    makes: str
    constants: dict[str, Any] = field(default_factory=dict)
    limit: float = 0.0
    before: tuple[str, ...] = ("normalize-attributes",)

    def check(self) -> None:
        """Run it and compare operators and results."""
        model = harness.build(self.signature, self.body, self.constants)
        for spec in self.before:
            load(spec)(model)
        outputs = [v.name for v in model.graph.outputs]
        harness.check_same(load(self.spec), model, self.limit)
        load("remove-dead")(model)
        assert harness.operators(model) == Counter(self.makes.split())
        assert [v.name for v in model.graph.outputs] == outputs


@dataclass(frozen=True)
class Refusal:
    """A graph that a pass leaves alone, and a part of the reason it gives."""

    name: str
    spec: str
    signature: str
    body: str
    reason: str
    constants: dict[str, Any] = field(default_factory=dict)
    before: tuple[str, ...] = ("normalize-attributes",)

    def check(self) -> None:
        """Run it; nothing may change, and the reason is stated (none for an empty one)."""
        model = harness.build(self.signature, self.body, self.constants)
        for spec in self.before:
            load(spec)(model)
        outcome: Outcome = harness.apply(load(self.spec), model)
        assert not outcome.modified
        found = harness.reasons(outcome)
        assert self.reason in found if self.reason else not found, found
