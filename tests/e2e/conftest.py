"""One compiled bundle for all tests of the command line: a compile takes seconds."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgevit.cli import main
from tests.support.cli import FIXTURES, PREPROCESS, Compiled, Ran, edgevit


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The hybrid fixture, compiled with preprocessing and a head."""
    folder = tmp_path_factory.mktemp("compiled")
    model = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
    out, recipe = folder / "hybrid.edgevit", folder / "recipe.toml"
    options = ["--preprocess", PREPROCESS, "--head", "topk", "--save-recipe", recipe]
    ran = edgevit(
        "compile", model, "--target", "linux-x86", "-o", out, *options, "--json", cwd=folder
    )
    assert ran.code == 0, ran.err
    return Compiled(model, out, recipe, ran)


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Ran]]:
    """The command line in this process: for commands that end before a native engine runs."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Ran:
        code = main([str(a) for a in arguments])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    yield run
    signal.signal(signal.SIGTERM, handler)
