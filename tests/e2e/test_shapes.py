"""Several ``--shape`` of an input make one bundle with an entry for each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import edgevit
from edgevit import job
from edgevit.errors import InputError
from edgevit.html import page
from edgevit.loading import load
from edgevit.runtimes.litert import LiteRTEngine
from tests.support.cli import Ran
from tests.support.cli import edgevit as cli
from tests.support.shaped import symbolic_model, two_inputs

WIDTHS = (32, 16)
TARGETS = (
    "linux-x86",
    pytest.param("iphone-npu:os=18", marks=pytest.mark.long),
    pytest.param("onnx", marks=pytest.mark.long),
    pytest.param("iphone-npu:os=17", marks=pytest.mark.long),
)


def _shape(width: int) -> tuple[int, ...]:
    return (1, 3, 8, width)


def _options() -> list[str]:
    texts = [f"x={','.join(map(str, _shape(w)))}" for w in WIDTHS]
    return [option for text in texts for option in ("--shape", text)]


def _source(model: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, Any] = session.run(None, {"x": x})[0]
    return found


class Made:
    """A bundle of three widths, and the envelope of its compile."""

    def __init__(self, target: str, folder: Path) -> None:
        self.model = symbolic_model(folder / "m.onnx", 96)
        self.bundle = folder / "m.edgevit"
        self.target = target
        self.ran = cli(
            "compile", self.model, "--target", target, *_options(),
            "-o", self.bundle, "--json", cwd=folder,
        )  # fmt: skip
        assert self.ran.code == 0, self.ran.out

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_text())
        return found


@pytest.fixture(scope="module", params=TARGETS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The model compiled for each target."""
    return Made(request.param, tmp_path_factory.mktemp("shapes"))


def test_run_picks_the_entry_by_the_shape(made: Made) -> None:
    rng = np.random.default_rng(1)
    with edgevit.load(made.bundle) as session:
        for width in WIDTHS:
            x = rng.standard_normal(_shape(width)).astype(np.float32)
            found, expected = session.run({"x": x})["y"], _source(made.model, x)
            assert found.shape == expected.shape == (1, width // 2, 5)
            noise = np.mean((found - expected) ** 2)
            assert noise < np.max(expected**2) * 1e-5  # the float16 gate: 50 dB


def test_a_shape_without_an_entry_lists_the_shapes(made: Made) -> None:
    with edgevit.load(made.bundle) as session, pytest.raises(InputError) as caught:
        session.run({"x": np.zeros(_shape(48), np.float32)})
    for width in WIDTHS:
        assert str(_shape(width)) in caught.value.message
    assert str(_shape(48)) in caught.value.message


def test_every_entry_is_verified_by_itself(made: Made) -> None:
    manifest = made.manifest
    assert manifest["verified"] is True
    assert [e["inputs"][0]["shape"][-1] for e in manifest["entries"]] == list(WIDTHS)
    each = manifest["entry_parity"]
    assert len(each) == len(WIDTHS)
    assert manifest["parity"]["samples"] == sum(p["samples"] for p in each)
    assert manifest["parity"]["replayed"] == sum(p["replayed"] for p in each) > 0
    for metric, figure in manifest["parity"]["figures"].items():
        values = [p["figures"][metric].get("value") for p in each]
        worst = min if metric == "psnr_db" else max
        assert figure["value"] == worst(v for v in values if v is not None)


def test_the_result_has_an_entry_for_each_shape(made: Made) -> None:
    entries = made.ran.result["entries"]
    assert [e["shapes"]["x"][-1] for e in entries] == list(WIDTHS)
    costs = [e["cost"]["macs"] for e in entries]
    assert costs[1] < costs[0]
    shown = cli("report", made.bundle, cwd=made.bundle.parent)
    for width in WIDTHS:
        assert f"x={','.join(map(str, _shape(width)))}" in shown.out


def test_the_self_check_runs_every_entry(made: Made) -> None:
    with edgevit.load(made.bundle) as session:
        assert session.self_check().passed


def test_signatures_of_a_file_share_an_interpreter(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    if made.target != "linux-x86":
        pytest.skip("skipped: needs an artifact with signatures")
    read, opened = LiteRTEngine._read, []

    def counted(self: LiteRTEngine, artifact: Path, threads: int | None) -> Any:
        opened.append(artifact.name)
        return read(self, artifact, threads)

    monkeypatch.setattr(LiteRTEngine, "_read", counted)
    with edgevit.load(made.bundle) as session:
        inputs = [np.full(_shape(w), 0.5, np.float32) for w in (*WIDTHS, *WIDTHS)]
        found = [session.run({"x": x})["y"] for x in inputs]
    assert opened == ["model.tflite"]
    # A run of one signature leaves the other's answer alone.
    for before, after in zip(found[:2], found[2:], strict=True):
        np.testing.assert_array_equal(before, after)
    with edgevit.load(made.bundle):
        assert len(opened) == 2  # nothing outlives its session


@pytest.mark.long
def test_verify_checks_every_entry(made: Made) -> None:
    against = cli(
        "verify", made.bundle, "--against", made.model, "--json", cwd=made.bundle.parent
    )
    assert against.code == 0, against.out
    entries = against.result["entries"]
    assert [e["shapes"]["x"][-1] for e in entries] == list(WIDTHS)
    assert all(e["pass"] and e["replayed"] for e in entries)


def test_weights_are_stored_once_where_a_format_can_share_them(made: Made) -> None:
    files = {f["path"]: f["bytes"] for f in made.manifest["files"]}
    weights = sum(t.raw_data.__len__() for t in onnx.load_model(made.model).graph.initializer)
    stored = {
        "linux-x86": files.get("model.tflite", 0),
        "onnx": files.get("model.weights", 0),
        "iphone-npu:os=18": sum(n for p, n in files.items() if p.endswith("weight.bin")) * 2,
        "iphone-npu:os=17": sum(n for p, n in files.items() if p.endswith("weight.bin")) * 2,
    }[made.target]
    if made.target == "iphone-npu:os=17":
        assert stored > 1.8 * weights  # functions that share weights came with iOS 18
    else:
        assert 0.9 * weights < stored < 1.5 * weights


@pytest.mark.long
def test_the_same_bytes_in_another_process(made: Made, tmp_path: Path) -> None:
    again = edgevit.compile(  # in this process; the fixture was made in one of its own
        made.model,
        target=made.target,
        shapes=[{"x": _shape(w)} for w in WIDTHS],
        output=tmp_path / "m.edgevit",
        verify=False,
    )
    artifacts = {f.path: f.sha256 for f in again.manifest.files}
    measured = [path for path in artifacts if path.startswith("report")]
    assert len(measured) == len(WIDTHS)
    for file in made.ran.result["files"]:
        assert file["path"] in measured or file["sha256"] == artifacts[file["path"]]


def test_the_page_has_every_entry(made: Made) -> None:
    text = page(made.bundle)
    for width in WIDTHS:
        assert f"1 × 3 × 8 × {width}" in text


def test_a_wrong_entry_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: the second subgraph computes with another width's Reshape left out."""
    from edgevit.errors import GateError
    from edgevit.targets.litert import shapes

    model, merge = symbolic_model(tmp_path / "m.onnx"), shapes._Merged.add

    def damaged(self: Any, unpacked: Any, key: str) -> None:
        if key.endswith("x32"):
            scale = next(
                b for b in unpacked.buffers if b.data is not None and len(b.data) > 900
            )
            scale.data = np.frombuffer(
                (np.frombuffer(scale.data.tobytes(), np.float32) * 1.01).tobytes(), np.uint8
            )
        merge(self, unpacked, key)

    monkeypatch.setattr(shapes._Merged, "add", damaged)
    with pytest.raises(GateError) as caught:
        edgevit.compile(
            model,
            target="linux-x86",
            shapes=[{"x": _shape(16)}, {"x": _shape(32)}],
            output=tmp_path / "m.edgevit",
        )
    result = caught.value.result
    assert result is not None
    good, bad = (e["verification"] for e in _entries(result))
    assert (good["pass"], bad["pass"]) == (True, False)
    assert not (tmp_path / "m.edgevit").exists()


def _entries(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"verification": e} for e in result["verification"]["entries"]]


def test_the_kth_shape_of_every_input_makes_entry_k(
    call: Callable[..., Ran], tmp_path: Path
) -> None:
    model = two_inputs(tmp_path / "m.onnx")
    shapes = ["a=2,8", "b=8,3", "a=4,8"]
    options = list(itertools.chain.from_iterable(("--shape", s) for s in shapes))
    ran = call(
        "compile", model, "--target", "linux-x86", *options, "-o", "m.edgevit", "--no-verify",
        "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.out
    found = [e["shapes"] for e in ran.result["entries"]]
    assert found == [{"a": [2, 8], "b": [8, 3]}, {"a": [4, 8], "b": [8, 3]}]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (["a=2,8", "a=4,8", "b=8,3", "b=8,4", "b=8,5"], "as many shapes of each input"),
        (["a=2,8", "a=2,8", "b=8,3"], "the same input shapes twice"),
        (["a=2,8", "a=2,0", "b=8,3"], "positive integers"),
    ],
)
def test_shapes_that_make_no_entries(
    call: Callable[..., Ran], tmp_path: Path, shapes: list[str], message: str
) -> None:
    model = two_inputs(tmp_path / "m.onnx")
    options = list(itertools.chain.from_iterable(("--shape", s) for s in shapes))
    ran = call("compile", model, "--target", "linux-x86", *options, "-o", "m.edgevit")
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "m.edgevit").exists()


def test_samples_feed_the_entries_whose_shape_they_have(tmp_path: Path) -> None:
    model = symbolic_model(tmp_path / "m.onnx")
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "x.npz", x=rng.random((2, *_shape(32)), dtype=np.float32))
    np.savez(tmp_path / "none.npz", x=rng.random((2, *_shape(24)), dtype=np.float32))
    shapes = [{"x": _shape(16)}, {"x": _shape(32)}]
    given = {"target": "onnx", "shapes": shapes}
    plan = job.plan(model, given, None, None, tmp_path / "m.edgevit", False)
    sources = [load(model, s) for s in shapes]
    found = job.samples(plan, sources, None, str(tmp_path / "x.npz"), None)
    assert [(d.synthetic, len(d.samples)) for d in found] == [(True, 4), (False, 2)]
    with pytest.raises(InputError, match=r"expects samples of float32 \(1, 3, 8, 16\)"):
        job.samples(plan, sources, None, str(tmp_path / "none.npz"), None)


@pytest.mark.parametrize(
    ("precision", "samples"),
    [("w8", "of one shape"), ("w8", "synthetic"), ("w8a8", "synthetic")],
)
def test_every_shape_is_rebuilt_from_its_own_plan(
    call: Callable[..., Ran], tmp_path: Path, precision: str, samples: str
) -> None:
    """Shapes are calibrated apart, and ``verify`` makes the same graphs again."""
    model = symbolic_model(tmp_path / "m.onnx")
    if samples != "synthetic":
        x = np.random.default_rng(3).normal(0, 1, (4, *_shape(16))).astype(np.float32)
        np.savez(tmp_path / "x.npz", x=x)
        samples = str(tmp_path / "x.npz")
    made = call(
        "compile", model, "--target", "onnx", "--precision", precision, *_options(),
        "--calib", samples, "-o", "m.edgevit",
    )  # fmt: skip
    assert made.code == 0, made.err
    kept = {path.name for path in (tmp_path / "m.edgevit").glob("edits*.npz")}
    assert kept == {"edits.npz", "edits-1.npz"}
    again = call("verify", "m.edgevit", "--against", model)
    assert again.code == 0, again.err


def test_a_recipe_keeps_every_shape(call: Callable[..., Ran], tmp_path: Path) -> None:
    model = symbolic_model(tmp_path / "m.onnx")
    common = ("compile", model, "--no-verify", "--json", "-o")
    first = call(
        *common, "a.edgevit", "--target", "onnx", *_options(), "--save-recipe", "r.toml"
    )
    second = call(*common, "b.edgevit", "--recipe", "r.toml")
    assert (first.code, second.code) == (0, 0), second.out
    assert [f["sha256"] for f in first.result["files"]] == [
        f["sha256"] for f in second.result["files"]
    ]


def test_inspect_shows_every_shape(call: Callable[..., Ran], tmp_path: Path) -> None:
    seen = call("inspect", symbolic_model(tmp_path / "m.onnx"), *_options(), "--json")
    assert [e["shapes"]["x"][-1] for e in seen.result["entries"]] == list(WIDTHS)


@pytest.mark.long
def test_bench_times_every_shape(tmp_path: Path) -> None:
    model = symbolic_model(tmp_path / "m.onnx")
    edgevit.compile(
        model,
        target="linux-x86",
        shapes=[{"x": _shape(w)} for w in WIDTHS],
        output=tmp_path / "m.edgevit",
        verify=False,
    )
    timed = cli("bench", "m.edgevit", model, "--runs", "2", "--json", cwd=tmp_path)
    assert timed.code == 0, timed.out
    labels = [e["label"] for e in timed.result["entries"]]
    named = [f"[x={','.join(map(str, _shape(w)))}]" for w in WIDTHS]
    assert labels == [
        f"{what} {n}" for what in ("m.edgevit", "m.onnx (source)") for n in named
    ]


def test_one_calibration_sample_leaves_none_to_verify_on(
    call: Callable[..., Ran], tmp_path: Path
) -> None:
    model = symbolic_model(tmp_path / "m.onnx")
    np.savez(tmp_path / "one.npz", x=np.ones((1, *_shape(16)), np.float32))
    ran = call(
        "compile", model, "--target", "onnx", "--shape", "x=1,3,8,16", "--calib", "one.npz"
    )
    assert ran.code == 2
    assert "--calib one.npz: expected at least two samples, found one" in ran.err
