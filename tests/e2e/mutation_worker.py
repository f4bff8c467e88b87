"""Child process of the mutation test: reads paths, answers with one JSON line each.

An answer is ``{"outcome": "ok" | "refused" | "escaped", "detail": ...}``; whatever is not an
``EdgevitError`` with an exit code other than 5 has escaped.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
import warnings
from pathlib import Path

from edgevit.errors import EdgevitError
from edgevit.loading import load


def _stages(path: Path) -> None:
    source = load(path, {})
    if importlib.util.find_spec("edgevit.passes.order") is not None:
        from edgevit.passes.order import canonicalize

        canonicalize(source.model)


def _answer(path: Path) -> dict[str, str]:
    try:
        _stages(path)
    except EdgevitError as e:
        outcome = "refused" if e.exit_code != 5 else "escaped"
        return {"outcome": outcome, "detail": f"{type(e).__name__}: {e}"}
    except Exception:  # noqa: BLE001 - to see what escapes is the test
        return {"outcome": "escaped", "detail": traceback.format_exc(limit=-6)}
    return {"outcome": "ok", "detail": ""}


def main() -> None:
    """Serve until standard input ends."""
    import resource

    limit = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    warnings.simplefilter("error")
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(_answer(Path(line.strip()))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
