"""Layers that a pass is told to leave alone, by patterns of their names."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from edgevit.errors import UsageError
from edgevit.passes.quantizable import Quantizable

__all__ = ["check_excluded", "excluded", "names_any"]


def excluded(layer: Quantizable, patterns: str) -> str | None:
    """The pattern that names a layer: by its node, its output or its result.

    Args:
        layer: The layer.
        patterns: As in a shell (``*``, ``?``, ``[...]``), separated by ``|``.
    """
    return names_any((str(layer.node.name), layer.key, str(layer.result.name)), patterns)


def names_any(names: Sequence[str], patterns: str) -> str | None:
    """The first pattern that matches one of the names; ``None`` if none does."""
    found = (p for p in patterns.split("|") if any(_names(name, p) for name in names))
    return next(found, None)


def _names(name: str, pattern: str) -> bool:
    # Names of exporters hold brackets: one that is written out names itself.
    return bool(pattern) and (name == pattern or fnmatch.fnmatchcase(name, pattern))


def check_excluded(model: ir.Model, patterns: str, rule: str, option: str = "exclude") -> None:
    """Refuse a pattern that names nothing: what it was meant for would not happen.

    Any node counts, not only those that the pass would touch: a list of layers is given to
    several passes, of which one may have replaced a layer already.

    Args:
        model: What the pass is about to work on.
        patterns: As for ``excluded``.
        rule: Name of the pass, for the message.
        option: Of the pass, likewise.

    Raises:
        UsageError: No node or value of the graph has a name that a pattern matches.
    """
    if not patterns:
        return
    names = [str(node.name) for node in model.graph if node.name]
    names += [str(v.name) for node in model.graph for v in node.outputs]
    for pattern in filter(None, patterns.split("|")):
        if not any(_names(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
            raise UsageError(
                f"pass {rule!r}: {option} is {pattern!r}, and no layer is called that",
                hint="nearest names: " + ", ".join(close)
                if close
                else "`edgevit inspect` lists the names",
            )
