"""The small wheel of TVM's runtime: what a device needs beside ``apache-tvm-ffi``.

    python -m benchmarks.device.tvm_wheel [--machine x86_64|aarch64] [--into FOLDER]

The pinned ``apache-tvm`` comes with a compiler library of 250 MB, which a device does not
call. ``edgevit-tvm-runtime`` holds that wheel's ``libtvm_runtime.so``, byte for byte, and its
licence texts. The same wheel gives the same bytes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.corpus.store import CACHE, ROOT, CorpusUnavailableError, write_atomic
from edgevit.runtimes.tvm import VERSIONS

__all__ = ["MACHINES", "NAME", "fetch", "main", "small_wheel"]

NAME = "edgevit_tvm_runtime"
LIBRARY = "libtvm_runtime.so"
# Machine -> ELF's number of it, and the platform tag of the pinned wheel.
MACHINES = {"x86_64": 62, "aarch64": 183}
_TAG = "manylinux_2_28_{machine}"
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say
_INIT = '"""The runtime library of Apache TVM, alone; loaded by edgevit."""\n'


def fetch(machine: str, cache: Path = CACHE) -> Path:
    """The small wheel for a machine in the cache, built if it is not there.

    Raises:
        CorpusUnavailableError: The pinned wheel cannot be downloaded.
    """
    folder = cache / "tvm-runtime"
    path = folder / _file(machine)
    if not path.is_file():
        with tempfile.TemporaryDirectory() as name:
            write_atomic(path, small_wheel(_download(machine, Path(name)), machine))
    return path


def small_wheel(source: Path, machine: str) -> bytes:
    """The small wheel's content.

    Args:
        source: A wheel of ``apache-tvm``.
        machine: What its library must be for: a key of ``MACHINES``.

    Raises:
        ValueError: The wheel holds no library, or one for another machine.
    """
    with zipfile.ZipFile(source) as archive:
        names = archive.namelist()
        if f"tvm/lib/{LIBRARY}" not in names:
            raise ValueError(f"{source.name}: expected tvm/lib/{LIBRARY}, it does not hold it")
        library = archive.read(f"tvm/lib/{LIBRARY}")
        texts = {
            f"licenses/{Path(n).name}": archive.read(n)
            for n in names
            if n in ("tvm/LICENSE", "tvm/NOTICE") or n.startswith("tvm/licenses/LICENSE")
        }
    number = int.from_bytes(library[18:20], "little")
    if library[:4] != b"\x7fELF" or number != MACHINES[machine]:
        raise ValueError(
            f"{source.name}: expected a library for {machine}, found ELF {number}"
        )
    return _packed(library, texts, machine)


def _file(machine: str) -> str:
    return f"{NAME}-{VERSIONS['apache-tvm']}-py3-none-{_TAG.format(machine=machine)}.whl"


def _packed(library: bytes, texts: Mapping[str, bytes], machine: str) -> bytes:
    info = f"{NAME}-{VERSIONS['apache-tvm']}.dist-info"
    files = {
        f"{NAME}/__init__.py": _INIT.encode(),
        f"{NAME}/{LIBRARY}": library,
        **{f"{info}/{name}": text for name, text in sorted(texts.items())},
        f"{info}/METADATA": _metadata(sorted(texts)).encode(),
        f"{info}/WHEEL": _about(machine).encode(),
    }
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return content.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _metadata(texts: list[str]) -> str:
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {NAME.replace('_', '-')}",
        f"Version: {VERSIONS['apache-tvm']}",
        "Summary: The runtime library of Apache TVM, unchanged and alone",
        "License-Expression: Apache-2.0",
        *(f"License-File: {name.removeprefix('licenses/')}" for name in texts),
        "Requires-Python: >=3.11",
        f"Requires-Dist: apache-tvm-ffi=={VERSIONS['apache-tvm-ffi']}",
    ]
    return "\n".join([*lines, ""])


def _about(machine: str) -> str:
    return (
        "Wheel-Version: 1.0\nGenerator: edgevit\nRoot-Is-Purelib: false\n"
        f"Tag: py3-none-{_TAG.format(machine=machine)}\n"
    )


def _download(machine: str, folder: Path) -> Path:
    wanted = f"apache-tvm=={VERSIONS['apache-tvm']}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary=:all:", "--platform", _TAG.format(machine=machine)]
    done = subprocess.run(
        [*pip, *options, "--dest", str(folder), wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    found = list(folder.glob("*.whl"))
    if done.returncode or len(found) != 1:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise CorpusUnavailableError(f"{wanted} for {machine}", reason=f"pip: {said[0]}")
    return found[0]


def main() -> int:
    """Build it and print its path and size."""
    parser = argparse.ArgumentParser(description="Build the small wheel of TVM's runtime.")
    parser.add_argument("--machine", choices=MACHINES, default=platform.machine())
    parser.add_argument("--into", type=Path, default=ROOT / "dist", metavar="FOLDER")
    options = parser.parse_args()
    try:
        data = fetch(options.machine).read_bytes()
    except (CorpusUnavailableError, ValueError) as e:
        raise SystemExit(str(e)) from e
    path = options.into / _file(options.machine)
    write_atomic(path, data)
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    print(f"{path}: {len(data) / 1e6:.2f} MB, {unpacked / 1e6:.2f} MB installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
