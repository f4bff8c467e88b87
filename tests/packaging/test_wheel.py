"""The wheel: what is in it, and that a device can live on it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.device.tvm_wheel import fetch
from edgevit.runtimes.tvm import VERSIONS
from tests.packaging.sources import REPO, ROOMS, modules, project
from tests.support.cli import FIXTURES, edgevit


def packages() -> set[str]:
    """Packages by the directories on disk."""
    found = set()
    for name, path in modules().items():
        if path.name == "__init__.py":
            found.add(name)
    return found


def test_the_package_list_is_the_directories_on_disk() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    assert listed == sorted(listed)
    assert set(listed) == packages()


def test_every_directory_with_code_is_a_package() -> None:
    folders = {path.parent for path in modules().values()}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_the_package_map_names_the_rooms() -> None:
    expected = {"edgevit": "edgevit", **{f"edgevit.{room}": room for room in ROOMS}}
    assert project()["tool"]["setuptools"]["package-dir"] == expected


@pytest.mark.parametrize("room", ROOMS)
def test_the_links_show_type_checkers_the_same_tree(room: str) -> None:
    link = REPO / "edgevit" / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, from a copy so that the build leaves nothing in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("edgevit", *ROOMS):
        shutil.copytree(
            REPO / name,
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for path in REPO.iterdir():
        if path.is_file():
            shutil.copy(path, source / path.name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_edgevit_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    version = project()["project"]["version"]
    assert {n.split("/")[0] for n in names} == {"edgevit", f"edgevit-{version}.dist-info"}
    code = {n for n in names if n.endswith(".py")}
    expected = {
        "edgevit/" + "/".join(p.relative_to(REPO).parts).removeprefix("edgevit/")
        for p in modules().values()
    }
    assert code == expected


def test_the_wheel_has_its_data_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("edgevit/recipes", "targets/devices"):
        files = [p.name for p in (REPO / folder).glob("*.toml")]
        assert files
        inside = "edgevit/" + folder.removeprefix("edgevit/")
        assert {f"{inside}/{name}" for name in files} <= names
    assert "edgevit/py.typed" in names


COMPILER = ["onnx", "onnx_ir", "onnxscript", "onnxruntime", "networkx", "pydantic"]
DEVICE = """
import importlib.util, sys
import numpy as np
import edgevit

bundle, out, absent = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
installed = [name for name in absent if importlib.util.find_spec(name)]
assert installed == [], installed
with edgevit.load(bundle, threads=1, trust=True) as session:
    assert session.self_check().passed
    (given,), (made,) = session.inputs, session.outputs
    with np.load(out) as sample:
        for x, y in zip(sample["x"], sample["y"], strict=True):
            found = session.run({given.name: x})[made.name]
            assert np.abs(found - y).max() <= 1e-4 * np.abs(y).max()
loaded = {name.split(".")[0] for name in sys.modules} & set(absent)
assert loaded == set(), loaded
with open("/proc/self/maps") as maps:
    mapped = {line.rpartition("/")[2].strip() for line in maps}
print("mapped:", *sorted(name for name in mapped if name.startswith("libtvm")))
"""


def hybrid(folder: Path, target: str) -> Path:
    """The Fashion-MNIST hybrid compiled; two inputs and the source's answers."""
    import onnxruntime

    model = FIXTURES / "models" / "fashion_hybrid_ts.onnx"
    out = folder / "hybrid.edgevit"
    ran = edgevit("compile", model, "--target", target, "-o", out, cwd=folder)
    assert ran.code == 0, ran.err
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    xs = np.random.default_rng(0).standard_normal((2, *given.shape)).astype(np.float32)
    (answers,) = zip(*(session.run(None, {given.name: x}) for x in xs), strict=True)
    np.savez(folder / "sample.npz", x=xs, y=np.stack(answers))
    return out


def device(home: Path, *packages: str) -> str:
    """A fresh environment's Python, with these packages and what they require."""
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *packages], check=True)
    return python


def on_device(python: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [python, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=environment,
    )


def run_there(
    python: str, bundle: Path, absent: list[str]
) -> subprocess.CompletedProcess[str]:
    given = (str(bundle), str(bundle.parent / "sample.npz"), ",".join(absent))
    return on_device(python, bundle.parent, "-c", DEVICE, *given)


@pytest.mark.long
def test_a_device_needs_the_base_install_and_one_engine(wheel: Path, tmp_path: Path) -> None:
    bundle = hybrid(tmp_path, "linux-x86")
    python = device(tmp_path / "device", f"{wheel}[litert]")
    done = run_there(python, bundle, COMPILER)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_native_code_needs_the_small_runtime_and_no_compiler(
    wheel: Path, tmp_path: Path
) -> None:
    bundle = hybrid(tmp_path, "linux-x86:backend=tvm")
    python = device(tmp_path / "device", f"{wheel}[tvm-runtime]", str(fetch("x86_64")))
    done = run_there(python, bundle, [*COMPILER, "tvm", "ziglang"])
    assert done.returncode == 0, done.stderr
    assert "libtvm_runtime.so" in done.stdout
    assert "libtvm_compiler.so" not in done.stdout
    (about,) = (tmp_path / "device").rglob("edgevit_tvm_runtime-*.dist-info/METADATA")
    about.write_text(about.read_text().replace(VERSIONS["apache-tvm"], "0.28.0"))
    refused = on_device(python, tmp_path, "-m", "edgevit", "verify", str(bundle), "--trust")
    assert refused.returncode == 3
    assert "edgevit-tvm-runtime 0.28.0 is installed, the code needs 0.27.0" in refused.stderr
