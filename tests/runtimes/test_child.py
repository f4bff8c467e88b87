from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit.bundle import Binding, Entry, Part
from edgevit.errors import (
    ArtifactError,
    BackendMissingError,
    EdgevitError,
    GateError,
    InputError,
)
from edgevit.runtimes.child import run_isolated
from tests.support.bundles import toy_entry

pytestmark = pytest.mark.usefixtures("toys")
SHAPE = (2, 3)


def artifact(folder: Path, **said: Any) -> Path:
    (folder / "toy.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_many_batches_run_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    batches = [{"x": rng.standard_normal(SHAPE).astype(np.float32)} for _ in range(12)]
    root = artifact(tmp_path, scale=3, offset=1)
    found = run_isolated(root, toy_entry(SHAPE), batches, threads=1, timeout_s=60)
    assert len(found) == len(batches)
    for feeds, outputs in zip(batches, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], feeds["x"] * np.float32(3) + np.float32(1))


def test_no_batches_still_open_the_artifact(tmp_path: Path) -> None:
    root = artifact(tmp_path)
    assert run_isolated(root, toy_entry(SHAPE), [], timeout_s=60) == []
    artifact(tmp_path, mode="corrupt")
    with pytest.raises(ArtifactError, match="cannot read this"):
        run_isolated(tmp_path, toy_entry(SHAPE), [], timeout_s=60)


def test_five_hundred_tensors_of_odd_names_and_dtypes_pass(tmp_path: Path) -> None:
    dtypes = ["float16", "float32", "int64", "uint8", "float64"]
    names = [f"/blocks/../{i}:0\n\u2028'\"" for i in range(500)]
    dtype = {name: dtypes[i % 5] for i, name in enumerate(names)}
    shape = {name: (1, i % 3 + 1) if i % 7 else () for i, name in enumerate(names)}
    ins = tuple(Binding(n, n, dtype[n], shape[n], dtype[n], shape[n]) for n in names)
    outs = tuple(Binding("=" + b.name, "=" + b.name, *_rest(b)) for b in ins)
    feeds = {n: np.full(shape[n], i % 200, dtype[n]) for i, n in enumerate(names)}
    entry = Entry.of_part(Part("toy", "toy.json", ins, outs))
    found = run_isolated(artifact(tmp_path), entry, [feeds], timeout_s=60)[0]
    assert list(found) == ["=" + n for n in names]
    for name in names:
        assert found["=" + name].dtype == np.dtype(dtype[name])
        assert found["=" + name].shape == shape[name]
        np.testing.assert_array_equal(found["=" + name], feeds[name])


def _rest(b: Binding) -> tuple[str, tuple[int, ...], str, tuple[int, ...]]:
    return b.dtype, b.shape, b.artifact_dtype, b.artifact_shape


FAULTS: dict[str, tuple[dict[str, Any], type[EdgevitError], str]] = {
    "crash": ({"mode": "abort"}, GateError, "crashed: SIGABRT\n  the toy breaks"),
    "exit": ({"mode": "exit"}, GateError, "exit 7\n  the toy gives up"),
    "bug": ({"mode": "raise"}, GateError, "exit 1\n.*RuntimeError: the toy trips"),
    "corrupt": ({"mode": "corrupt"}, ArtifactError, "the toy cannot read this"),
    "too little": ({"mode": "silent"}, ArtifactError, "expected an output"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_in_the_child_is_an_error_here(tmp_path: Path, name: str) -> None:
    said, kind, message = FAULTS[name]
    feeds = {"x": np.zeros(SHAPE, np.float32)}
    with pytest.raises(kind, match=f"(?s){message}") as caught:
        run_isolated(artifact(tmp_path, **said), toy_entry(SHAPE), [feeds], timeout_s=60)
    assert type(caught.value) is kind


def test_a_hint_survives_the_way_back(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        run_isolated(artifact(tmp_path, mode="corrupt"), toy_entry(SHAPE), [], timeout_s=60)
    assert caught.value.hint == "buy another"


def test_a_hanging_engine_is_killed(tmp_path: Path) -> None:
    feeds = {"x": np.zeros(SHAPE, np.float32)}
    with pytest.raises(GateError, match=r"did not finish within 1\.5 seconds"):
        run_isolated(artifact(tmp_path, mode="hang"), toy_entry(SHAPE), [feeds], timeout_s=1.5)


def test_a_missing_engine_keeps_its_kind(tmp_path: Path) -> None:
    entry = toy_entry(SHAPE, engine="toy-missing")
    with pytest.raises(BackendMissingError, match="toy-lib is not installed"):
        run_isolated(artifact(tmp_path), entry, [], timeout_s=60)


def test_a_value_that_does_not_fit_keeps_its_kind(tmp_path: Path) -> None:
    to = Binding("x", "x", "int64", (1,), "int32", (1,))
    entry = Entry.of_part(Part("toy", "toy.json", (to,), (to,)))
    feeds = {"x": np.array([2**40])}
    with pytest.raises(InputError, match="does not fit int32"):
        run_isolated(artifact(tmp_path), entry, [feeds], timeout_s=60)
