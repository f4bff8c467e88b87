"""Layers that a pass is told to leave alone, by patterns of their names."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from edgevit.errors import UsageError
from edgevit.passes.quantizable import Quantizable

__all__ = ["check_excluded", "check_named", "excluded", "is_named", "names_any"]


def excluded(layer: Quantizable, patterns: str) -> str | None:
    """The pattern that names a layer: by its node, its output or its result.

    Args:
        layer: The layer.
        patterns: As in a shell (``*``, ``?``, ``[...]``), separated by ``|``.
    """
    return names_any((str(layer.node.name), layer.key, str(layer.result.name)), patterns)


def names_any(names: Sequence[str], patterns: str) -> str | None:
    """The first pattern that matches one of the names; ``None`` if none does."""
    found = (p for p in patterns.split("|") if any(is_named(name, p) for name in names))
    return next(found, None)


def is_named(name: str, pattern: str) -> bool:
    """Whether a pattern matches a name.

    Names of exporters hold brackets: one that is written out names itself.
    """
    return bool(pattern) and (name == pattern or fnmatch.fnmatchcase(name, pattern))


def check_excluded(model: ir.Model, patterns: str, rule: str) -> None:
    """``check_named`` of the option ``exclude``: patterns separated by ``|``."""
    check_named(model, [p for p in patterns.split("|") if p], rule, "exclude")


def check_named(model: ir.Model, patterns: Iterable[str], rule: str, option: str) -> None:
    """Refuse a pattern that names nothing: what it was meant for would not happen.

    Any node counts, not only those that the pass would touch: a list of layers is given to
    several passes, of which one may have replaced a layer already.

    Args:
        model: What the pass is about to work on.
        patterns: As in a shell.
        rule: Name of the pass, for the message.
        option: Of the pass, likewise.

    Raises:
        UsageError: No node or value of the graph has a name that a pattern matches.
    """
    names = [str(node.name) for node in model.graph if node.name]
    names += [str(v.name) for node in model.graph for v in node.outputs]
    for pattern in patterns:
        if not any(is_named(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4)
            raise UsageError(
                f"pass {rule!r}: {option} is {pattern!r}, and no layer is called that",
                hint="nearest names: " + ", ".join(close)
                if close
                else "`edgevit inspect` lists the names",
            )
