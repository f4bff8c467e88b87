"""Whether what a bundle holds may be loaded: native code runs as soon as it is.

Only the standard library: this file is part of the base install.
"""

from __future__ import annotations

from edgevit.errors import ArtifactError
from edgevit.manifest import Manifest

__all__ = ["check_trust"]

# Files that run when an engine loads them, here or on a GPU.
_CODE_SUFFIXES = (".so", ".dylib", ".dll", ".pyd", ".ptx")


def check_trust(manifest: Manifest, trust: bool) -> None:
    """Refuse native code from somebody who is not known.

    Raises:
        ArtifactError: The bundle holds code and ``trust`` is off.
    """
    code = [f.path for f in manifest.files if _is_code(f.path)]
    if code and not trust:
        raise ArtifactError(
            f"the bundle holds native code, which runs when it is loaded: {code[0]!r}",
            hint="give --trust (trust=True) if you know who made the bundle",
        )


def _is_code(path: str) -> bool:
    name = path.rpartition("/")[2].lower()
    return name.endswith(_CODE_SUFFIXES) or ".so." in name
