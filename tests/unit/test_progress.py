"""Progress: a bar on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import re

import pytest

from edgevit.progress import BarProgress, PlainProgress, SilentProgress, choose


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_conventions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_quiet_says_nothing() -> None:
    stream = Terminal()
    chosen = choose(quiet=True, stream=stream)
    assert isinstance(chosen, SilentProgress)
    with chosen.step("load"):
        pass
    assert stream.getvalue() == ""


def test_a_pipe_gets_plain_lines() -> None:
    stream = io.StringIO()
    chosen = choose(quiet=False, stream=stream)
    assert isinstance(chosen, PlainProgress)
    with chosen.step("load"):
        assert stream.getvalue() == ""
    with chosen.step("lower"):
        pass
    assert re.fullmatch(r"load +\d+\.\d s\nlower +\d+\.\d s\n", stream.getvalue())


def test_a_bar_grows_with_the_parts_of_its_step() -> None:
    stream = Terminal()
    chosen = choose(quiet=False, stream=stream)
    assert isinstance(chosen, BarProgress)
    with chosen.step("optimize") as tick:
        tick(3, 8)
        tick(8, 8)
    assert "optimize" in stream.getvalue()
    with choose(quiet=True).step("optimize") as tick:
        tick(1, 2)  # nobody looks


def test_ci_gets_plain_lines_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert isinstance(choose(quiet=False, stream=Terminal()), PlainProgress)


def test_a_terminal_gets_a_bar_in_color() -> None:
    stream = Terminal()
    chosen = choose(quiet=False, stream=stream)
    assert isinstance(chosen, BarProgress)
    with chosen.step("canonicalize"):
        pass
    assert "canonicalize" in stream.getvalue()
    assert re.search(r"\x1b\[[0-9;]*3\d", stream.getvalue())


def test_no_color_takes_the_color_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with choose(quiet=False, stream=stream).step("canonicalize"):
        pass
    assert "canonicalize" in stream.getvalue()
    assert not re.search(r"\x1b\[[0-9;]*3\d", stream.getvalue())


@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_that_fails_passes_its_error_on(terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    chosen = choose(quiet=False, stream=stream)

    def fail() -> None:
        with chosen.step("lower"):
            raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        fail()
