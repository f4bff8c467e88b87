"""Run one command and print its wall seconds, CPU seconds and peak memory as JSON.

    python -S -E stopwatch.py PROGRAM [ARGUMENT ...]

Small on purpose, and a process of its own: on Linux a program inherits the peak memory of the
process that started it (getrusage(2)), so whoever starts it must be smaller than anything
measured. What the command prints goes to stderr; it sees the environment unchanged.
"""

import json
import os
import sys
import time

__all__ = ["main"]


def main() -> int:
    """Run ``sys.argv[1:]``; exit with its status."""
    start = time.perf_counter()
    streams = [(os.POSIX_SPAWN_DUP2, 2, 1)]
    process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=streams)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - start
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes, kibibytes
    figures = {
        "wall_s": wall,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / unit,
    }
    print(json.dumps(figures))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
