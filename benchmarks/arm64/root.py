"""A Debian arm64 root with Python 3.11 and the engines' wheels, kept in the cache.

The root is unpacked, not installed: no program of it runs until ``qemu-aarch64-static`` starts
its Python. It is built once for each set of pins and renamed into place when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.corpus.store import CACHE, ROOT, CorpusUnavailableError
from benchmarks.device.tvm_wheel import fetch

__all__ = [
    "CPU",
    "EMULATOR",
    "PYTHON",
    "SITE",
    "SYSTEM",
    "key",
    "missing_tools",
    "prepare_native",
    "prepare_root",
    "require_tools",
]

LOCK = ROOT / "requirements" / "arm64.lock"
NATIVE_LOCK = ROOT / "requirements" / "arm64-tvm.lock"
SUITE = "bookworm"
PACKAGES = ("libgcc-s1", "libstdc++6", "python3.11-minimal", "libpython3.11-stdlib", "zlib1g")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
EMULATOR = "qemu-aarch64-static"
CPU = "cortex-a76"  # the cores of a Raspberry Pi 5
SYSTEM, SITE, PYTHON = "root", "site", "usr/bin/python3.11"
# Program -> Debian package.
TOOLS = {EMULATOR: "qemu-user-static", "debootstrap": "debootstrap"}
_SBIN = f"{os.defpath}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
_CORE = """processor\t: {index}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm \
lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def key() -> str:
    """What the root depends on, as 16 hexadecimal digits."""
    pins = (LOCK.read_text(encoding="utf-8"), SUITE, *PACKAGES, CPU)
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()[:16]


def missing_tools() -> list[str]:
    """Debian packages of the programs that are not on this machine."""
    return [package for name, package in TOOLS.items() if _which(name) is None]


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def require_tools(install: bool) -> None:
    """Make sure that the emulator and debootstrap are there.

    Args:
        install: Whether ``apt-get`` may install them; it needs root.

    Raises:
        CorpusUnavailableError: They are not, and cannot be installed.
    """
    missing = missing_tools()
    if missing and install and os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
        subprocess.run(["apt-get", "update"], capture_output=True, check=False)
        subprocess.run(command, capture_output=True, check=False)
        missing = missing_tools()
    if missing:
        reason = "apt-get install them; the target does it when it runs as root"
        raise CorpusUnavailableError(", ".join(missing), reason=reason)


def prepare_root(cache: Path = CACHE) -> Path:
    """The folder with ``root`` and ``site``; built if these pins have none yet.

    Raises:
        CorpusUnavailableError: It is not there and cannot be built on this machine.
    """
    folder = cache / "arm64" / key()
    if not folder.is_dir():
        _build(folder)
    _describe_cores(folder / SYSTEM, os.cpu_count() or 1)
    return folder


def prepare_native(cache: Path = CACHE) -> Path:
    """The folder with the packages that run native code, for ARM64.

    Beside the root, so that their pins do not make another one.

    Raises:
        CorpusUnavailableError: It is not there and the packages cannot be had.
    """
    small = fetch("aarch64", cache)
    pins = NATIVE_LOCK.read_bytes() + small.name.encode()
    folder = cache / "arm64" / f"tvm-{hashlib.sha256(pins).hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as name:
            stage = Path(name) / "stage"
            _wheels(stage, "--requirement", str(NATIVE_LOCK), str(small))
            stage.replace(folder)
    return folder


def _build(folder: Path) -> None:
    if os.geteuid() != 0:
        raise CorpusUnavailableError("the ARM64 root", reason="debootstrap needs root")
    folder.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.write("building the ARM64 root (once, a minute or two)\n")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        stage = Path(name) / "stage"
        _system(stage / SYSTEM)
        _wheels(stage / SITE, "--requirement", str(LOCK))
        stage.replace(folder)


def _system(root: Path) -> None:
    """Debian's packages: debootstrap unpacks the required ones, we the ones for Python."""
    include = f"--include={','.join(PACKAGES)}"
    options = ["--foreign", "--arch=arm64", "--variant=minbase", include, SUITE, str(root)]
    root.parent.mkdir(parents=True)
    _call([_which("debootstrap") or "debootstrap", *options])
    archives = root / "var" / "cache" / "apt" / "archives"
    for package in (root / "debootstrap" / "base").read_text(encoding="utf-8").split():
        for archive in archives.glob(f"{package}_*.deb"):
            _unpack(archive, root)
    shutil.rmtree(archives)
    # The emulator looks into the root first: what must come from this machine is not in it.
    if (root / "proc").is_symlink():
        (root / "proc").unlink()


def _unpack(archive: Path, root: Path) -> None:
    """Unpack through the links of a merged ``/usr``, which ``dpkg-deb -x`` would replace."""
    with tempfile.TemporaryFile() as content:
        subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=content, check=True
        )
        content.seek(0)
        command = ["tar", "--extract", "--keep-directory-symlink", "--directory", str(root)]
        subprocess.run(command, stdin=content, check=True)


def _wheels(site: Path, *what: str) -> None:
    platforms = [text for name in PLATFORMS for text in ("--platform", name)]
    options = ["--only-binary=:all:", "--no-deps", "--no-compile", "--python-version", "3.11"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    where = ["--implementation", "cp", "--target", str(site)]
    _call([*pip, *options, *platforms, *where, *what])


def _describe_cores(root: Path, count: int) -> None:
    """Let programs see cores of the emulated kind, as many as this machine has.

    ONNX Runtime reads the model of each core there, and crashes on what it finds in the
    ``/proc/cpuinfo`` of an x86 machine.
    """
    processors = root / "sys" / "devices" / "system" / "cpu"
    processors.mkdir(parents=True, exist_ok=True)
    (root / "proc").mkdir(exist_ok=True)
    text = "".join(_CORE.format(index=i) for i in range(count))
    (root / "proc" / "cpuinfo").write_text(text, encoding="ascii")
    for name in ("possible", "present"):
        (processors / name).write_text(f"0-{count - 1}\n", encoding="ascii")


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        name = Path(command[0]).name if "pip" not in command else "pip"
        raise CorpusUnavailableError("the ARM64 root", reason=f"{name}: {said[0]}")
