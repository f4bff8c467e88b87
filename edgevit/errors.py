"""The errors of edgevit, each with the exit code that the command line ends with.

A message says what was expected, what was found and where; the hint says what to do.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ArtifactError",
    "Availability",
    "BackendMissingError",
    "EdgevitError",
    "GateError",
    "InputError",
    "InternalError",
    "UnsupportedModelError",
    "UsageError",
    "probe_package",
    "probe_packages",
]


class EdgevitError(Exception):
    """Base of all errors that edgevit raises on purpose.

    Attributes:
        exit_code: Process exit status (design: 1 gate, 2 input, 3 backend, 4 artifact, 5 bug).
        code: Stable machine-readable name.
        hint: What the user can do about it; may be empty.
    """

    exit_code = 5
    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The message without the hint."""
        return str(self.args[0])


class GateError(EdgevitError):
    """A gate failed: coverage, parity or budget.

    Attributes:
        result: What was found, as the command's JSON result; ``None`` if nothing was.
    """

    exit_code = 1
    code = "gate"
    result: dict[str, Any] | None = None


class UsageError(EdgevitError):
    """Bad usage: an option, a name or a combination that does not exist."""

    exit_code = 2
    code = "usage"


class InputError(EdgevitError):
    """Bad input: a model, an array or a file that cannot be taken as it is."""

    exit_code = 2
    code = "input"


class UnsupportedModelError(GateError):
    """The model holds an operator that the target cannot run."""

    code = "unsupported"


class BackendMissingError(EdgevitError):
    """A backend or engine is not installed; the message names the extra."""

    exit_code = 3
    code = "backend-missing"


class ArtifactError(EdgevitError):
    """A bundle is corrupt, incomplete, of an unknown schema, or not trusted."""

    exit_code = 4
    code = "artifact"


class InternalError(EdgevitError):
    """A bug of ours: a state that should not be reachable."""

    exit_code = 5
    code = "internal"


@dataclass(frozen=True)
class Availability:
    """Whether a backend or engine works on this machine.

    Attributes:
        name: Backend or engine name.
        ok: True if it can be used.
        version: Version of the library behind it; empty if absent.
        reason: Why it cannot be used; empty if it can.
        extra: The pip extra that installs it.
    """

    name: str
    ok: bool
    version: str
    reason: str
    extra: str

    def require(self) -> None:
        """Raise ``BackendMissingError`` unless it can be used."""
        if not self.ok:
            raise BackendMissingError(
                f"{self.name} is needed here and is not available: {self.reason}",
                hint=f"pip install 'edgevit[{self.extra}]'" if self.extra else "",
            )


def probe_packages(
    name: str, extra: str, distribution: str, *others: tuple[str, str]
) -> Availability:
    """Say whether several distributions are installed; the version is the first one's.

    Args:
        name: Backend or engine name used in messages.
        extra: The edgevit extra that installs ``distribution``.
        distribution: Name on the package index.
        others: More distributions, each with the extra that installs it.
    """
    found = probe_package(name, distribution, extra)
    rest = (probe_package(name, other, its_extra) for other, its_extra in others)
    return next((a for a in (found, *rest) if not a.ok), found)


def probe_package(name: str, distribution: str, extra: str) -> Availability:
    """Say whether ``distribution`` is installed, without importing it.

    Args:
        name: Backend or engine name used in messages.
        distribution: Name on the package index, for example ``"ai-edge-litert"``.
        extra: The edgevit extra that installs it.
    """
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return Availability(name, False, "", f"{distribution} is not installed", extra)
    return Availability(name, True, version, "", extra)
