"""Names that an ML program accepts: letters, digits and underscores, each used once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Names", "sanitize"]

_BAD = re.compile(r"[^0-9A-Za-z_]")

# Words of the MIL text format; coremltools renames them too (defs/preprocess.py).
_RESERVED = frozenset(
    {"any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false"}
    | {"string", "state", "bf16", "fp16", "fp32", "fp64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (4, 8, 16, 32, 64)}
)


def sanitize(name: str) -> str:
    """Map any string to an identifier; the same string gives the same identifier.

    Two strings may collide (``a.b`` and ``a/b``): ``Names`` makes them distinct.
    """
    text = _BAD.sub("_", name) or "_"
    if text[0].isdigit():
        text = "_" + text
    return text + "_" if text in _RESERVED else text


@dataclass
class Names:
    """Hands out identifiers, each once, in a deterministic way."""

    taken: set[str] = field(default_factory=set)

    def claim(self, base: str) -> str:
        """The identifier nearest to ``base`` that is still free; it is then taken."""
        stem = sanitize(base)
        name, number = stem, 0
        while name in self.taken:
            number += 1
            name = f"{stem}_{number}"
        self.taken.add(name)
        return name
