"""Edits that a calibrated pass plans: plain values, written to a bundle and read back.

A plan is what tests assert, and what lets a bundle be verified without calibration data.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgevit.errors import ArtifactError
from edgevit.quantization import QParams

__all__ = [
    "EDITS",
    "Edit",
    "FoldChannels",
    "FreezeThresholds",
    "KeepFloat",
    "MixExperts",
    "QuantizeActivation",
    "QuantizeAsRun",
    "QuantizeLog",
    "QuantizeWeight",
    "Remark",
    "ReplaceConstant",
    "ShiftWeight",
    "dump",
    "kept_in",
    "parse",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class QuantizeActivation:
    """Put a QuantizeLinear/DequantizeLinear pair (and a Clip, if narrow) behind a value.

    Attributes:
        value: Value name.
        params: Per tensor.
        consumers: Consuming nodes, each by the name of its first output; empty: all (an
            output quantizer).
    """

    value: str
    params: QParams
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizeWeight:
    """Store a constant as codes behind a DequantizeLinear.

    Attributes:
        value: Name of the constant.
        params: Per tensor, per axis or block-wise.
        consumers: As above; empty: all.
        codes: Codes chosen by an algorithm, in the constant's shape, int8 up to 8 bits;
            ``None``: the nearest.
    """

    value: str
    params: QParams
    consumers: tuple[str, ...] = ()
    codes: Array | None = None


@dataclass(frozen=True)
class ReplaceConstant:
    """Give nodes another constant (a folded scale, a corrected bias).

    Attributes:
        value: Name of the constant it replaces.
        array: Same dtype; the same shape unless the consumer broadcasts.
        consumers: As above; empty: all.
    """

    value: str
    array: Array
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShiftWeight:
    """Give a layer weights that are sums of signed powers of two.

    Attributes:
        value: The layer, by the name of its node's first output.
        codes: Packed terms (``edgevit.shift_codes``).
        signs: Packed signs of the wide form; ``None`` of the narrow one.
        scale: float32, one for each output channel.
        inputs: Products of a result: rows of the weight matrix.
        detail: What it costs, for the report.
    """

    value: str
    codes: Array
    signs: Array | None
    scale: Array
    inputs: int
    detail: str = ""


@dataclass(frozen=True)
class FoldChannels:
    """Divide the channels of a layer's input, and undo it in the layers that read it.

    Attributes:
        layer: The layer, by the name of its result.
        scale: Positive, one number per input channel: ``x' = (x - offset) / scale``.
        offset: One number per input channel, in units of the activation.
        explicit: Whether operators of its own are put in where nothing in front can take it.
        detail: What it gains, for the report.
        readers: The layers that read the activation.
        gains_db: For each of them, how much better its output is, as a signal-to-noise ratio
            on calibration data.
    """

    layer: str
    scale: Array
    offset: Array
    explicit: bool = False
    detail: str = ""
    readers: tuple[str, ...] = ()
    gains_db: tuple[float, ...] = ()


@dataclass(frozen=True)
class QuantizeLog:
    """Give the weights of an attention logarithmic codes.

    Attributes:
        value: Name of the attention's result, or of the softmax's where it stands by itself.
        bits: Width of the codes; the last one means zero.
        rate: Octaves from code to code: ``x = 2^(-rate * code)``.
    """

    value: str
    bits: int
    rate: float


@dataclass(frozen=True)
class FreezeThresholds:
    """Make an attention of 0/1 codes a function with constant thresholds.

    Attributes:
        value: Name of its result.
        query: What normalized queries are compared with.
        key: What normalized keys are compared with.
    """

    value: str
    query: float
    key: float


@dataclass(frozen=True)
class QuantizeAsRun:
    """Let a layer's kernel quantize the rows that it reads as it runs; its result is float.

    Attributes:
        value: The layer, by the name of its node's first output.
    """

    value: str


@dataclass(frozen=True)
class KeepFloat:
    """A layer that stays float, and why; it becomes a refusal in the report.

    Attributes:
        node: Name of the layer's result.
        reason: One line.
    """

    node: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """What a planner found out about the model as a whole; it becomes a note in the report.

    Attributes:
        text: One line.
    """

    text: str


@dataclass(frozen=True)
class MixExperts:
    """Make one or two layers over tokens a mixture of a multiplication and a shift expert.

    Attributes:
        value: Name of the layers' result.
        capacity: Tokens of the multiplication expert.
        router: ``fitted``, ``norm``, ``class-attention`` or ``random``.
        terms: Shift terms of a weight.
        q: Their sums, int32 ``[d, m]``, of the first layer.
        scale: Powers of two ``[m]``.
        bias: float32 ``[m]``.
        q2: The same of the second layer, if there is one.
        scale2: Likewise.
        bias2: Likewise.
        linear: Of a fitted router ``[d]``; scores of the tokens ``[t]`` of a random one.
        square: Of a fitted router ``[d]``, or ``None``.
        narrow: Whether the multiplication expert's weights are int8.
        least: Their smallest scale.
        detail: For the report.
    """

    value: str
    capacity: int
    router: str
    terms: int
    q: Array
    scale: Array
    bias: Array
    q2: Array | None = None
    scale2: Array | None = None
    bias2: Array | None = None
    linear: Array | None = None
    square: Array | None = None
    narrow: bool = False
    least: float = 0.0
    detail: str = ""


Edit = (
    QuantizeActivation
    | QuantizeAsRun
    | QuantizeLog
    | QuantizeWeight
    | ReplaceConstant
    | ShiftWeight
    | FoldChannels
    | FreezeThresholds
    | KeepFloat
    | Remark
    | MixExperts
)
# Where a bundle keeps those of its first entry.
EDITS = "edits.npz"
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        QuantizeActivation,
        QuantizeAsRun,
        QuantizeLog,
        QuantizeWeight,
        ReplaceConstant,
        ShiftWeight,
        FoldChannels,
        FreezeThresholds,
        KeepFloat,
        Remark,
        MixExperts,
    )
}


def kept_in(entry: int) -> str:
    """The bundle's file for the edits of an entry: each is calibrated by itself."""
    return EDITS if not entry else f"edits-{entry}.npz"


def dump(plans: Sequence[tuple[str, Sequence[Edit]]]) -> dict[str, Array]:
    """Arrays that ``numpy.savez`` can hold: one JSON text, and the codes and constants.

    Args:
        plans: (pass spec, its edits) in the order of the pipeline.
    """
    arrays: dict[str, Array] = {}
    listed = [
        {"pass": spec, "edits": [_to_json(edit, arrays) for edit in edits]}
        for spec, edits in plans
    ]
    text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
    return {"plan": np.frombuffer(text.encode(), np.uint8), **arrays}


def _to_json(edit: Edit, arrays: dict[str, Array]) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": type(edit).__name__}
    for name, field in vars(edit).items():
        if isinstance(field, QParams):
            data[name] = field.to_json()
        elif isinstance(field, np.ndarray):
            key = f"a{len(arrays)}"
            arrays[key], data[name] = field, {"array": key}
        else:
            data[name] = field
    return data


def parse(content: bytes) -> tuple[tuple[str, tuple[Edit, ...]], ...]:
    """The inverse of ``dump`` on the bytes of the ``.npz``.

    Raises:
        ArtifactError: It is no such file.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
        listed = json.loads(arrays["plan"].tobytes())
        return tuple(
            (str(p["pass"]), tuple(_from_json(e, arrays) for e in p["edits"])) for p in listed
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as e:
        raise ArtifactError(f"the bundle's edits cannot be read: {e}") from e


def _from_json(data: dict[str, Any], arrays: dict[str, Array]) -> Edit:
    given: dict[str, Any] = {}
    for name, field in data.items():
        if name == "params":
            given[name] = QParams.from_json(field)
        elif isinstance(field, dict):
            given[name] = arrays[field["array"]]
        elif isinstance(field, list):
            given[name] = tuple(field)
        elif name != "kind":
            given[name] = field
    made: Edit = _KINDS[data["kind"]](**given)
    return made
