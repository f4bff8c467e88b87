"""Models that lie about themselves or are too large: exit 2, why and where, and no bundle.

What ``load`` says of each is tested in ``tests/unit/test_load_errors.py``; this is the way
of a user, through the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgevit
from edgevit.bundle import STAGING_PREFIX
from tests.support.cli import FIXTURES, Ran

Call = Callable[..., Ran]
VIT = FIXTURES / "models" / "fashion_vit_ts.onnx"
TARGETS = ("onnx", "linux-x86", "iphone-npu")


def _dense(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "hostile",
        [info("x", TensorProto.FLOAT, [1, 4])],
        [info("y", TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _weight(location: str = "w.bin", columns: int = 4) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, columns])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _product() -> list[onnx.NodeProto]:
    return [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]


def _cycle() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "second"),
        helper.make_node("Relu", ["b"], ["y"], "third"),
    ]
    return _dense(nodes, [])


def _twice_a_value() -> onnx.ModelProto:
    nodes = [helper.make_node(op, ["x"], ["y"], op) for op in ("Relu", "Abs")]
    return _dense(nodes, [])


def _twice_a_weight() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    return _dense(_product(), [weight, weight])


def _outside(location: str) -> Callable[[], onnx.ModelProto]:
    return lambda: _dense(_product(), [_weight(location)])


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "cycle": (_cycle, "cycle: "),
    "value twice": (_twice_a_value, "value 'y' is defined twice"),
    "weight twice": (_twice_a_weight, "'w'"),
    "missing data": (_outside("gone.bin"), "gone.bin does not exist"),
    "data above": (_outside("../w.bin"), "'../w.bin' is refused"),
    "data anywhere": (_outside("/etc/passwd"), "'/etc/passwd' is refused"),
    "data by a link": (_outside("link.bin"), "leads outside"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_models_are_refused(kind: str, call: Call, tmp_path: Path) -> None:
    build, says = HOSTILE[kind]
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    onnx.save_model(build(), folder / "m.onnx")
    ran = call("compile", folder / "m.onnx", "--target", "onnx", "-o", "out.edgevit")
    assert ran.code == 2
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "w.bin"]


@pytest.mark.parametrize("target", TARGETS)
def test_weights_above_the_formats_limit_are_refused_unread(
    target: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file: 2.1 GB that take no place, and would take seconds to read."""
    columns = (1 << 31) // 16
    onnx.save_model(_dense(_product(), [_weight(columns=columns)]), tmp_path / "m.onnx")
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(16 * columns)
    monkeypatch.setattr("edgevit.loading._digest", lambda *a: pytest.fail("it was read"))
    ran = call("compile", "m.onnx", "--target", target, "-o", "out.edgevit")
    assert ran.code == 2
    assert f"m.onnx: weights of {1 << 31} bytes, expected at most " in ran.err
    assert ("flatbuffer" if target == "linux-x86" else "protobuf") in ran.err
    assert not (tmp_path / "out.edgevit").exists()


@pytest.mark.parametrize(
    "target",
    ["onnx", *(pytest.param(t, marks=pytest.mark.long) for t in TARGETS[1:])],
)
def test_external_data_gives_the_same_bundle_as_one_file(target: str, tmp_path: Path) -> None:
    """And the artifact needs no file beside the bundle's own."""
    model = onnx.load_model(VIT)
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save_model(
        model,
        folder / VIT.name,
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    made = [
        edgevit.compile(source, target=target, output=tmp_path / f"{i}.edgevit", verify=check)
        for i, (source, check) in enumerate(((folder / VIT.name, True), (VIT, False)))
    ]
    external, alone = (
        {f.path: f.sha256 for f in b.manifest.files if f.path != "report.json"} for b in made
    )
    assert external == alone
    assert made[0].manifest.verified


@pytest.mark.skipif(os.geteuid() == 0, reason="skipped: needs a user whom permissions bind")
def test_a_directory_without_permission_is_known_at_once(call: Call, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    ran = call("compile", VIT, "--target", "onnx", "-o", "closed/out.edgevit")
    assert (ran.code, "closed: cannot be written" in ran.err) == (2, True)


def test_a_directory_that_cannot_be_written_is_known_before_the_work(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    monkeypatch.setattr("edgevit.api.load", lambda *a, **k: pytest.fail("work has begun"))
    ran = call("compile", VIT, "--target", "onnx", "-o", tmp_path / "out.edgevit")
    assert ran.code == 2
    assert f"{tmp_path}: cannot be written" in ran.err


def test_a_disk_that_fills_up_leaves_nothing(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgevit.bundle.os.fsync", no_space)
    ran = call("compile", VIT, "--target", "onnx", "--no-verify", "-o", "out.edgevit")
    assert ran.code == 2
    assert "cannot be written: No space left on device" in ran.err
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(STAGING_PREFIX)]
    assert not (tmp_path / "out.edgevit").exists()
