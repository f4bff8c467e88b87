from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevit import registry
from tests.support.bundles import install_toy


@pytest.fixture
def toys(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The toy plug-in, found through the entry-point door by this process and its children."""
    folder = tmp_path_factory.mktemp("toys")
    install_toy(folder)
    monkeypatch.syspath_prepend(folder)
    registry.plugins.cache_clear()
    yield folder
    registry.plugins.cache_clear()
