"""What is timed: models, engines, and the forms that each engine runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.corpus.store import CACHE, CorpusUnavailableError
from benchmarks.quantization.cases import CASES, Case
from benchmarks.quantization.recipes import FORMS, SOURCE, Form
from benchmarks.selection import select

__all__ = ["ENGINES", "Engine", "choose_timed", "untrained"]


@dataclass(frozen=True)
class Engine:
    """An engine with what it runs.

    Attributes:
        name: Shown in the table.
        forms: float32 first, then ours, then those of the engine's public quantizer.
    """

    name: str
    forms: tuple[Form, ...]


def _forms(*labels: str) -> tuple[Form, ...]:
    by_label = {form.label: form for form in FORMS}
    return (SOURCE, *(by_label[label] for label in labels))


_ORT = "ONNX Runtime"
ENGINES = (
    Engine(
        _ORT,
        _forms(
            "onnx:cpu=vnni w8a8",
            "onnx:cpu=vnni w8a8-dyn",
            f"{_ORT} static, min-max",
            f"{_ORT} static, all operators",
            f"{_ORT} dynamic",
        ),
    ),
    Engine(
        "OpenVINO",
        _forms(
            "linux-x86:engine=openvino,cpu=vnni w8a8",
            "linux-x86:engine=openvino,cpu=vnni w8a8 every layer",
            "NNCF transformer",
            "NNCF default",
        ),
    ),
    Engine(
        "LiteRT",
        _forms(
            "linux-x86 w8a8",
            "linux-x86 w8a8-dyn",
            "litert-quantizer static",
            "litert-quantizer dynamic",
        ),
    ),
)
_NAMES = (
    "deit_tiny_patch16_224",
    "vit_s_probe",
    "ppocrv4_rec",
    "ppocrv6_rec_small",
    "efficientformerv2_s0",
    "pvt_v2_b0",
)


def _random(name: str) -> Path:
    """Random weights, from ``benchmarks.corpus.timm_models``: its accuracy means nothing."""
    path = CACHE / "models" / f"{name}_ts.onnx"
    if not path.is_file():
        raise CorpusUnavailableError(
            path.name, reason=f"python -m benchmarks.corpus.timm_models {name} makes it"
        )
    return path


def choose_timed(wanted: Sequence[str], more: Sequence[Case] = ()) -> tuple[Case, ...]:
    """The timed models whose name starts with one of ``wanted``; all if it is empty.

    Args:
        wanted: Beginnings of names.
        more: Models besides those of every table.

    Raises:
        ValueError: A name fits no model.
    """
    by_name = {case.name: case for case in CASES}
    small = untrained(by_name["mobilevit_xxs"], "mobilevit_s")
    return select((*(by_name[name] for name in _NAMES), small, *more), wanted)


def untrained(like: Case, name: str) -> Case:
    """A case of another size of the same architecture, with random weights."""
    return replace(like, name=name, find=lambda: _random(name))
