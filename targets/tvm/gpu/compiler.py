"""CUDA source to PTX: by ``nvcc`` where a toolkit is installed, else by NVRTC's library.

PTX is what ships: the driver compiles it for the GPU that it finds, newer ones included.
"""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

from edgevit.errors import BackendMissingError, InternalError
from edgevit.targets.tvm.gpu.device import Gpu

__all__ = ["compiler", "ptx"]


def compiler() -> str:
    """Path of ``nvcc``, or of NVRTC's library; empty if there is neither."""
    found = shutil.which("nvcc")
    if found is not None:
        return found
    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(root).glob("*/lib/libnvrtc.so.*")):
            if "builtins" not in path.name and "alt" not in path.name:
                return str(path)
    return ""


def ptx(source: str, gpu: Gpu) -> bytes:
    """Compile.

    Raises:
        BackendMissingError: Neither compiler is installed.
        InternalError: The source is refused.
    """
    found = compiler()
    if not found:
        raise BackendMissingError(
            "no CUDA compiler: neither nvcc nor NVRTC",
            hint="pip install 'edgevit[cuda]' brings NVRTC",
        )
    arch = gpu.name.replace("sm_", "compute_")
    return _nvrtc(found, source, arch) if ".so" in found else _nvcc(found, source, arch)


def _nvcc(command: str, source: str, arch: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        code, out = Path(folder, "model.cu"), Path(folder, "model.ptx")
        code.write_text(source, encoding="utf-8")
        done = subprocess.run(
            [command, "-ptx", f"-arch={arch}", "-w", "-o", str(out), str(code)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise InternalError(f"nvcc refuses generated code: {done.stderr[-500:]}")
        return out.read_bytes()


def _nvrtc(library: str, source: str, arch: str) -> bytes:
    for other in sorted(Path(library).parent.glob("libnvrtc-builtins.so.*")):
        ctypes.CDLL(str(other))  # NVRTC asks for it by name, wherever it is
    api = ctypes.CDLL(library)
    program = ctypes.c_void_p()
    text = source.encode()
    made = api.nvrtcCreateProgram(ctypes.byref(program), text, b"model.cu", 0, None, None)
    if made:
        raise InternalError(f"NVRTC makes no program: error {made}")
    try:
        options = (ctypes.c_char_p * 1)(f"--gpu-architecture={arch}".encode())
        if api.nvrtcCompileProgram(program, 1, options):
            said = _text(api.nvrtcGetProgramLogSize, api.nvrtcGetProgramLog, program)
            raise InternalError(f"NVRTC refuses generated code: {said[-500:].decode()}")
        return _text(api.nvrtcGetPTXSize, api.nvrtcGetPTX, program).rstrip(b"\0")
    finally:
        api.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size: object, read: object, program: ctypes.c_void_p) -> bytes:
    count = ctypes.c_size_t()
    size(program, ctypes.byref(count))  # type: ignore[operator]
    buffer = ctypes.create_string_buffer(count.value)
    read(program, buffer)  # type: ignore[operator]
    return bytes(buffer.raw)
