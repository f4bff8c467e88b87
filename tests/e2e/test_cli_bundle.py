"""``run``, ``verify`` and ``report`` on a bundle: sound, misused, and tampered with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.cli import FIXTURES, Compiled, edgevit


def _images() -> Any:
    with np.load(FIXTURES / "data" / "fashion_test_500.npz") as data:
        return data["images"][:2]


def _normalized(images: Any) -> list[Any]:
    """The formula of tests/fixtures/README.md."""
    scaled = (images.astype(np.float64) / 255 - 0.2860) / 0.3530
    return [one[None, None].astype(np.float32) for one in scaled]


@pytest.fixture(scope="module")
def expected(compiled: Compiled) -> list[Any]:
    """The source model in ONNX Runtime on the two images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(compiled.model, providers=["CPUExecutionProvider"])
    return [session.run(["logits"], {"x": x})[0] for x in _normalized(_images())]


def test_arrays_and_images_give_what_the_source_gives(
    compiled: Compiled, expected: list[Any], tmp_path: Path
) -> None:
    first, second = _normalized(_images())
    np.save(tmp_path / "a.npy", first)
    np.savez(tmp_path / "b.npz", x=second)
    Image.fromarray(_images()[0]).save(tmp_path / "c.png")
    given = [tmp_path / n for n in ("a.npy", "b.npz", "c.png")]
    ran = edgevit(
        "run", compiled.bundle, "--input", *given, "--output", "y.npz", "--json", cwd=tmp_path
    )
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "y.npz") as data:
        found = data["logits"]
    for y, r in zip(found, [*expected, expected[0]], strict=True):
        # The gate of the bundle; preprocessing in float32 adds a few ulps for the image.
        assert np.abs(y - r).max() <= 1e-4 * np.abs(r).max()
    assert np.abs(found[0] - found[1]).max() > 0.1, "two images must not look the same"
    outputs = ran.result["outputs"]
    assert [Path(o["input"]).name for o in outputs] == ["a.npy", "b.npz", "c.png"]
    for out, r in zip(outputs, [*expected, expected[0]], strict=True):
        assert out["tensors"] == [{"name": "logits", "dtype": "float32", "shape": [1, 10]}]
        assert out["answers"][0][0]["index"] == int(r.argmax())


def _save(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


def _savez(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


X = np.zeros((1, 1, 28, 28), np.float32)


def _text(path: Path) -> Path:
    path.write_text("neither array nor image")
    return path


def _archive_called_npy(path: Path) -> Path:
    with path.open("wb") as stream:
        np.savez(stream, x=X)
    return path


BAD_INPUTS: dict[str, tuple[Any, str]] = {
    "shape": (
        lambda d: _save(d / "a.npy", X[0]),
        r"'x': expected shape (1, 1, 28, 28), found (1, 28, 28)",
    ),
    "dtype": (
        lambda d: _save(d / "a.npy", X.astype(np.float64)),
        "'x': expected dtype float32, found float64",
    ),
    "name": (lambda d: _savez(d / "a.npz", image=X), "unknown input 'image'"),
    "missing name": (lambda d: _savez(d / "a.npz"), "input 'x' is missing"),
    "no array": (lambda d: _text(d / "a.npy"), "expected numpy arrays"),
    "no archive": (lambda d: _text(d / "a.npz"), "expected numpy arrays"),
    "an archive called .npy": (
        lambda d: _archive_called_npy(d / "a.npy"),
        "an archive of ['x']",
    ),
    "no image": (lambda d: _text(d / "a.png"), "a.png"),
    "no file": (lambda d: d / "none.npy", "does not exist"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_inputs_that_do_not_fit(
    compiled: Compiled, tmp_path: Path, kind: str, call: Any
) -> None:
    make, said = BAD_INPUTS[kind]
    ran = call("run", compiled.bundle, "--input", make(tmp_path), "--json")
    assert ran.code == 2
    assert ran.envelope["status"] == "error"
    assert ran.error["code"] == "input"
    assert said in ran.error["message"]


def test_an_image_needs_recorded_preprocessing_to_fit(compiled: Compiled) -> None:
    """Checked at compile time: the model takes 28x28 gray, so the record must give that."""
    from edgevit.bundle import open_bundle

    manifest = open_bundle(compiled.bundle)
    assert manifest.preprocess is not None
    assert manifest.head is not None


def test_verify_alone_runs_the_self_check(compiled: Compiled, tmp_path: Path) -> None:
    ran = edgevit("verify", compiled.bundle, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.envelope["status"] == "ok"
    plain = edgevit("verify", compiled.bundle, cwd=tmp_path)
    assert plain.code == 0
    assert "pass" in plain.out


def test_verify_against_the_source_on_real_images(compiled: Compiled, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.stack(_normalized(_images())))
    options = ["--against", compiled.model, "--inputs", tmp_path / "in.npz", "--json"]
    ran = edgevit("verify", compiled.bundle, *options, cwd=tmp_path)
    assert ran.code == 0, ran.err
    result = ran.result
    assert {"parity", "outputs", "worst", "first_divergent"} <= set(result)
    assert result["parity"]["max_rel"]["pass"] is True
    assert 0 < result["parity"]["max_rel"]["value"] < 1e-5
    (output,) = result["outputs"]
    assert output["name"] == "logits"
    assert output["max_rel"] == result["parity"]["max_rel"]["value"]
    assert (result["samples"], result["synthetic"]) == (2, False)
    assert result["top1_agreement"] == 1.0


def test_another_model_is_refused(compiled: Compiled, call: Any) -> None:
    other = FIXTURES / "models" / "fashion_hybrid_dynamo.onnx"
    ran = call("verify", compiled.bundle, "--against", other, "--json")
    assert ran.code == 2
    assert "is not the model this bundle was compiled from" in ran.error["message"]


def test_report(compiled: Compiled, call: Any) -> None:
    ran = call("report", compiled.bundle, "--json")
    assert ran.code == 0
    manifest = ran.result["manifest"]
    assert manifest["verified"] is True
    assert manifest["source_sha256"]
    assert "calibration" in manifest
    text = call("report", compiled.bundle).out
    assert manifest["digest"] in text
    assert text.rstrip().splitlines()[-1].startswith("PASS")


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


TAMPERINGS: dict[str, tuple[Any, str]] = {
    "a weight": (lambda d: _flip(d / "model.tflite"), "expected sha256"),
    "the self-check": (lambda d: _flip(d / "selfcheck.npz"), "expected sha256"),
    "a missing file": (lambda d: (d / "debug_map.json").unlink(), "missing"),
    "a stranger": (lambda d: (d / "extra.bin").write_bytes(b"x"), "not listed"),
    "no manifest": (lambda d: (d / "manifest.json").unlink(), "this is not a bundle"),
    "the gate": (
        lambda d: (d / "manifest.json").write_text(
            (d / "manifest.json").read_text().replace("0.0001", "1000")
        ),
        "digest",
    ),
}


@pytest.mark.parametrize("command", ["run", "verify", "report"])
@pytest.mark.parametrize("kind", TAMPERINGS)
def test_a_tampered_bundle_is_exit_4(
    compiled: Compiled, tmp_path: Path, kind: str, command: str, call: Any
) -> None:
    bundle = tmp_path / "tampered.edgevit"
    shutil.copytree(compiled.bundle, bundle)
    change, said = TAMPERINGS[kind]
    change(bundle)
    more = ["--input", _save(tmp_path / "a.npy", X)] if command == "run" else []
    ran = call(command, bundle, *more, "--json")
    assert ran.code == 4
    assert ran.error["code"] == "artifact"
    assert said in ran.error["message"]
    if command == "verify":
        assert call("verify", bundle, "--against", compiled.model).code == 4


def test_no_bundle_is_exit_2(tmp_path: Path, call: Any) -> None:
    ran = call("report", tmp_path / "none.edgevit", "--json")
    assert ran.code == 2
    assert "no such bundle" in ran.error["message"]
