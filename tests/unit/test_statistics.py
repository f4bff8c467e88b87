"""Statistics over samples: streamed, saved, read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgevit.bundle import TensorInfo
from edgevit.calibration import NpzSource
from edgevit.errors import InputError
from edgevit.statistics import Statistics, collect, load
from tests.support.graphs import GraphBuilder

SHAPE = (1, 4, 6)


def _model() -> ir.Model:
    g = GraphBuilder()
    x = g.input("x", SHAPE)
    return g.model(g.op("Relu", x, out="y"))


def _collected(folder: Path, count: int) -> Statistics:
    rng = np.random.default_rng(0)
    data = rng.normal(0, 1, (count, *SHAPE)).astype(np.float32)
    np.savez(folder / "c.npz", x=data)
    source = NpzSource(folder / "c.npz", (TensorInfo("x", SHAPE, "float32"),), "")
    return collect(_model(), source, {"x": 1, "y": None})


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    found = _collected(tmp_path, 5)
    found.save(tmp_path / "s.npz")
    again = load(tmp_path / "s.npz")
    assert again.digest() == found.digest()
    assert (again.samples, again.synthetic) == (found.samples, found.synthetic)
    x, y = again.values["x"], again.values["y"]
    assert (x.samples, x.count, y.low) == (5, 5 * 24, 0.0)
    np.testing.assert_array_equal(x.channel_low, found.values["x"].channel_low)
    assert y.channel_low.size == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "s.npz"]


def test_memory_does_not_grow_with_samples(tmp_path: Path) -> None:
    def size(count: int) -> int:
        found = _collected(tmp_path, count).values["x"]
        return sum(np.asarray(v).nbytes for v in vars(found).values())

    assert size(4) == size(40)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x05\x06" + b"\0" * 18, b"PK\x03\x04", b"nothing"]
)
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected statistics") as caught:
        load(path)
    assert "collect them again" in caught.value.hint
