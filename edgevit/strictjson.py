"""JSON to frozen dataclasses and back, with nothing forgiven.

A key that is missing, unknown or of the wrong type is an error that says where. Only the
standard library: this file is part of the base install.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union

from edgevit.errors import ArtifactError, InternalError

__all__ = ["canonical", "decode", "digest", "encode", "parse", "pretty"]

T = TypeVar("T")
_SCALARS = (str, int, bool, float)


def encode(value: Any) -> Any:
    """Dataclasses, tuples and mappings as plain JSON values; all else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [encode(v) for v in value]
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    return value


def _dump(value: Any, **style: Any) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **style)
        return text.encode()
    except (TypeError, ValueError) as e:
        raise InternalError(f"not expressible in JSON: {e}") from e


def canonical(value: Any) -> bytes:
    """The one UTF-8 text of a plain JSON value: sorted keys, no spaces, no NaN.

    Raises:
        InternalError: The value holds NaN, infinity or something JSON has no word for.
    """
    return _dump(value, separators=(",", ":"))


def pretty(value: Any) -> bytes:
    """The same value for people: sorted keys, one space of indent, a final newline."""
    return _dump(value, indent=1) + b"\n"


def digest(value: Any) -> str:
    """sha256 of the canonical text, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def parse(content: bytes, where: str) -> Any:
    """Parse UTF-8 JSON; repeated keys, NaN and infinity are errors.

    Raises:
        ArtifactError: Not UTF-8, not JSON, nested too deeply, or something that cannot be
            written back (``1e999``, half a surrogate pair).
    """
    try:
        found = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant
        )
        canonical(found)
        return found
    except (ValueError, RecursionError, InternalError) as e:
        raise ArtifactError(f"{where}: expected JSON, found: {e or type(e).__name__}") from e


def decode(kind: type[T], data: Any, where: str) -> T:
    """Build a frozen dataclass from parsed JSON.

    Args:
        kind: A dataclass whose fields are scalars, ``Literal``, ``X | None``,
            ``tuple[X, ...]``, ``Mapping[str, X]``, ``Any`` or dataclasses.
        data: Parsed JSON.
        where: Named in errors.

    Raises:
        ArtifactError: Missing, unknown or wrong-typed key.
    """
    return typing.cast(T, _decode(kind, data, where))


def _decode(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return data
    if dataclasses.is_dataclass(kind):
        return _record(kind, data, where)
    if kind in _SCALARS:
        return _scalar(kind, data, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        rest = [a for a in args if a is not types.NoneType]
        return None if data is None else _decode(rest[0], data, where)
    if origin is Literal:
        if data not in args or type(data) not in {type(a) for a in args}:
            raise _wrong(where, " or ".join(repr(a) for a in args), data)
        return data
    if origin is tuple:
        items = _typed(list, data, where, "a list")
        return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(items))
    items = _typed(dict, data, where, "an object")
    return {k: _decode(args[1], v, f"{where}.{k}") for k, v in items.items()}


def _record(kind: Any, data: Any, where: str) -> Any:
    found = _typed(dict, data, where, "an object")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    missing = [n for n in names if n not in found]
    if missing:
        raise ArtifactError(f"{where}: expected the key {missing[0]!r}, found none")
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise ArtifactError(f"{where}: unknown key {unknown[0]!r}")
    return kind(**{n: _decode(hints[n], found[n], f"{where}.{n}") for n in names})


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise _wrong(where, kind.__name__, data)
    return data


def _typed(kind: type[Any], data: Any, where: str, what: str) -> Any:
    if not isinstance(data, kind):
        raise _wrong(where, what, data)
    return data


def _wrong(where: str, expected: str, data: Any) -> ArtifactError:
    shown = repr(data)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    return ArtifactError(f"{where}: expected {expected}, found {shown}")
