"""Child process of the mutation test: reads paths, answers with one JSON line each.

An answer is ``{"outcome": "ok" | "refused" | "escaped", "detail": ...}``; whatever is not an
``EdgevitError`` with an exit code other than 5 has escaped.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from pathlib import Path

from edgevit import registry
from edgevit.backend import LowerOptions
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


def main(targets: tuple[str, ...]) -> None:
    """Serve until standard input ends; ``targets`` are lowered for, in order."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    warnings.simplefilter("error")
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(_answer(Path(line.strip()), targets)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
