"""An interrupted compile leaves nothing: no bundle, no half of one, no staging directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cli import FIXTURES, environment

VIT = FIXTURES / "models" / "fashion_vit_ts.onnx"
# How long to wait for a step's line on stderr; a loaded machine takes its time.
LIMIT_S = 120.0


def _interrupt(folder: Path, step: str, number: signal.Signals) -> tuple[int, str]:
    """Compile; send the signal once ``step`` is reported done; exit code and stderr."""
    folder.mkdir()
    command = [sys.executable, "-u", "-m", "edgevit", "compile", str(VIT)]
    process = subprocess.Popen(
        [*command, "--target", "linux-x86", "-o", "out.edgevit"],
        cwd=folder,
        env=environment({"TMPDIR": str(folder.parent / "tmp")}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells start background jobs, and so their tests, with the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    said = ""
    while not said.endswith("\n") or not said.splitlines()[-1].startswith(step):
        line = process.stderr.readline()
        assert line, f"the compile ended before {step!r}: {said}"
        said += line
    # Into the middle of the next step, which lasts longer than that.
    time.sleep(0.05)
    if number is signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal's Ctrl-C: the children get it too
    else:
        process.send_signal(number)
    out, rest = process.communicate(timeout=LIMIT_S)
    assert out == ""
    return process.returncode, rest


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("load", signal.SIGINT),
        ("lower", signal.SIGTERM),
        ("stage", signal.SIGINT),
        ("stage", signal.SIGTERM),
    ],
    ids=lambda v: v.name if isinstance(v, signal.Signals) else f"after {v}",
)
def test_nothing_is_left(tmp_path: Path, step: str, number: signal.Signals) -> None:
    (tmp_path / "tmp").mkdir()
    code, said = _interrupt(tmp_path / "work", step, number)
    assert code == 130
    assert said.splitlines()[-1] == "interrupted; nothing was left half-written"
    assert "Traceback" not in said
    assert list((tmp_path / "work").iterdir()) == []
    # tempfile.mkdtemp may be interrupted between making a directory and returning its name.
    assert [p for p in (tmp_path / "tmp").rglob("*") if p.is_file()] == []


def test_an_interrupt_of_code_from_a_string_ends_alike(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "import sys\n"
        "from edgevit import commands\n"
        "from edgevit.cli import main\n"
        "commands.targets_command = lambda options: exec('raise KeyboardInterrupt')\n"
        "sys.exit(main(['targets']))\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, cwd=tmp_path, env=environment({}), capture_output=True)
    assert done.returncode == 130
