"""Do an artifact's routers choose the tokens that the reference's choose?

The output of a mixture is judged by the replay, on the reference's own scores, so that both
take the same routing. Here the artifact runs by itself: its scores carry the error of all that
is in front, and a token at the edge of a capacity may change its expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from edgevit.model import constant
from edgevit.reference import Arrays
from edgevit.subject import Subject

__all__ = ["TokenSets", "routers", "token_sets"]

MIXTURE = "MixtureOfPrimitives"
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class TokenSets:
    """One router on one sample.

    Attributes:
        score: Name of the scores.
        tokens: How many there are.
        capacity: How many go to the multiplication expert.
        shared: How many of those the reference's router chooses too.
    """

    score: str
    tokens: int
    capacity: int
    shared: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def routers(model: ir.Model) -> Iterator[tuple[ir.Value, int]]:
    """Scores and capacity of each mixture of a canonical model, function or inlined."""
    for node in model.graph:
        score = node.inputs[1] if node.op_type.startswith(MIXTURE) else None
        if score is not None:
            yield score, int(node.attributes["capacity"].as_int())
        if node.op_type != "TopK" or node.domain:
            continue
        capacity = _split(node)
        if capacity is not None and node.inputs[0] is not None:
            yield _before_views(node.inputs[0]), capacity


def _split(top: ir.Node) -> int | None:
    """Where the order of all rows is cut in two."""
    size = None if top.inputs[0] is None else top.inputs[0].shape
    for use in top.outputs[1].uses():
        parts = constant(use.node.inputs[1]) if use.node.op_type == "Split" else None
        if parts is not None and parts.size == 2 and size == (int(parts.sum()),):
            return int(parts[0])
    return None


def _before_views(value: ir.Value) -> ir.Value:
    node = value.producer()
    while node is not None and node.op_type in _VIEWS and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def token_sets(
    subject: Subject, values: Arrays, exposed: Callable[[], Arrays]
) -> tuple[TokenSets, ...]:
    """What an artifact's routers choose on a sample, next to the reference's.

    Args:
        subject: What is verified; of one part.
        values: The reference's value of every canonical node, for that sample.
        exposed: Gives the artifact's own (``run_exposed``); called only if it has routers.
    """
    found = [(str(score.name), count) for score, count in routers(subject.canonical)]
    if not found or len(subject.parts) != 1:
        return ()
    known = {b.name for b in subject.parts[0].lowered.values}
    made = exposed()
    return tuple(
        _sets(name, count, values[name], made[name]) for name, count in found if name in known
    )


def _sets(name: str, count: int, reference: Any, found: Any) -> TokenSets:
    chosen = [
        set(np.argsort(-array.reshape(-1), kind="stable")[:count].tolist())
        for array in (reference, found)
    ]
    return TokenSets(name, reference.size, count, len(chosen[0] & chosen[1]))
