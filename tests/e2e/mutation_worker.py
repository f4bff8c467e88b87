"""Child process of the mutation test: reads paths, answers with one JSON line each.

``python -m tests.e2e.mutation_worker TARGET...`` loads, canonicalizes and lowers for each
target; with ``--compile`` in front it runs ``edgevit compile`` for one target after the other,
one a file, verification included.

An answer is ``{"outcome": "ok" | "failed" | "refused" | "escaped", "detail": ...}``: whatever
is not an ``EdgevitError`` with an exit code other than 5 has escaped, and so has a compile
that ends otherwise than with 0, 1 (``failed``: a gate, coverage) or 2, or leaves something
behind.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from edgevit import registry
from edgevit.backend import LowerOptions
from edgevit.cli import main
from edgevit.errors import EdgevitError
from edgevit.loading import load
from edgevit.partition import check, coverage
from edgevit.passes.order import canonicalize
from edgevit.target import load_target

# Address space: a damaged size must not make anything reserve more.
LIMIT_BYTES = 6 << 30


def _stages(path: Path, targets: tuple[str, ...]) -> None:
    """All that reads the model: load, canonicalize, coverage, lowering."""
    model = load(path).model
    canonicalize(model)
    for name in targets:
        target = load_target(name)
        backend = registry.load("backends", target.backend)()
        precision = target.default_precision
        check(coverage(model, backend, target, precision), target, allow_fallback=False)
        backend.lower(model, target, LowerOptions(precision, "source", "model"))


def _answer(path: Path, targets: tuple[str, ...]) -> dict[str, str]:
    try:
        _stages(path, targets)
    except EdgevitError as e:
        outcome = "refused" if e.exit_code != 5 else "escaped"
        return {"outcome": outcome, "detail": f"{type(e).__name__}: {e}"}
    except Exception:  # noqa: BLE001  (to see what escapes is the test)
        return {"outcome": "escaped", "detail": traceback.format_exc(limit=-6)}
    return {"outcome": "ok", "detail": ""}


def _compile(path: Path, target: str) -> dict[str, str]:
    """``edgevit compile`` in this process; its engines run in children of their own."""
    out, said = path.with_name("out.edgevit"), io.StringIO()
    arguments = ["compile", str(path), "--target", target, "-o", str(out)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main([*arguments, "--verbose"])
    except BaseException:  # noqa: BLE001  (also SystemExit: the command line returns codes)
        return {"outcome": "escaped", "detail": traceback.format_exc(limit=-6)}
    text = said.getvalue()
    outcome = {0: "ok", 1: "failed", 2: "refused"}.get(code, "escaped")
    left = [p.name for p in path.parent.iterdir() if "edgevit" in p.name]
    if "Traceback" in text or left != ["out.edgevit"] * (code == 0):
        outcome = "escaped"
    shutil.rmtree(out, ignore_errors=True)
    return {
        "outcome": outcome,
        "detail": f"{target}: exit {code}, left {left}: {text[-3000:]}",
    }


def serve(answer: Callable[[Path], dict[str, str]]) -> None:
    """Answer until standard input ends."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("error")
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(answer(Path(line.strip()))) + "\n")
        answers.flush()


if __name__ == "__main__":
    if sys.argv[1] == "--compile":
        each = itertools.cycle(sys.argv[2:])
        serve(lambda path: _compile(path, next(each)))
    else:
        serve(lambda path: _answer(path, tuple(sys.argv[1:])))
