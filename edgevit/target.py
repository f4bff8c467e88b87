"""Targets: what a device can do, read from ``targets/devices/*.toml``.

An unknown key is an error; ``extends`` goes one level deep; ``name:key=value`` overrides.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edgevit import registry
from edgevit.errors import UsageError

__all__ = [
    "Figure",
    "LayerKind",
    "LayerRule",
    "PlacementRule",
    "QuantScheme",
    "Target",
    "load_target",
    "parse_target",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Strict):
    """A number with where it comes from and how far it can be trusted."""

    value: float
    unit: str
    source: str
    confidence: Literal["measured", "published", "estimated"]


class PlacementRule(_Strict):
    """Which unit runs an operator: the first rule that matches decides.

    Attributes:
        name: Shown in reports.
        unit: ``ANE``, ``CPU``, ``GPU`` or ``OPTICS``.
        ops: Canonical operator names; empty matches every operator.
        precisions: Precisions of the program in which the rule holds; empty: in all.
        min_rank: Matches if any input or output has at least this rank.
        align_elements: The unit pads the last axis to a multiple of this; 0: it does not.
        source: Where the rule comes from.
        confidence: How far it can be trusted.
    """

    name: str
    unit: Literal["ANE", "CPU", "GPU", "OPTICS"]
    ops: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    min_rank: int = 0
    align_elements: int = 0
    source: str
    confidence: Literal["measured", "published", "estimated"]


class Tolerance(_Strict):
    """Whole-network gates of a precision; exactly the metrics named are checked."""

    max_rel: float | None = None
    psnr_db: float | None = None
    sqnr_db: float | None = None
    top1_agreement: float | None = None


LayerKind = Literal[
    "linear", "pointwise", "patches", "depthwise", "grouped", "spatial", "transposed"
]


class LayerRule(_Strict):
    """Where integers pay on an engine: the first rule that matches a layer decides.

    Attributes:
        name: Shown in reports.
        precisions: In which the rule holds; empty: in all.
        kinds: Of layers (``edgevit.layer_rules``); empty: every kind.
        intensity_below: Matches layers with fewer multiplications for each number that is
            read and written, ``K N / (K + N)``; 0: any.
        inputs_below: Matches convolutions whose groups read fewer channels; 0: any.
        rows_from: Matches layers that are applied to at least this many positions.
        run: ``float``: the layer is not quantized; ``integers``: it is, and its result is
            float; ``codes``: its result is quantized too.
        because: Why a layer is left float.
        source: What was measured.
    """

    name: str
    precisions: tuple[str, ...] = ()
    kinds: tuple[LayerKind, ...] = ()
    intensity_below: float = 0.0
    inputs_below: int = 0
    rows_from: int = 0
    run: Literal["float", "integers", "codes"]
    because: Literal["slower", "less exact"] = "slower"
    source: str


class QuantScheme(_Strict):
    """How a precision is quantized for an engine (docs/adr/0009-quantization.md).

    Attributes:
        weights: Stored dtype of weight codes.
        weight_bits: Fewer bits than the dtype has; 0: all of them.
        conv_weight_bits: The same of convolutions alone; 0: as ``weight_bits`` says.
        activations: Stored dtype of activation codes; empty: activations stay float.
        activation_bits: Fewer bits than the dtype has; 0: all of them.
        scheme: Of activations.
        block: Weights that share a scale along the contracted axis; 0: per output channel.
        least_scale: The least scale of weights that the artifact can hold: float16 has all its
            bits from 2**-14 on, and an int32 bias counts in units of it. Weights that would
            need a smaller one get this one.
        operators: Canonical operators with constant weights that are quantized.
        depthwise: Whether convolutions with one input channel a filter are quantized.
        outputs: Those of them whose integer kernel needs an integer result.
        answers: ``as-run``: linear layers that read floats and whose results the network gives
            out have kernels that quantize rows as they run and write floats; empty: they are
            like any other layer.
        attention: Stored dtype of the codes of queries and keys, symmetric; empty: products of
            attention stay float.
        layers: Exceptions from ``operators``, ``depthwise`` and ``outputs``: those of the
            device file that hold in this precision.
        source: Where the choice comes from.
    """

    weights: Literal["int4", "int8"] = "int8"
    weight_bits: int = 0
    conv_weight_bits: int = 0
    activations: Literal["", "int8", "uint8", "int16"] = ""
    activation_bits: int = 0
    scheme: Literal["symmetric", "asymmetric"] = "asymmetric"
    block: int = 0
    least_scale: float = 0.0
    operators: tuple[str, ...] = ("Conv", "MatMul")
    depthwise: bool = True
    outputs: tuple[str, ...] = ()
    answers: Literal["", "as-run"] = ""
    attention: Literal["", "int8"] = ""
    layers: tuple[LayerRule, ...] = ()
    source: str

    def bits_of(self, op_type: str) -> int:
        """Bits of an operator's weight codes."""
        own = self.conv_weight_bits if op_type == "Conv" else 0
        return own or self.weight_bits or {"int4": 4, "int8": 8}[self.weights]


class Target(_Strict):
    """A device file, merged and overridden.

    Attributes:
        name: Target name.
        title: One line for people.
        backend: Backend name in the registry.
        engine: Engine that runs the artifact on the device.
        engines: Other engines of the device -> the target that compiles for each.
        backends: Other backends for the device -> the target that compiles with each.
        os: Operating-system floor, e.g. ``"iOS 17"``; empty if none.
        max_rank: Highest tensor rank the device takes.
        fallback: Whether ``--allow-fallback`` is possible.
        default_precision: Used when ``--precision`` is absent.
        precisions: Those that can be executed.
        exclude_ops: Canonical operators the device cannot run though the backend can.
        pipeline: Extra passes after canonicalization.
        pipelines: Passes that make a precision, by its name.
        quantization: Quantization scheme by precision.
        tolerance: Gates by precision.
        figures: Numbers for the cost model, by name; a file that extends another has its own.
        placement: Rules, first match decides.
        layers: Where integers pay, rules of which the first match decides.
        options: Backend options (set by overrides such as ``os=18``).
    """

    name: str
    title: str
    backend: str
    engine: str
    engines: dict[str, str] = {}
    backends: dict[str, str] = {}
    os: str = ""
    max_rank: int = 8
    fallback: bool = True
    default_precision: str
    precisions: tuple[str, ...]
    exclude_ops: tuple[str, ...] = ()
    pipeline: tuple[str, ...] = ()
    pipelines: dict[str, tuple[str, ...]] = {}
    quantization: dict[str, QuantScheme] = {}
    tolerance: dict[str, Tolerance]
    figures: dict[str, Figure] = {}
    placement: tuple[PlacementRule, ...] = ()
    layers: tuple[LayerRule, ...] = ()
    overridable: dict[str, tuple[str, ...]] = {}
    options: dict[str, str] = {}

    def digest(self) -> str:
        """sha256 of the canonical JSON of all fields."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _read(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"device file {where} is not valid TOML: {e}") from e


def _builtin(name: str) -> dict[str, Any]:
    package, _, file = registry.reference("targets", name).partition(":")
    text = importlib.resources.files(package).joinpath(file).read_text(encoding="utf-8")
    return _read(text, f"{package}:{file}")


def _extend(data: dict[str, Any], where: str) -> dict[str, Any]:
    if "extends" not in data:
        return data
    base = _builtin(str(data["extends"]))
    if "extends" in base:
        raise UsageError(f"device file {where}: 'extends' goes one level deep only")
    merged = {**base, **{k: v for k, v in data.items() if k != "extends"}}
    # What one device was timed at says nothing about another.
    merged["figures"] = data.get("figures", {})
    for table in ("tolerance", "overridable", "options", "pipelines", "quantization"):
        merged[table] = {**base.get(table, {}), **data.get(table, {})}
    return merged


def _validate(data: dict[str, Any], where: str) -> Target:
    try:
        return Target.model_validate(data)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise UsageError(f"device file {where}: {key}: {first['msg']}") from e


def _override(target: Target, text: str) -> Target:
    options = dict(target.options)
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        others = {"engine": target.engines, "backend": target.backends}.get(key, {})
        if value in others:
            rest = ",".join(i for i in text.split(",") if i != item)
            other = others[value]
            return _override(parse_target(_builtin(other), other), rest)
        if not equals:
            raise UsageError(f"target {target.name!r}: expected key=value, found {item!r}")
        if key not in target.overridable:
            raise UsageError(
                f"target {target.name!r} has no override {key!r}",
                hint="it has: " + (", ".join(sorted(target.overridable)) or "none"),
            )
        allowed = target.overridable[key]
        if value not in allowed:
            raise UsageError(
                f"target {target.name!r}: {key}={value!r} is not possible",
                hint=f"{key} can be: {', '.join(allowed)}",
            )
        options[key] = value
    return target.model_copy(update={"options": options, "os": _system(target.os, options)})


def _system(text: str, options: Mapping[str, str]) -> str:
    """The operating-system floor with the version that an override chose: ``iOS 18``."""
    if not text or "os" not in options:
        return text
    return f"{text.rpartition(' ')[0]} {options['os']}".strip()


def parse_target(data: dict[str, Any], where: str) -> Target:
    """Build a target from parsed TOML; ``where`` is named in errors.

    Raises:
        UsageError: Unknown key, missing key, wrong type, or nested ``extends``.
    """
    return _validate(_extend(data, where), where)


def load_target(spec: str, file: Path | None = None) -> Target:
    """Load ``"name"`` or ``"name:key=value,..."``, or a user's device file.

    Args:
        spec: Target name with overrides; ignored names are an error with the nearest.
        file: A device file of the user's; then ``spec`` may be empty or ``":key=value"``.

    Raises:
        UsageError: Unknown target, bad file or bad override.
    """
    name, _, overrides = spec.partition(":")
    if file is None:
        return _override(parse_target(_builtin(name), name), overrides)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise UsageError(f"device file {file} cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"device file {file} is not UTF-8 text: {e}") from e
    return _override(parse_target(_read(text, str(file)), str(file)), overrides)
