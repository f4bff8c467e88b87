"""What runs on the device: ``edgevit verify`` and ``edgevit run`` in one Python.

    python program.py BUNDLE ANSWER.json OUTPUTS.npz INPUT.npz...

One process for both, because an emulated start takes longer than most runs. Only the
standard library and the base package are imported here.
"""

from __future__ import annotations

import contextlib
import io
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]


def command(arguments: list[str]) -> dict[str, Any]:
    """``edgevit ARGUMENTS --json``: its exit code, its envelope, its seconds."""
    from edgevit.cli import main as edgevit

    printed = io.StringIO()
    start = time.perf_counter()
    with contextlib.redirect_stdout(printed):
        code = edgevit([*arguments, "--json"])
    seconds = time.perf_counter() - start
    return {"code": code, "envelope": json.loads(printed.getvalue()), "seconds": seconds}


def main(arguments: list[str]) -> None:
    """Check and run a bundle, and write what happened."""
    bundle, answer, outputs, *inputs = arguments
    found = {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "verify": command(["verify", bundle, "--trust"]),
        "run": command(["run", bundle, "--trust", "--output", outputs, "--input", *inputs]),
        "modules": sorted(sys.modules),
    }
    Path(answer).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
