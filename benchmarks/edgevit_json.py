"""Call the command line in a process of its own and read its JSON answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "call"]


@dataclass(frozen=True)
class Answer:
    """What a command answered.

    Attributes:
        exit_code: Its exit code.
        result: The envelope's ``result``.
        error: ``"message (hint)"``; empty if it succeeded.
    """

    exit_code: int
    result: dict[str, Any]
    error: str


def call(
    arguments: Sequence[str], quiet: bool = True, timeout_s: float | None = None
) -> Answer:
    """Run ``edgevit ARGUMENTS --json``.

    Args:
        arguments: The command and its options.
        quiet: Whether to keep its progress off the terminal.
        timeout_s: Seconds after which it is stopped.

    Raises:
        RuntimeError: It printed no JSON object (a crash), or took too long.
    """
    command = [sys.executable, "-m", "edgevit", *arguments, "--json"]
    try:
        done = subprocess.run(
            [*command, "--quiet"] if quiet else command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if quiet else None,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as e:
        raise RuntimeError(f"not done after {e.timeout:.0f} s") from e
    try:
        envelope = json.loads(done.stdout)
    except json.JSONDecodeError as e:
        said = (done.stderr or "").strip().splitlines()[-3:]
        raise RuntimeError(
            f"edgevit {' '.join(arguments)}: expected one JSON object, found "
            f"{done.stdout[:200]!r}; exit {done.returncode}; {said}"
        ) from e
    return Answer(done.returncode, envelope["result"], _error(envelope.get("error")))


def _error(error: dict[str, str] | None) -> str:
    if error is None:
        return ""
    hint = f" ({error['hint']})" if error.get("hint") else ""
    return f"{error['message']}{hint}"
