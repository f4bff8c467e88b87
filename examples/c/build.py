"""Build ``run_model.c`` for a bundle, with the headers and libraries of installed packages.

    python -m examples.c.build BUNDLE PROGRAM

What it calls, where ``FFI`` is the folder of ``tvm_ffi`` and ``RT`` that of
``edgevit_tvm_runtime``, or ``tvm/lib`` where all of TVM is installed::

    python -m examples.c.plan_header BUNDLE > model_plan.h
    cc -O2 -I. -IFFI/include run_model.c -o PROGRAM FFI/lib/libtvm_ffi.so
       -Wl,--no-as-needed RT/libtvm_runtime.so -Wl,-rpath,FFI/lib -Wl,-rpath,RT
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgevit.runtimes.tvm import PLACES
from examples.c.plan_header import header

__all__ = ["build", "build_here", "libraries", "main"]

SOURCE = Path(__file__).with_name("run_model.c")


def libraries() -> tuple[Path, Path]:
    """The folder of ``tvm_ffi``, and the one that holds ``libtvm_runtime.so``."""
    ffi = _package("tvm_ffi")
    found = [root / folder for name, folder, _ in PLACES if (root := _package(name))]
    if ffi is None or not found:
        raise RuntimeError("expected apache-tvm-ffi and TVM's runtime library, not installed")
    return ffi, found[0]


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) if places else None


def build(
    bundle: Path, program: Path, compiler: Sequence[str], ffi: Path, runtime: Path
) -> None:
    """Build the program for one bundle.

    Args:
        bundle: Whose code it will run.
        program: Where to.
        compiler: A C compiler for the machine that the bundle is for.
        ffi: Folder of ``tvm_ffi`` for that machine: ``include`` and ``lib``.
        runtime: Folder of ``libtvm_runtime.so`` for that machine.

    Raises:
        RuntimeError: The compiler fails; the message is its own.
    """
    (plan,) = bundle.glob("*.plan.json")
    lib = ffi / "lib"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model_plan.h").write_text(header(plan), encoding="utf-8")
        command = [*compiler, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        command += [
            f"-I{folder}",
            f"-isystem{ffi / 'include'}",
            str(SOURCE),
            "-o",
            str(program),
        ]
        command += [str(lib / "libtvm_ffi.so"), "-Wl,--no-as-needed"]
        command += [str(runtime / "libtvm_runtime.so")]
        command += [f"-Wl,-rpath,{lib}", f"-Wl,-rpath,{runtime}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the C program does not build:\n{done.stderr[-2000:]}")


def build_here(bundle: Path, program: Path) -> None:
    """Build for this machine with its C compiler, else with the one of ``ziglang``."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    command = (compiler,) if compiler else (sys.executable, "-m", "ziglang", "cc")
    build(bundle, program, command, *libraries())


def main() -> None:
    """Build for this machine."""
    bundle, program = map(Path, sys.argv[1:3])
    build_here(bundle, program)


if __name__ == "__main__":
    main()
