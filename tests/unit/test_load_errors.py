"""Each way in which a model file can be wrong ends in an InputError that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevit.errors import InputError
from edgevit.loading import load

Change = Callable[[onnx.ModelProto], None]


def small(opset: int = 17) -> onnx.ModelProto:
    """Conv, Relu, Reshape, MatMul on an image of 8x8."""
    rng = np.random.default_rng(7)
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    m = rng.standard_normal((256, 5)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "s"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "m"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [
            numpy_helper.from_array(w, "w"),
            numpy_helper.from_array(m, "m"),
            numpy_helper.from_array(np.array([1, 256], np.int64), "s"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def write(folder: Path, model: onnx.ModelProto) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path: Path, shapes: dict[str, tuple[int, ...]] | None = None) -> InputError:
    with pytest.raises(InputError) as caught:
        load(path, shapes or {})
    assert caught.value.exit_code == 2
    return caught.value


def test_a_good_model_loads(tmp_path: Path) -> None:
    path = write(tmp_path, small())
    source = load(path)
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source.opset, source.name) == (17, "model")
    assert source.model.graph.opset_imports == {"": 23}
    assert dict(source.operators) == {"Conv": 1, "MatMul": 1, "Relu": 1, "Reshape": 1}
    assert [str(v.shape) for v in source.model.graph.outputs] == ["[1,5]"]


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "no.onnx").message


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path).message


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    assert "is empty" in refused(tmp_path / "model.onnx").message


def test_not_a_protobuf(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"PK\x03\x04 this is a zip archive")
    assert "not a valid protobuf" in refused(tmp_path / "model.onnx").message


def test_truncated_file_says_how_much_is_missing(tmp_path: Path) -> None:
    path = write(tmp_path, small())
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated: at least " in refused(path).message


def test_more_than_two_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(1 << 31)  # sparse: takes no space
    error = refused(path)
    assert "2 GiB" in error.message
    assert "external data" in error.hint


def _no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def _no_outputs(model: onnx.ModelProto) -> None:
    model.graph.ClearField("output")


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 10


def _new(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = onnx.defs.onnx_opset_version() + 1


def _no_opset(model: onnx.ModelProto) -> None:
    model.ClearField("opset_import")


def _control_flow(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "If"


def _twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "c"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "r"


def _dangling(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


def _no_producer(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "z"


def _nan(model: onnx.ModelProto) -> None:
    _poke(model, np.nan)


def _infinite(model: onnx.ModelProto) -> None:
    _poke(model, np.inf)


def _poke(model: onnx.ModelProto, number: float) -> None:
    array = np.array(numpy_helper.to_array(model.graph.initializer[0]))
    array[0, 0, 0, 0] = number
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))


def _negative_dim(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def _huge_dim(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 62


def _short_data(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def _unknown_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 77


def _string_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING


def _sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def _unknown_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("padding", 1))


def _attribute_kind(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", 1.5))


def _nan_attribute(model: onnx.ModelProto) -> None:
    model.graph.node[1].op_type = "LeakyRelu"
    model.graph.node[1].attribute.append(helper.make_attribute("alpha", float("nan")))


def _too_many_inputs(model: onnx.ModelProto) -> None:
    model.graph.node[1].input.append("x")


def _group(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 7))


def _shape_clash(model: onnx.ModelProto) -> None:
    array = np.array([1, 255], np.int64)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(array, "s"))


def _lost_elements(model: onnx.ModelProto) -> None:
    array = np.array([1, 2, 256], np.int64)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(array, "s"))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _wide_addend(model: onnx.ModelProto) -> None:
    """A Gemm of [5, 1] and C of [10]: the sum would be [5, 10]."""
    for name, shape in (("g", (1, 1)), ("h", (10,))):
        array = np.ones(shape, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node[-1].CopyFrom(helper.make_node("MatMul", ["f", "m"], ["z"], "head"))
    model.graph.node.append(helper.make_node("Gemm", ["z", "g", "h"], ["y"], "gemm", transA=1))
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _odd_flag(model: onnx.ModelProto) -> None:
    """Its low 32 bits are 0, and it is not: readers disagree."""
    _wide_addend(model)
    model.graph.node[-1].attribute.append(helper.make_attribute("transB", -(1 << 62)))


def _bad_text(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("auto_pad", b"\xff\xfe"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_no_graph, "holds no graph"),
        (_no_outputs, "no outputs"),
        (_old, "operator set 10 is out of range, expected 11 to"),
        (_new, "is out of range"),
        (_no_opset, "expected one version of the ONNX operator set"),
        (_control_flow, "control flow is not supported: node 'relu' (If)"),
        (_twice, "value 'c' is defined twice, again by node 'relu' (Relu)"),
        (_cycle, "cycle: "),
        (_dangling, "node 'relu' (Relu) reads 'nowhere', which nothing makes"),
        (_no_producer, "output 'z' is made by nothing"),
        (_nan, "initializer 'w' holds NaN"),
        (_infinite, "initializer 'w' holds infinity and feeds 'conv'"),
        (_negative_dim, "negative dimensions [-4, 3, 3, 3]"),
        (_huge_dim, "holds 432 bytes, expected"),
        (_short_data, "holds 428 bytes, expected 432"),
        (_unknown_type, "unknown data type 77"),
        (_string_input, "input 'x' has data type 8"),
        (_sequence_input, "input 'x' is of kind sequence_type, expected a tensor"),
        (_unknown_attribute, "unknown attribute 'padding'"),
        (_attribute_kind, "attribute 'pads' has the wrong type, expected INTS"),
        (_nan_attribute, "attribute 'alpha': attribute is NaN"),
        (_too_many_inputs, "node 'relu' (Relu) has 2 inputs, expected 1 to 1"),
        (_group, "node 'conv' (Conv): 3 input channels, weight (4, 3, 3, 3) and group 7"),
        (_shape_clash, "contradicts itself"),
        (_lost_elements, "256 elements of shape (1, 4, 8, 8) do not fit into the shape"),
        (_wide_addend, "C has shape (10,), which does not broadcast to the product's (5, 1)"),
        (_odd_flag, "transB is -4611686018427387904, expected 0 or 1"),
        (_bad_text, "text is not UTF-8"),
    ],
    ids=lambda case: case.__name__.strip("_") if callable(case) else "",
)
def test_refused(tmp_path: Path, change: Change, says: str) -> None:
    model = small()
    change(model)
    message = refused(write(tmp_path, model)).message
    assert says in message
    assert "model.onnx" in message


def test_all_unknown_operators_are_listed(tmp_path: Path) -> None:
    model = small()
    model.graph.node[0].op_type = "Quantum"
    model.graph.node[1].domain = "com.example"
    message = refused(write(tmp_path, model)).message
    assert "2 unknown operators" in message
    assert "node 'conv': operator 'Quantum' of domain 'ai.onnx'" in message
    assert "node 'relu': operator 'Relu' of domain 'com.example'" in message


def open_dims(*dims: int | str | None) -> onnx.ModelProto:
    model = small()
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))
    model.graph.input[0].CopyFrom(info)
    return model


def test_symbolic_dimension_names_input_dimension_and_an_example(tmp_path: Path) -> None:
    error = refused(write(tmp_path, open_dims("batch", 3, "h", "w")))
    assert "input 'x': dimension 0 (batch,3,h,w) is symbolic" in error.message
    assert error.hint == "bind it, e.g. --shape x=1,3,224,224"


def test_symbolic_dimensions_are_bound(tmp_path: Path) -> None:
    path = write(tmp_path, open_dims("batch", 3, None, -1))
    assert str(load(path, {"x": (1, 3, 8, 8)}).model.graph.inputs[0].shape) == "[1,3,8,8]"


def test_a_symbol_bound_by_one_input_is_bound_in_the_others(tmp_path: Path) -> None:
    model = open_dims("n", 3, 8, 8)
    other = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5])
    model.graph.input.append(other)
    model.graph.node.append(helper.make_node("Add", ["y", "z"], ["sum"], "sum"))
    model.graph.output[0].name = "sum"
    found = load(write(tmp_path, model), {"x": (1, 3, 8, 8)}).model.graph.inputs
    assert [str(v.shape) for v in found] == ["[1,3,8,8]", "[1,5]"]


@pytest.mark.parametrize(
    ("shapes", "says", "hint"),
    [
        ({"X1": (1, 3, 8, 8)}, "unknown input 'X1'", "known: x"),
        ({"x": (1, 3, 8)}, "has rank 4 (n,3,h,8), --shape gives 3 numbers", ""),
        ({"x": (1, 4, 8, 8)}, "gives 4 where the model has the fixed dimension 3", "export"),
        ({"x": (1, 3, 0, 8)}, "expected positive numbers", ""),
        ({"x": (1 << 20, 3, 1 << 20, 8)}, "more than 4 GiB", ""),
    ],
)
def test_wrong_shape_option(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], says: str, hint: str
) -> None:
    error = refused(write(tmp_path, open_dims("n", 3, "h", 8)), shapes)
    assert says in error.message
    assert hint in error.hint


def external(folder: Path) -> onnx.ModelProto:
    """The small model with its first weight in ``weights.bin``."""
    model = small()
    tensor = model.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"\0" * 64 + tensor.raw_data)
    _point_to(tensor, "weights.bin", 64, len(tensor.raw_data))
    return model


def _point_to(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def test_external_data_is_read_and_hashed(tmp_path: Path) -> None:
    path = write(tmp_path, external(tmp_path))
    source = load(path)
    tensor = source.model.graph.initializers["w"].const_value
    assert tensor is not None
    expected = numpy_helper.to_array(small().graph.initializer[0])
    np.testing.assert_array_equal(tensor.numpy(), expected)
    content = path.read_bytes() + (tmp_path / "weights.bin").read_bytes()
    assert source.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("location", "offset", "length", "says"),
    [
        ("missing.bin", 0, 432, "does not exist"),
        ("/etc/hostname", 0, 432, "is refused"),
        ("../weights.bin", 0, 432, "is refused"),
        ("", 0, 432, "is refused"),
        ("a/../../weights.bin", 0, 432, "is refused"),
        ("weights.bin", 64, 428, "expected 432 bytes"),
        ("weights.bin", 68, 432, "expected 432 bytes"),
        ("weights.bin", -4, 432, "expected a byte count"),
        ("link.bin", 0, 432, "leads outside"),
    ],
)
def test_external_data_refused(
    tmp_path: Path, location: str, offset: int, length: int, says: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 1000)
    (folder / "link.bin").symlink_to(tmp_path / "weights.bin")
    model = external(folder)
    _point_to(model.graph.initializer[0], location, offset, length)
    message = refused(write(folder, model)).message
    assert says in message
    assert "initializer 'w'" in message


def _function(name: str, calls: list[str]) -> onnx.FunctionProto:
    values = ["x", *(f"v{i}" for i in range(len(calls) - 1)), "y"]
    nodes = [
        helper.make_node(op, [values[i]], [values[i + 1]], domain="local")
        for i, op in enumerate(calls)
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["x"], ["y"], nodes, opsets)


def _with_functions(functions: list[onnx.FunctionProto]) -> onnx.ModelProto:
    model = small()
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node[1].op_type, model.graph.node[1].domain = functions[-1].name, "local"
    return model


def test_functions_are_inlined(tmp_path: Path) -> None:
    relu = helper.make_function(
        "local",
        "MyRelu",
        ["x"],
        ["y"],
        [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    model = load(write(tmp_path, _with_functions([relu]))).model
    assert not model.functions
    assert [n.op_type for n in model.graph] == ["Conv", "Relu", "Reshape", "MatMul"]


def test_functions_that_call_themselves(tmp_path: Path) -> None:
    model = _with_functions([_function("A", ["B"]), _function("B", ["A"])])
    assert "calls itself" in refused(write(tmp_path, model)).message


def test_functions_that_explode(tmp_path: Path) -> None:
    model = _with_functions([_function(f"F{i}", [f"F{i + 1}"] * 2) for i in range(40)][::-1])
    leaf = helper.make_function(
        "local",
        "F40",
        ["x"],
        ["y"],
        [helper.make_node("Relu", ["x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    model.functions.append(leaf)
    assert "operators after inlining" in refused(write(tmp_path, model)).message
