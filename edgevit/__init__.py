"""edgevit: compile vision transformers for the edge, and prove what ships.

``edgevit.compile(model, target=...)`` makes a bundle, ``edgevit.load(path)`` runs one.
Importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgevit.api import compile, inspect, verify
    from edgevit.runtimes.session import load

__all__ = ["compile", "inspect", "load", "verify"]
__version__ = "0.1.0"

_WHERE = {
    "compile": "edgevit.api",
    "inspect": "edgevit.api",
    "verify": "edgevit.api",
    "load": "edgevit.runtimes.session",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'edgevit' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
