"""The command line in a child process, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "FIXTURES",
    "PREPROCESS",
    "Compiled",
    "Ran",
    "edgevit",
    "environment",
    "install_silence",
]

FIXTURES = Path(__file__).parents[1] / "fixtures"
PREPROCESS = "color=gray,resize=28x28,scale=0.00392156862745098,mean=0.286,std=0.353"
_PLUGIN = Path(__file__).parent / "plugin"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """Stdout, which must be exactly one JSON object."""
        found: dict[str, Any] = json.loads(self.out, parse_constant=_no_constant)
        assert found["schema"] == 1
        return found

    @property
    def result(self) -> dict[str, Any]:
        """The envelope's result."""
        found: dict[str, Any] = self.envelope["result"]
        return found

    @property
    def error(self) -> dict[str, str]:
        """The envelope's error: code, message, hint."""
        found: dict[str, str] = self.envelope["error"]
        assert set(found) == {"code", "message", "hint"}
        assert "Traceback" not in self.err
        return found


@dataclass(frozen=True)
class Compiled:
    """A sealed LiteRT bundle of the hybrid, its recipe, and how the compile ended."""

    model: Path
    bundle: Path
    recipe: Path
    ran: Ran


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without a terminal's conventions."""
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR")}
    return {**kept, **(more or {})}


def edgevit(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None) -> Ran:
    """Run ``edgevit ARGUMENTS`` in ``cwd`` and wait."""
    done = subprocess.run(
        [sys.executable, "-m", "edgevit", *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def install_silence(folder: Path) -> dict[str, str]:
    """Put the plug-in of tests/support/plugin where a child finds it: its variables."""
    for file in ("silence.py", "silence_devices/toaster.toml"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes((_PLUGIN / file).read_bytes())
    info = folder / "edgevit_silence-1.dist-info"
    info.mkdir()
    about = "Metadata-Version: 2.1\nName: edgevit-silence\nVersion: 1\n"
    (info / "METADATA").write_text(about)
    (info / "entry_points.txt").write_text("[edgevit.plugins]\nsilence = silence:PLUGIN\n")
    return {"PYTHONPATH": str(folder)}
