"""The debug map of a bundle: artifact tensors back to source values, by entry and part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.backend import Lowered
from edgevit.bundle import DEBUG_MAP, Binding, Part
from edgevit.subject import LoweredPart

if TYPE_CHECKING:
    from edgevit.manifest import Manifest

__all__ = ["read_debug_map", "write_debug_map"]


def write_debug_map(entries: Sequence[Sequence[LoweredPart]]) -> bytes:
    """Canonical JSON: for each entry its parts' backend, files and values, in order."""
    data = [{"parts": [_described(p) for p in parts]} for parts in entries]
    text = json.dumps({"entries": data}, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _described(part: LoweredPart) -> dict[str, Any]:
    return {
        "backend": part.backend,
        "files": sorted(part.lowered.files),
        "values": [b.to_json() for b in part.lowered.values],
    }


def read_debug_map(bundle: Path, manifest: Manifest) -> tuple[tuple[LoweredPart, ...], ...]:
    """The lowered parts of each entry of a verified bundle, rebuilt from its files."""
    data = json.loads((bundle / DEBUG_MAP).read_text(encoding="utf-8"))
    return tuple(
        tuple(
            _rebuilt(bundle, described, part)
            for described, part in zip(found["parts"], entry.parts, strict=True)
        )
        for found, entry in zip(data["entries"], manifest.entries, strict=True)
    )


def _rebuilt(bundle: Path, described: Mapping[str, Any], part: Part) -> LoweredPart:
    files = {path: (bundle / path).read_bytes() for path in described["files"]}
    values = tuple(Binding.from_json(b) for b in described["values"])
    return LoweredPart(described["backend"], Lowered(files, part, values))
