"""Child process: runs many shared objects, so that a native crash is a test's result.

Reads a pickle of ``[(files, part, feeds), ...]`` from the file in argv[1]; writes one of
``[(outputs, error), ...]`` to the file in argv[2].
"""

from __future__ import annotations

import pickle
import sys
import tempfile
from pathlib import Path
from typing import Any


def _run(files: dict[str, bytes], part: Any, feeds: dict[str, Any]) -> tuple[Any, str]:
    from edgevit.errors import EdgevitError
    from edgevit.runtimes.tvm import TVMEngine

    with tempfile.TemporaryDirectory() as folder:
        for path, content in files.items():
            Path(folder, path).write_bytes(content)
        try:
            opened = TVMEngine().open(Path(folder, part.artifact), part, threads=2)
            return opened.run(feeds), ""
        except EdgevitError as e:
            return {}, e.message


def main() -> None:
    """Run all jobs; results so far survive a crash."""
    results = []
    for files, part, feeds in pickle.loads(Path(sys.argv[1]).read_bytes()):
        results.append(_run(files, part, feeds))
        Path(sys.argv[2]).write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main()
