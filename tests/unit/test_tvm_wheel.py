"""The small wheel of TVM's runtime: content, records, refusals; no network."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from benchmarks.device.tvm_wheel import MACHINES, NAME, small_wheel
from edgevit.runtimes.tvm import VERSIONS

TEXTS = {"tvm/LICENSE": b"terms", "tvm/NOTICE": b"notice", "tvm/licenses/LICENSE.x": b"x"}


def pinned(folder: Path, machine: str, extra: dict[str, bytes]) -> Path:
    """A wheel with a library of that machine, as far as its ELF header says."""
    library = b"\x7fELF" + bytes(14) + MACHINES[machine].to_bytes(2, "little") + b"code"
    path = folder / "apache_tvm.whl"
    content = {**TEXTS, "tvm/lib/libtvm_runtime.so": library, **extra}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("machine", MACHINES)
def test_it_holds_the_library_the_licences_and_nothing_else(
    tmp_path: Path, machine: str
) -> None:
    source = pinned(
        tmp_path, machine, {"tvm/lib/libtvm_compiler.so": b"large", "tvm/x.py": b""}
    )
    data = small_wheel(source, machine)
    assert data == small_wheel(source, machine)
    info = f"{NAME}-{VERSIONS['apache-tvm']}.dist-info"
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(source) as whole:
        names = set(archive.namelist())
        library = archive.read(f"{NAME}/libtvm_runtime.so")
        assert library == whole.read("tvm/lib/libtvm_runtime.so")
        about = archive.read(f"{info}/METADATA").decode()
        texts = {"LICENSE", "NOTICE", "LICENSE.x"}
        assert {n.rpartition("/")[2] for n in names if "/licenses/" in n} == texts
        made = {n for n in names if "/licenses/" not in n}
        records = archive.read(f"{info}/RECORD").decode().splitlines()
        for row in records[:-1]:
            name, digest, size = row.split(",")
            content = archive.read(name)
            found = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert (digest, int(size)) == (f"sha256={found.rstrip('=')}", len(content))
    assert made == {
        f"{NAME}/__init__.py",
        f"{NAME}/libtvm_runtime.so",
        *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
    }
    assert len(records) == len(names)
    assert f"Requires-Dist: apache-tvm-ffi=={VERSIONS['apache-tvm-ffi']}" in about


def test_a_library_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a library for aarch64, found ELF 62"):
        small_wheel(pinned(tmp_path, "x86_64", {}), "aarch64")


def test_a_wheel_without_the_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(ValueError, match=r"expected tvm/lib/libtvm_runtime\.so"):
        small_wheel(path, "x86_64")
