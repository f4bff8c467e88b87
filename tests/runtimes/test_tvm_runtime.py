"""TVM's runtime library: which one is loaded, and in which versions."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from edgevit.errors import BackendMissingError
from edgevit.runtimes import tvm
from edgevit.runtimes.tvm import PLACES, VERSIONS, TVMEngine

SMALL = "edgevit_tvm_runtime"


def install(folder: Path, package: str, inside: str, name: str, version: str) -> None:
    """A package that holds an empty library, and its metadata."""
    library = folder / package / inside / "libtvm_runtime.so"
    library.parent.mkdir(parents=True)
    library.touch()
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that can be imported, with the pinned interface installed."""
    monkeypatch.delitem(sys.modules, "tvm", raising=False)
    monkeypatch.delitem(sys.modules, SMALL, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    install(tmp_path, "ffi", "", "apache-tvm-ffi", VERSIONS["apache-tvm-ffi"])
    return tmp_path


def test_the_library_alone_is_enough(bare: Path) -> None:
    install(bare, SMALL, "", "edgevit-tvm-runtime", VERSIONS["apache-tvm"])
    assert TVMEngine().probe().ok
    found = tvm._library()
    assert found == (bare / SMALL / "libtvm_runtime.so", "edgevit-tvm-runtime")


def test_the_compilers_own_library_comes_first(bare: Path) -> None:
    for package, folder, name in PLACES:
        install(bare, package, folder, name, VERSIONS["apache-tvm"])
    assert tvm._library() == (bare / "tvm" / "lib" / "libtvm_runtime.so", "apache-tvm")


def test_without_a_library_the_message_says_where_it_comes_from(bare: Path) -> None:
    with pytest.raises(BackendMissingError, match="apache-tvm or edgevit-tvm-runtime") as e:
        TVMEngine().probe().require()
    assert e.value.exit_code == 3


@pytest.mark.parametrize(
    ("package", "folder", "name"), PLACES, ids=[name for _, _, name in PLACES]
)
def test_another_version_of_the_library_is_refused(
    bare: Path, package: str, folder: str, name: str
) -> None:
    install(bare, package, folder, name, "0.28.0")
    with pytest.raises(BackendMissingError, match=f"{name} 0.28.0 is installed") as e:
        TVMEngine().probe().require()
    assert e.value.exit_code == 3


def test_another_version_of_the_interface_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tvm", raising=False)
    install(tmp_path, "ffi", "", "apache-tvm-ffi", "0.1.15.post2")
    install(tmp_path, SMALL, "", "edgevit-tvm-runtime", VERSIONS["apache-tvm"])
    assert importlib.metadata.version("apache-tvm-ffi") == "0.1.15.post2"
    with pytest.raises(BackendMissingError, match=r"apache-tvm-ffi 0\.1\.15\.post2") as e:
        TVMEngine().probe().require()
    assert e.value.exit_code == 3


def test_a_library_without_metadata_is_refused(bare: Path) -> None:
    (bare / SMALL).mkdir()
    (bare / SMALL / "libtvm_runtime.so").touch()
    with pytest.raises(BackendMissingError, match="edgevit-tvm-runtime of unknown version"):
        TVMEngine().probe().require()
