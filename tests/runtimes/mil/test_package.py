"""Reading packages: round trips with Core ML's own writers, and everything that is corrupt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevit.errors import ArtifactError
from edgevit.runtimes.mil.blob import BlobFile
from edgevit.runtimes.mil.evaluate import evaluate
from edgevit.runtimes.mil.package import load_package
from edgevit.runtimes.mil.prepare import prepare
from edgevit.runtimes.mil.read import read_model
from edgevit.runtimes.mil.spec import Array
from edgevit.runtimes.mil.wire import Message
from edgevit.targets.coreml.quiet import quiet_coremltools
from tests.support.mil import built

MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
_KERNEL = np.random.default_rng(5).standard_normal((4, 3, 3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package as coremltools converts and saves it: a float16 convolution."""
    with quiet_coremltools() as ct:
        from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

        @mb.program(  # type: ignore[untyped-decorator]
            input_specs=[mb.TensorSpec((1, 3, 8, 8))], opset_version=ct.target.iOS17
        )
        def program(x: Any) -> Any:
            y = mb.conv(x=x, weight=_KERNEL, pad_type="same", strides=[2, 2])
            return mb.relu(x=y, name="y")

        model = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
        )
        path = tmp_path_factory.mktemp("saved") / "conv.mlpackage"
        model.save(str(path))
    return path


@pytest.fixture
def package(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "copy.mlpackage"))


def test_a_saved_package_runs(saved: Path) -> None:
    program = load_package(saved)
    function = program.functions[program.default]
    assert function.opset == "CoreML7"
    (declared,) = function.inputs
    x = np.random.default_rng(6).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (y,) = evaluate(program, {declared.name: x}).outputs.values()
    assert y.dtype == np.float32
    patch = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])[0, :, 2:5, 4:7]
    want = np.maximum(np.einsum("ochw,chw->o", _KERNEL, patch), 0)
    assert np.abs(y[0, :, 1, 2] - want).max() < 27 * 2.0**-11 * np.abs(y).max()


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "int8", "uint8", "int16", "uint16", "int32", "uint32"]
)
def test_blobs_written_by_coremltools_are_read_back(dtype: str, tmp_path: Path) -> None:
    with quiet_coremltools():
        from coremltools.libmilstoragepython import _BlobStorageWriter

        arrays = [
            np.random.default_rng(i).integers(0, 100, size).astype(dtype)
            for i, size in enumerate((1, 31, 64))
        ]
        writer = _BlobStorageWriter(str(tmp_path / "w.bin"))
        name = {"float32": "float", "float16": "fp16"}.get(dtype, dtype)
        write = getattr(writer, f"write_{name}_data")
        offsets = [write(a.view(np.uint16) if dtype == "float16" else a) for a in arrays]
        del writer
    blob = BlobFile(tmp_path / "w.bin")
    for array, offset in zip(arrays, offsets, strict=True):
        got = blob.array(offset, dtype, array.shape)
        assert got.dtype == np.dtype(dtype)
        assert np.array_equal(got, array)
        assert not got.flags.owndata


def _blob(folder: Path) -> tuple[Path, int]:
    _, weights = built(
        lambda mb, v: mb.add(x=v["x"], y=np.arange(40, dtype=np.float32)),
        {"x": np.zeros(40, np.float32)},
    )
    path = folder / "weight.bin"
    path.write_bytes(weights)
    return path, 64


@pytest.mark.parametrize(
    ("offset", "dtype", "shape", "message"),
    [
        (64, "float16", (40,), "expected float16"),
        (64, "float32", (41,), "164 bytes"),
        (128, "float32", (40,), "sentinel"),
        (65, "float32", (40,), "no 64-byte record"),
        (64 * 100, "float32", (40,), "no 64-byte record"),
        (-64, "float32", (40,), "no 64-byte record"),
    ],
)
def test_wrong_records_are_refused(
    offset: int, dtype: str, shape: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    path, right = _blob(tmp_path)
    assert np.array_equal(BlobFile(path).array(right, "float32", (40,)), np.arange(40))
    with pytest.raises(ArtifactError, match=message):
        BlobFile(path).array(offset, dtype, shape)


def test_a_weight_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path, _ = _blob(tmp_path)
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="version 2, found 9"):
        BlobFile(path)


def test_a_truncated_weight_file_is_refused(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    (package / WEIGHTS).write_bytes(data[:-64])
    with pytest.raises(ArtifactError, match="past the end"):
        load_package(package)


@pytest.mark.parametrize("missing", [MODEL, WEIGHTS, Path("Manifest.json")])
def test_a_missing_file_is_named(package: Path, missing: Path) -> None:
    (package / missing).unlink()
    with pytest.raises(ArtifactError, match=missing.name):
        load_package(package)


def test_an_empty_weight_file_is_refused(package: Path) -> None:
    (package / WEIGHTS).write_bytes(b"")
    with pytest.raises(ArtifactError, match="weight file"):
        load_package(package)


@pytest.mark.parametrize("size", [0, 1, 100])
def test_a_truncated_specification_is_refused(package: Path, size: int) -> None:
    (package / MODEL).write_bytes((package / MODEL).read_bytes()[:size])
    with pytest.raises(ArtifactError):
        load_package(package)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{}",
        "[]",
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"b": {"path": "x"}}}',
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": 3}}}',
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "../../x"}}}',
        '{"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "/etc/passwd"}}}',
    ],
)
def test_a_bad_manifest_is_refused(package: Path, manifest: str) -> None:
    (package / "Manifest.json").write_text(manifest)
    with pytest.raises(ArtifactError):
        load_package(package)


def test_a_neural_network_is_no_ml_program(package: Path) -> None:
    with quiet_coremltools():
        from coremltools.proto import Model_pb2

        model = Model_pb2.Model(specificationVersion=4)
        model.neuralNetwork.SetInParent()
    (package / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="model type 500"):
        load_package(package)


def test_an_unknown_operator_is_named_with_its_result(tmp_path: Path) -> None:
    model, _ = built(
        lambda mb, v: mb.non_zero(x=v["x"], name="places"), {"x": np.zeros(4, np.float32)}
    )
    with pytest.raises(ArtifactError, match=r"'non_zero' that writes 'places'"):
        prepare(read_model(model, _no_blob))


def _no_blob(name: str, offset: int, dtype: str, shape: tuple[int, ...]) -> Array:
    raise AssertionError("the model names no weight file")


def _edited(edit: Any) -> bytes:
    """A small program, changed by ``edit(block)`` with coremltools' protobuf classes."""
    model, _ = built(
        lambda mb, v: mb.softmax(x=mb.relu(x=v["x"], name="r"), axis=1, name="y"),
        {"x": np.zeros((2, 3), np.float32)},
    )
    with quiet_coremltools():
        from coremltools.proto import Model_pb2

        spec = Model_pb2.Model.FromString(model)
        edit(spec.mlProgram.functions["main"].block_specializations["CoreML7"])
        return bytes(spec.SerializeToString())


def _find(block: Any, kind: str) -> Any:
    return next(op for op in block.operations if op.type == kind)


def _rename_argument(block: Any) -> None:
    _find(block, "softmax").inputs["x"].arguments[0].name = "gone"


def _extra_argument(block: Any) -> None:
    _find(block, "softmax").inputs["beta"].arguments.add().name = "r"


def _no_argument(block: Any) -> None:
    del _find(block, "relu").inputs["x"]


def _two_arguments(block: Any) -> None:
    _find(block, "relu").inputs["x"].arguments.add().name = "x"


def _twice(block: Any) -> None:
    block.operations.add().CopyFrom(_find(block, "relu"))


def _wrong_output(block: Any) -> None:
    block.outputs[0] = "nobody"


def _nested(block: Any) -> None:
    _find(block, "relu").blocks.add()


def _bad_constant(block: Any) -> None:
    value = _find(block, "const").attributes["val"].immediateValue.tensor
    value.ints.values.append(3)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_rename_argument, "undefined values"),
        (_extra_argument, "not known"),
        (_no_argument, "missing"),
        (_two_arguments, "expected one value"),
        (_twice, "exists"),
        (_wrong_output, "nobody"),
        (_nested, "does not know"),
        (_bad_constant, "elements of a int32"),
    ],
)
def test_inconsistent_programs_are_refused(edit: Any, message: str) -> None:
    prepare(read_model(_edited(lambda block: None), _no_blob))
    with pytest.raises(ArtifactError, match=message):
        prepare(read_model(_edited(edit), _no_blob))


def _wrong_axis(block: Any) -> None:
    _find(block, "const").attributes["val"].immediateValue.tensor.ints.values[0] = 7


def _wrong_shape(block: Any) -> None:
    _find(block, "relu").outputs[0].type.tensorType.dimensions[1].constant.size = 4


@pytest.mark.parametrize(
    ("edit", "message"), [(_wrong_axis, "'softmax'"), (_wrong_shape, "declared is")]
)
def test_errors_at_run_time_name_the_operation(edit: Any, message: str) -> None:
    program = read_model(_edited(edit), _no_blob)
    with pytest.raises(ArtifactError, match=message):
        evaluate(program, {"x": np.zeros((2, 3), np.float32)})


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        message = Message(data)
        for number in message.numbers():
            message.integers(number)
    except ArtifactError:
        return


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_specification_is_an_error_or_a_program(saved: Path, data: Any) -> None:
    original = (saved / MODEL).read_bytes()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    weights = BlobFile(saved / WEIGHTS)
    try:
        prepare(read_model(bytes(damaged), lambda _, *place: weights.array(*place)))
    except ArtifactError:
        return


def test_the_manifest_need_not_be_first_in_the_folder(package: Path) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"]["other"] = {"path": "elsewhere"}
    (package / "Manifest.json").write_text(json.dumps(manifest))
    assert load_package(package).default == "main"
