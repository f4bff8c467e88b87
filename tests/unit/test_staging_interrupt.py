"""A signal at any moment of staging leaves no directory beside the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.bundle import staging


def test_a_signal_while_the_directory_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python runs the handler when the system call returns: the directory exists by then."""
    mkdir = Path.mkdir

    def interrupted(self: Path) -> None:
        mkdir(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), staging(tmp_path / "out.edgevit"):
        pass
    assert list(tmp_path.iterdir()) == []
