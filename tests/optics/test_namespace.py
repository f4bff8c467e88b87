"""The array namespace: torch through array_api_compat gives numpy's results."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PYTHON = REPO / ".venv-optics-oracles" / "bin" / "python"
WORKER = Path(__file__).with_name("namespace_worker.py")


@pytest.mark.long
@pytest.mark.skipif(not PYTHON.exists(), reason="needs `make optics-oracles`")
def test_torch_agrees_with_numpy() -> None:
    done = subprocess.run(
        [str(PYTHON), str(WORKER)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 18
    # Both in double precision; a level that tips would show as a whole step.
    assert {name: error for name, error in found.items() if error > 1e-12} == {}
