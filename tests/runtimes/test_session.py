from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgevit
from edgevit import registry
from edgevit.bundle import Binding, Entry, Part
from edgevit.errors import (
    ArtifactError,
    BackendMissingError,
    EdgevitError,
    InputError,
    UsageError,
)
from edgevit.manifest import SelfCheck
from edgevit.runtimes.chain import Chain
from edgevit.runtimes.heads import softmax, topk
from edgevit.runtimes.session import load
from tests.support.bundles import same, tensor, toy_bundle, toy_entry

pytestmark = pytest.mark.usefixtures("toys")
SHAPE = (1, 2, 3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "toy.edgevit"


def ramp(shape: tuple[int, ...] = SHAPE, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def test_a_session_speaks_the_source_models_names(out: Path) -> None:
    toy_bundle(out)
    with edgevit.load(out, threads=1) as session:
        assert [(i.name, i.shape, i.dtype) for i in session.inputs] == [
            ("x", SHAPE, "float32")
        ]
        assert [(o.name, o.shape, o.dtype) for o in session.outputs] == [
            ("y", SHAPE, "float32")
        ]
        found = session.run({"x": ramp()})
    assert list(found) == ["y"]
    np.testing.assert_array_equal(found["y"], 2 * ramp() + 1)
    assert found["y"].flags.owndata or found["y"].base is None
    with pytest.raises(InputError, match="closed"):
        session.run({"x": ramp()})


BAD_FEEDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "wrong name": ({"X": ramp()}, r"unknown input 'X': expected \['x'\]", "known: x"),
    "extra name": ({"x": ramp(), "z": ramp()}, "unknown input 'z'", "x"),
    "missing": ({}, "input 'x' is missing", ""),
    "wrong shape": (
        {"x": ramp((1, 3, 2))},
        r"input 'x': expected shape \(1, 2, 3\), found \(1, 3, 2\)",
        "",
    ),
    "no batch": ({"x": ramp((2, 3))}, r"found \(2, 3\)", ""),
    "wrong dtype": (
        {"x": ramp().astype(np.float64)},
        "expected dtype float32, found float64",
        "astype",
    ),
    "byte order": ({"x": ramp().astype(">f4")}, "expected dtype float32, found >f4", "astype"),
    "not an array": ({"x": ramp().tolist()}, "expected a numpy array, found list", ""),
}


@pytest.mark.parametrize("name", BAD_FEEDS)
def test_wrong_feeds_say_what_was_expected_and_found(out: Path, name: str) -> None:
    feeds, message, hint = BAD_FEEDS[name]
    toy_bundle(out)
    with load(out) as session, pytest.raises(InputError, match=message) as caught:
        session.run(feeds)
    assert caught.value.exit_code == 2
    assert hint in caught.value.hint


def test_the_entry_is_picked_by_the_shapes(out: Path) -> None:
    toy_bundle(out, shapes=[(1, 2), (4, 2), (1, 5)])
    with load(out) as session:
        for shape in [(4, 2), (1, 5), (1, 2)]:
            np.testing.assert_array_equal(
                session.run({"x": ramp(shape)})["y"], 2 * ramp(shape) + 1
            )
        with pytest.raises(
            InputError, match=r"expected shape \(1, 2\) or \(4, 2\) or \(1, 5\)"
        ):
            session.run({"x": ramp((2, 2))})
        assert session.self_check().passed


def test_only_the_asked_entry_is_opened(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(1, 2), (4, 2), (1, 5)]
    toy_bundle(out, shapes=shapes)
    opened = []

    class Counted(Chain):
        def __init__(self, root: Path, entry: Entry, *more: Any) -> None:
            opened.append(entry.inputs[0].shape)
            super().__init__(root, entry, *more)

    monkeypatch.setattr("edgevit.runtimes.session.Chain", Counted)
    with load(out, shapes={"x": (4, 2)}) as session:
        assert opened == [(4, 2)]
        session.run({"x": ramp((4, 2))})
        assert opened == [(4, 2)]
        session.run({"x": ramp((1, 2))})
        assert opened == [(4, 2), (1, 2)]
    with pytest.raises(InputError, match=r"no entry of the bundle has the shapes .*\(9, 9\)"):
        load(out, shapes={"x": (9, 9)})


def test_entries_share_their_engine(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_bundle(out, shapes=[(1, 2), (4, 2)])
    made: list[str] = []
    thunk = registry.load

    def counted(kind: Any, name: str) -> Any:
        made.append(name)
        return thunk(kind, name)

    monkeypatch.setattr("edgevit.runtimes.chain.registry.load", counted)
    with load(out) as session:
        for shape in ((1, 2), (4, 2)):
            session.run({"x": ramp(shape)})
    assert made == ["toy"]


def test_shapes_that_fit_no_entry_together_are_refused(out: Path) -> None:
    def two(a: int, b: int) -> Entry:
        shapes = {"a": (a,), "b": (b,)}
        inputs = tuple(same(n, s) for n, s in shapes.items())
        part = Part("toy", "toy.json", inputs, (same("y", (a,)),))
        infos = tuple(tensor(n, s) for n, s in shapes.items())
        return Entry((part,), infos, (tensor("y", (a,)),))

    toy_bundle(out, entries=(two(1, 1), two(2, 2)))
    with (
        load(out) as session,
        pytest.raises(InputError, match=r"together: a=\(1,\), b=\(2,\)"),
    ):
        session.run({"a": ramp((1,)), "b": ramp((2,))})


def test_parts_are_chained_by_source_names(out: Path) -> None:
    # y = 2 (2 x + 1) + 1; the second part also hands through what the first one read.
    parts = (
        Part("toy", "toy.json", (same("x", SHAPE),), (same("h", SHAPE),)),
        Part(
            "toy",
            "toy.json",
            (same("h", SHAPE), same("x", SHAPE)),
            (same("y", SHAPE), same("z", SHAPE)),
        ),
    )
    outputs = tuple(tensor(n, SHAPE) for n in ("z", "y", "x"))
    toy_bundle(out, entries=(Entry(parts, (tensor("x", SHAPE),), outputs),))
    with load(out) as session:
        found = session.run({"x": ramp()})
    assert list(found) == ["z", "y", "x"]
    np.testing.assert_array_equal(found["y"], 4 * ramp() + 3)
    np.testing.assert_array_equal(found["z"], 2 * ramp() + 1)
    np.testing.assert_array_equal(found["x"], ramp())


def test_bindings_convert_layout_and_dtype_both_ways(out: Path) -> None:
    shape, turned = (1, 2, 3, 4), (1, 3, 4, 2)
    to = Binding("x", "in", "int64", shape, "int32", turned, (0, 2, 3, 1))
    back = Binding("y", "out", "float32", shape, "float16", turned, (0, 2, 3, 1))
    entry = Entry(
        (Part("toy", "toy.json", (to,), (back,)),),
        (tensor("x", shape, "int64"),),
        (tensor("y", shape),),
    )
    toy_bundle(out, entries=(entry,))
    x = ramp(shape, "int64")
    with load(out) as session:
        y = session.run({"x": x})["y"]
        # The toy is elementwise: any layout mistake would show as moved elements.
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, 2 * x + 1)
        with pytest.raises(InputError, match="2147483648 does not fit int32"):
            session.run({"x": x + 2**31 - 23})
    assert y.flags.c_contiguous


def test_an_engine_that_gives_too_little_is_an_artifact_error(out: Path) -> None:
    toy_bundle(out, said={"mode": "silent"})
    with load(out) as session, pytest.raises(ArtifactError, match="expected an output 'y@art"):
        session.run({"x": ramp()})


def test_self_check_passes_on_what_was_recorded(out: Path) -> None:
    toy_bundle(out)
    with load(out) as session:
        found = session.self_check()
    assert found.passed
    assert found.to_json() == {
        "parity": {"max_rel": {"value": None, "limit": 1e-6, "pass": True, "exact": True}},
        "outputs": [
            {
                "name": "y",
                "max_rel": {"value": None, "limit": 1e-6, "pass": True, "exact": True},
            }
        ],
        "worst": [],
        "first_divergent": None,
        "pass": True,
    }


@pytest.mark.parametrize(
    "said", [{"scale": 2.0001, "offset": 1}, {"scale": 2}, {"scale": -2, "offset": -1}]
)
def test_self_check_fails_on_a_machine_that_computes_otherwise(
    out: Path, said: dict[str, float]
) -> None:
    toy_bundle(out, said=said)
    with load(out) as session:
        found = session.self_check()
    assert not found.passed
    assert found.to_json()["pass"] is False


def test_self_check_sees_the_fault_of_one_entry_among_several(out: Path) -> None:
    good, bad = toy_entry((1, 2)), toy_entry((3, 2), "bad.json")
    rng = np.random.default_rng(0)
    toy_bundle(
        out,
        shapes=[(1, 2), (3, 2)],
        entries=(good, bad),
        files={"bad.json": b'{"scale": 2, "offset": 1.001}'},
    )
    with load(out) as session:
        assert not session.self_check().passed
        x = rng.standard_normal((1, 2)).astype(np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x + 1)


def test_self_check_needs_the_sample(out: Path) -> None:
    toy_bundle(out, entries=(toy_entry((5, 5)),))  # the bundled sample has another shape
    with load(out) as session, pytest.raises(ArtifactError, match=r"expected '0\.input\.0'"):
        session.self_check()


def test_self_check_judges_by_every_recorded_gate(out: Path) -> None:
    toy_bundle(
        out,
        said={"scale": 2.0001, "offset": 1},
        selfcheck=SelfCheck({"max_rel": 1.0, "psnr_db": 200.0}),
    )
    with load(out) as session:
        found = {f.metric: f.passed for f in session.self_check().figures}
    assert found == {"max_rel": True, "psnr_db": False}


@pytest.mark.parametrize("name", ["lib/kernel.so", "k.SO", "k.so.1", "k.dylib", "k.dll"])
def test_native_code_needs_trust(out: Path, name: str) -> None:
    toy_bundle(out, files={name: b"\x7fELF"})
    with pytest.raises(ArtifactError, match="native code") as caught:
        load(out)
    assert caught.value.exit_code == 4
    assert "trust=True" in caught.value.hint
    with load(out, trust=True) as session:
        session.run({"x": ramp()})


def test_a_name_that_only_looks_like_code_is_data(out: Path) -> None:
    toy_bundle(out, files={"also.so-called": b""})
    load(out).close()


def test_a_missing_engine_names_the_extra(out: Path) -> None:
    toy_bundle(out, entries=(toy_entry(SHAPE, engine="toy-missing"),))
    with pytest.raises(BackendMissingError, match="toy-lib") as caught:
        load(out)
    assert caught.value.exit_code == 3
    assert "edgevit[toys]" in caught.value.hint


def test_an_unknown_engine_is_an_artifact_error(out: Path) -> None:
    toy_bundle(out, entries=(toy_entry(SHAPE, engine="toi"),))
    with pytest.raises(ArtifactError, match="'toi'") as caught:
        load(out)
    assert "'toy'" in caught.value.hint


REFUSED: dict[str, tuple[Callable[[Path], Any], type[EdgevitError]]] = {
    "no bundle": (load, InputError),
    "bad threads": (lambda p: load(p, threads=0), UsageError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_calls_are_refused(tmp_path: Path, name: str) -> None:
    call, kind = REFUSED[name]
    with pytest.raises(kind):
        call(tmp_path / "none.edgevit")


def test_recorded_preprocessing_and_head_come_with_the_session(out: Path) -> None:
    toy_bundle(
        out,
        preprocess={"color": "gray", "resize": [2, 3]},
        head={"kind": "topk", "k": 1, "labels": ["a", "b"]},
    )
    with load(out) as session:
        assert session.preprocess is not None
        assert session.head is not None
        assert session.preprocess.resize == (2, 3)
        found = session.head.apply(np.array([[0.0, 1.0]], np.float32))
    assert found == (topk(softmax(np.array([0.0, 1.0])), 1, ["a", "b"]),)


@pytest.mark.parametrize(
    "changes", [{"preprocess": {"colour": "rgb"}}, {"head": {"kind": "oracle"}}, {"head": {}}]
)
def test_recorded_nonsense_is_an_artifact_error(out: Path, changes: dict[str, Any]) -> None:
    toy_bundle(out, **changes)
    with pytest.raises(ArtifactError, match=f"manifest.json: {next(iter(changes))}"):
        load(out)


def test_tampering_is_seen_by_load(out: Path) -> None:
    toy_bundle(out)
    (out / "toy.json").write_bytes(b'{"scale": 2, "offset": 2}')
    with pytest.raises(ArtifactError, match="sha256"):
        load(out)


def test_opened_parts_are_closed_when_a_later_one_fails(out: Path) -> None:
    good = toy_entry(SHAPE)
    bad = dataclasses.replace(good.parts[0], artifact="bad.json")
    entry = dataclasses.replace(good, parts=(good.parts[0], bad))
    toy_bundle(out, entries=(entry,), files={"bad.json": b'{"mode": "corrupt"}'})
    with pytest.raises(ArtifactError, match="cannot read"):
        load(out)
