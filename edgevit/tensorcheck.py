"""Structural checks of tensors and attributes in a model file, before anything reads them.

Native code that meets a tensor whose sizes disagree reads past its end; so each tensor is
measured here, in Python, on the parsed protobuf.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgevit.errors import InputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

__all__ = ["MAX_RANK", "check_attribute", "check_tensor", "external_location", "tensor_nbytes"]

MAX_RANK = 32
_FIELDS = {
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
}
_DATA_FIELDS = (
    "float_data",
    "double_data",
    "int32_data",
    "int64_data",
    "uint64_data",
    "string_data",
)
# onnx.AttributeProto: type name -> the field that holds it.
_ATTRIBUTE_FIELDS = {
    "FLOAT": "f",
    "INT": "i",
    "STRING": "s",
    "TENSOR": "t",
    "FLOATS": "floats",
    "INTS": "ints",
    "STRINGS": "strings",
}


def _dtype(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    import onnx_ir as ir

    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as e:
        raise InputError(f"{where}: unknown data type {tensor.data_type}") from e
    taken = dtype.is_floating_point() or dtype.is_integer() or dtype == ir.DataType.BOOL
    if not taken or dtype.bitwidth == 6:
        raise InputError(
            f"{where}: data type {dtype.name}, expected real numbers, integers or bool"
        )
    return dtype


def _check_dims(tensor: onnx.TensorProto, where: str) -> int:
    dims = list(tensor.dims)
    if len(dims) > MAX_RANK:
        raise InputError(f"{where}: tensor has rank {len(dims)}, expected at most {MAX_RANK}")
    if any(d < 0 for d in dims):
        raise InputError(f"{where}: tensor has negative dimensions {dims}")
    return math.prod(dims)


def tensor_nbytes(tensor: onnx.TensorProto, where: str) -> int:
    """Bytes that the tensor's dimensions and data type ask for.

    Raises:
        InputError: Unknown data type, or dimensions that no tensor can have.
    """
    return -(-_check_dims(tensor, where) * _dtype(tensor, where).bitwidth // 8)


def external_location(
    tensor: onnx.TensorProto, folder: Path, where: str
) -> tuple[Path, int, int]:
    """The file, offset and length in bytes of a tensor stored outside the model file.

    The path must stay inside the model's folder (symbolic links followed).

    Raises:
        InputError: Missing, absolute or escaping path, unreadable file, or a range that the
            file does not hold.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    pure = PurePosixPath(location)
    if not location or "\0" in location or pure.is_absolute() or ".." in pure.parts:
        raise InputError(
            f"{where}: external data path {location!r} is refused",
            hint="it must be a relative path inside the model's folder",
        )
    path = folder / location
    if not path.is_file():
        raise InputError(
            f"{where}: external data file {path} does not exist",
            hint="keep the model and its data files together",
        )
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{where}: external data {location!r} leads outside {folder}")
    offset = _number(entries, "offset", 0, where)
    length = _number(entries, "length", path.stat().st_size - offset, where)
    need, size = tensor_nbytes(tensor, where), path.stat().st_size
    if length != need or offset + need > size:
        raise InputError(
            f"{where}: external data is {length} bytes at {offset} of {size} in {path}, "
            f"expected {need} bytes",
            hint="the data file is truncated or belongs to another model",
        )
    return path, offset, need


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InputError(f"{where}: external data has {key} {text!r}, expected a byte count")
    return int(text)


def check_tensor(tensor: onnx.TensorProto, folder: Path, where: str) -> None:
    """Check data type, dimensions, and that the data is exactly as long as they ask for.

    Args:
        tensor: The tensor as it stands in the file.
        folder: The model's folder, for external data.
        where: Named in errors, e.g. ``"model.onnx: initializer 'w'"``.

    Raises:
        InputError: The first thing that is wrong.
    """
    import onnx

    need, dtype = tensor_nbytes(tensor, where), _dtype(tensor, where)
    filled = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    if tensor.HasField("segment"):
        raise InputError(f"{where}: segmented tensors are not supported")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        external_location(tensor, folder, where)
        return
    if tensor.external_data:
        raise InputError(f"{where}: tensor names external data but is not marked external")
    if tensor.HasField("raw_data"):
        filled += ["raw_data"]
    field = _FIELDS.get(dtype.name, "int32_data")
    if need and filled not in (["raw_data"], [field]):
        what = " and ".join(filled) or "no data"
        raise InputError(f"{where}: {dtype.name} tensor holds {what}, expected one field")
    found, unit = _stored(tensor, field, raw=filled == ["raw_data"])
    expected = need if unit == "bytes" else -(-need * 8 // max(dtype.bitwidth, 8))
    if found != expected:
        raise InputError(
            f"{where}: tensor of shape {list(tensor.dims)} and type {dtype.name} holds "
            f"{found} {unit}, expected {expected}"
        )


def _stored(tensor: onnx.TensorProto, field: str, *, raw: bool) -> tuple[int, str]:
    if raw:
        return len(tensor.raw_data), "bytes"
    return len(getattr(tensor, field)), "numbers"


def check_attribute(
    attribute: onnx.AttributeProto, folder: Path, where: str, *, in_function: bool
) -> None:
    """Check that an attribute holds one value of the type it claims.

    Raises:
        InputError: Graph or sparse attribute, several values, a NaN, a bad tensor, or a
            reference to a function parameter outside a function.
    """
    import onnx

    if attribute.ref_attr_name:
        if not in_function:
            raise InputError(
                f"{where}: refers to {attribute.ref_attr_name!r} outside a function"
            )
        return
    kinds = onnx.AttributeProto.AttributeType
    name = kinds.Name(attribute.type) if attribute.type in kinds.values() else "UNKNOWN"
    if name not in _ATTRIBUTE_FIELDS:
        raise InputError(f"{where}: attribute type {name} is not supported")
    field = _ATTRIBUTE_FIELDS[name]
    present = {d.name for d, _ in attribute.ListFields()} - {"name", "type", "doc_string"}
    if present - {field}:
        raise InputError(
            f"{where}: attribute of type {name} also holds {sorted(present - {field})}"
        )
    if name == "TENSOR":
        if field not in present:
            raise InputError(f"{where}: attribute of type TENSOR is empty")
        check_tensor(attribute.t, folder, where)
    for text in [attribute.s, *attribute.strings]:
        _check_utf8(text, where)
    numbers = [attribute.f] if name == "FLOAT" else list(attribute.floats)
    if any(math.isnan(x) for x in numbers):
        raise InputError(f"{where}: attribute is NaN")


def _check_utf8(text: bytes, where: str) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as e:
        raise InputError(f"{where}: text is not UTF-8: {text[:40]!r}") from e
