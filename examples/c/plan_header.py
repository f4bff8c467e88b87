"""Write a bundle's plan as a C header: what ``run_model.c`` must know of the model.

python -m examples.c.plan_header BUNDLE > model_plan.h
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["header", "main"]

_MACRO = {"x86_64": "__x86_64__", "aarch64": "__aarch64__"}
_BLOCKS = ("arena", "params")
_HEAD = """/* Written from {name} by examples/c/plan_header.py; do not edit. */
#include <stdint.h>

#ifndef {macro}
#error "the code is for {machine}: compile the model for this machine"
#endif

/* The code uses, in Linux's words: {features}. */
#define PLAN_STEM "{stem}"
#define PLAN_ARENA {arena}
#define PLAN_PARAMS {params}
#define PLAN_STEPS {steps}
#define PLAN_RANK {rank}

/* A tensor in a block (0: arena, 1: parameters); offset in bytes, strides in elements. */
struct plan_tensor {{
  const char *name;
  int block, width, rank;
  int64_t offset, sizes[PLAN_RANK], strides[PLAN_RANK];
}};
"""


def header(path: Path) -> str:
    """The header for a ``*.plan.json``."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    machine = plan["triple"].partition("-")[0]
    every = [*plan["inputs"], *plan["outputs"]]
    head = _HEAD.format(
        name=path.name,
        macro=_MACRO[machine],
        machine=machine,
        features=" ".join(plan["features"]),
        stem=path.name.removesuffix(".plan.json"),
        rank=max(1, *(len(_factors(e)) for e in every)),
        **{key: plan[key] for key in ("arena", "params", "steps")},
    )
    return head + _tensors("input", plan["inputs"]) + _tensors("output", plan["outputs"])


def _factors(entry: dict[str, Any]) -> list[tuple[int, int]]:
    """Size and stride of each axis, or of each factor of an axis that lies in several."""
    return [(size, stride) for axis in entry["axes"] for size, stride in axis]


def _tensors(kind: str, entries: Sequence[dict[str, Any]]) -> str:
    lines = [f"#define PLAN_{kind.upper()}S {len(entries)}"]
    lines += [f"static const struct plan_tensor plan_{kind}s[] = {{"]
    lines += [f"    {_tensor(e)}," for e in entries]
    return "\n".join([*lines, "};", ""])


def _tensor(entry: dict[str, Any]) -> str:
    factors = _factors(entry)
    sizes = ", ".join(str(size) for size, _ in factors) or "1"
    strides = ", ".join(str(stride) for _, stride in factors) or "0"
    width = np.dtype(entry["dtype"]).itemsize
    where = f"{_BLOCKS.index(entry['block'])}, {width}, {len(factors)}, {entry['offset']}"
    return f"{{{json.dumps(entry['name'])}, {where}, {{{sizes}}}, {{{strides}}}}}"


def main() -> None:
    """Print the header of a bundle's only plan."""
    (plan,) = Path(sys.argv[1]).glob("*.plan.json")
    sys.stdout.write(header(plan))


if __name__ == "__main__":
    main()
