"""Load an ONNX file: check it, fix its shapes, raise it to operator set 23."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgevit.errors import InputError
from edgevit.model import fresh_name
from edgevit.opcheck import check_nodes
from edgevit.opset import raise_opset, settle_axes
from edgevit.protocheck import check_structure
from edgevit.quantizers import forget_marks
from edgevit.schemas import UnknownOperator, check_operators, opset_version, unknown_operators
from edgevit.shapes import bind_shapes, infer_shapes
from edgevit.tensorcheck import external_location, tensor_nbytes

if TYPE_CHECKING:
    import onnx

__all__ = ["Source", "Survey", "WeightLimit", "load", "survey"]

_LIMIT = (1 << 31) - 1
# Operators that multiply a weight: an infinite one makes every output NaN or infinite.
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class Source:
    """A model as loaded.

    Attributes:
        model: Operator set 23, static input shapes, one graph without functions, constants
            as initializers, dtypes and shapes inferred as far as possible without folding.
        path: The file.
        sha256: Of the file's bytes, followed by those of its external data files in the
            order of their names; so of a single file, what ``sha256sum`` prints.
        opset: Operator set of the file.
        operators: Operator name -> count, as in the file (``domain.name`` outside ONNX).
        metadata: The file's ``metadata_props``.
    """

    model: ir.Model
    path: Path
    sha256: str
    opset: int
    operators: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name without its ending."""
        return self.path.stem


@dataclass(frozen=True)
class WeightLimit:
    """Most bytes of weights that can be taken.

    Attributes:
        nbytes: The limit.
        because: What it comes from; follows "at most ... bytes, because" in the message.
    """

    nbytes: int
    because: str


@dataclass(frozen=True)
class Survey:
    """What can be said about a file whose operators may be unknown.

    Attributes:
        opset: Operator set of the file.
        operators: Operator name -> count (``domain.name`` outside ONNX).
        unknown: Nodes that no operator set defines.
    """

    opset: int
    operators: Mapping[str, int]
    unknown: tuple[UnknownOperator, ...]


def survey(path: Path) -> Survey:
    """Read a model file without judging its operators.

    Raises:
        InputError: The file is not a well-formed model.
    """
    file = path.name
    proto = _parse(_read(path), file)
    check_structure(proto, path.parent, file)
    version = opset_version(proto, file)
    return Survey(version, _histogram(proto), unknown_operators(proto, version, file))


def load(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    limit: WeightLimit | None = None,
) -> Source:
    """Load a model file.

    Args:
        path: An ONNX file (binary protobuf), operator set 11 to the newest.
        shapes: Input name -> shape, for inputs with symbolic dimensions.
        limit: More weights than this are refused, before any is read.

    Raises:
        InputError: The file cannot be taken; the message says why and where.
    """
    file = path.name
    content = _read(path)
    proto = _parse(content, file)
    check_structure(proto, path.parent, file)
    version = opset_version(proto, file)
    check_operators(proto, version, file)
    if limit is not None:
        _check_weights(proto, limit, file)
    digest = _digest(content, proto, path.parent)
    operators = _histogram(proto)
    model = _deserialize(proto, path.parent)
    _normalize(model, file)
    forget_marks(model)
    bind_shapes(model, shapes or {}, file)
    _check_finite(model, file)
    _produce_outputs(model)
    raise_opset(model, version, file)
    infer_shapes(model, file)
    settle_axes(model, version, file)
    check_nodes(model, file)
    metadata = {p.key: p.value for p in proto.metadata_props}
    return Source(model, path, digest, version, operators, metadata)


def _read(path: Path) -> bytes:
    if not path.exists():
        raise InputError(f"model {path} does not exist", hint="check the path")
    if path.is_dir():
        raise InputError(f"model {path} is a directory, expected an .onnx file")
    try:
        size = path.stat().st_size
        if size > _LIMIT:
            raise InputError(
                f"model {path} has {size} bytes, more than protobuf's limit of 2 GiB",
                hint="save it with external data",
            )
        content = path.read_bytes()
    except OSError as e:
        raise InputError(f"model {path} cannot be read: {e.strerror}") from e
    if not content:
        raise InputError(f"model {path} is empty")
    return content


def _parse(content: bytes, file: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as e:
        short = _missing_bytes(content)
        if short:
            raise InputError(
                f"{file}: the file is truncated: at least {short} bytes are missing",
                hint="copy or download it again",
            ) from e
        raise InputError(
            f"{file}: not an ONNX model: not a valid protobuf",
            hint="expected the binary form that exporters write",
        ) from e
    return proto


def _missing_bytes(content: bytes) -> int:
    """How far the last top-level field reaches past the end; 0 if something else is wrong."""
    at, end = 0, len(content)
    while at < end:
        tag, at = _varint(content, at)
        kind, number = tag & 7, tag >> 3
        if kind not in (0, 2) or not 1 <= number <= 26:
            return 0  # no field of a ModelProto
        value, at = _varint(content, at)
        at += value if kind == 2 else 0
    return at - end


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content) and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    return value, len(content) + 1


def _check_weights(proto: onnx.ModelProto, limit: WeightLimit, file: str) -> None:
    found = sum(tensor_nbytes(t, f"{file}: {t.name!r}") for t in proto.graph.initializer)
    if found > limit.nbytes:
        raise InputError(
            f"{file}: weights of {found} bytes, expected at most {limit.nbytes}, because "
            f"{limit.because}",
            hint="store the weights in fewer bits or split the model before compiling it",
        )


def _digest(content: bytes, proto: onnx.ModelProto, folder: Path) -> str:
    import onnx

    sha = hashlib.sha256(content)
    outside = {
        external_location(t, folder, t.name)[0]
        for t in proto.graph.initializer
        if t.data_location == onnx.TensorProto.EXTERNAL
    }
    for path in sorted(outside):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def _histogram(proto: onnx.ModelProto) -> dict[str, int]:
    names = [f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in proto.graph.node]
    return dict(sorted(Counter(names).items()))


def _deserialize(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    """To onnx_ir, without what is stale or of no use: old shapes, annotations, training."""
    for clear in ("value_info", "quantization_annotation"):
        proto.graph.ClearField(clear)
    proto.ClearField("training_info")
    proto.ClearField("configuration")
    for scope in (proto.graph, *proto.functions):
        for node in scope.node:
            node.ClearField("device_configurations")
            node.domain = "" if node.domain == "ai.onnx" else node.domain
    for function in proto.functions:
        function.ClearField("value_info")
    model = ir.serde.deserialize_model(proto)
    ir.external_data.set_base_dir(model.graph, folder)
    return model


def _normalize(model: ir.Model, file: str) -> None:
    """One sorted graph without functions or Constant nodes; every node has its own name."""
    if model.functions:
        common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.graph.sort()
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        name = node.name or f"{node.op_type}_{index}"
        node.name = name if name not in taken else f"{name}_{index}"
        taken.add(node.name)
    if not model.graph.inputs:
        raise InputError(f"{file}: the graph has no inputs")


def _produce_outputs(model: ir.Model) -> None:
    """Give an output that is a constant an ``Identity``: backends need a node to emit."""
    graph = model.graph
    constants = [v for v in graph.outputs if v.const_value is not None and v.name]
    for value in dict.fromkeys(constants):
        name = value.name or ""
        stored = fresh_name(graph, f"{name}.stored")
        del graph.initializers[name]
        value.name = stored
        graph.register_initializer(value)
        node = ir.node("Identity", [value], name=fresh_name(graph, f"{name}.output"))
        out = node.outputs[0]
        out.name, out.shape, out.type = name, value.shape, value.type
        graph.append(node)
        for i, old in enumerate(graph.outputs):
            if old is value:
                graph.outputs[i] = out


def _check_finite(model: ir.Model, file: str) -> None:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        array = np.asarray(tensor.numpy())
        array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
        if np.isfinite(array).all():
            continue
        where = f"{file}: initializer {value.name!r}"
        if np.isnan(array).any():
            raise InputError(f"{where} holds NaN", hint="the checkpoint is damaged")
        users = [u.node.name for u in value.uses() if u.node.op_type in _LINEAR]
        if users:
            raise InputError(f"{where} holds infinity and feeds {users[0]!r}")
