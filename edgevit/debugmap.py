"""The debug map of a bundle: artifact tensors back to source values, one list a part."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.backend import Lowered
from edgevit.bundle import DEBUG_MAP, Binding
from edgevit.subject import LoweredPart

if TYPE_CHECKING:
    from edgevit.manifest import Manifest

__all__ = ["read_debug_map", "write_debug_map"]


def write_debug_map(parts: Sequence[LoweredPart]) -> bytes:
    """Canonical JSON of every part's backend and values, in execution order."""
    data = [
        {"backend": p.backend, "values": [b.to_json() for b in p.lowered.values]}
        for p in parts
    ]
    text = json.dumps({"parts": data}, sort_keys=True, separators=(",", ":"))
    return text.encode()


def read_debug_map(bundle: Path, manifest: Manifest) -> tuple[LoweredPart, ...]:
    """The lowered parts of a verified bundle, rebuilt from its files."""
    data = json.loads((bundle / DEBUG_MAP).read_text(encoding="utf-8"))
    found = []
    for part, entry in zip(data["parts"], manifest.entries[0].parts, strict=True):
        root = bundle / entry.artifact
        names = [root] if root.is_file() else sorted(q for q in root.rglob("*") if q.is_file())
        files = {str(q.relative_to(bundle)): q.read_bytes() for q in names}
        values = tuple(Binding.from_json(b) for b in part["values"])
        found.append(LoweredPart(part["backend"], Lowered(files, entry, values)))
    return tuple(found)
