"""Native engines' announcements stay off stderr; everything else reaches it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from edgevit.runtimes.messages import without_chatter
os.write(2, b"INFO: before\\n")
try:
    with without_chatter():
        os.write(2, b"INFO: created a delegate\\nERROR: a kernel failed\\n")
        print("from Python", file=sys.stderr)
        os.system("echo from a child >&2")
        {end}
except ValueError:
    pass
os.write(2, b"INFO: after\\n")
"""
EXPECTED = ["INFO: before", "ERROR: a kernel failed", "from Python", "from a child"]


@pytest.mark.parametrize("end", ["pass", "raise ValueError"])
def test_only_announcements_inside_are_dropped(end: str) -> None:
    command = [sys.executable, "-c", PROGRAM.format(end=end)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [*EXPECTED, "INFO: after"]


def test_a_process_without_stderr_runs_all_the_same() -> None:
    program = (
        "import os; os.close(2)\n"
        "from edgevit.runtimes.messages import without_chatter\n"
        "with without_chatter(): print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"done\n"
