"""Which models are compiled, for which targets, and what each must reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.store import CACHE, FIXTURES, CorpusUnavailableError
from benchmarks.selection import select

__all__ = ["BACKENDS", "CASES", "NATIVE", "Case", "Setting", "choose", "columns"]

Task = Literal["fashion", "text"]


@dataclass(frozen=True)
class Setting:
    """One column of the table: a target at a precision.

    Attributes:
        label: Short name, e.g. ``coreml fp16``.
        target: Target name.
        precision: Precision name.
        texts: How many hard images the recognizer must read like its source.
    """

    label: str
    target: str
    precision: str
    texts: int


@dataclass(frozen=True)
class Case:
    """One model file.

    Attributes:
        name: Shown in the table.
        find: Gives the path; fetches it if needed.
        shapes: Input name -> shape, for symbolic dimensions.
        task: What is measured beside parity; ``None`` for random weights and for exports
            whose twin is measured.
        require: Canonical operator -> count that canonicalization must reach.
        twin: Name of the case whose canonical graph must be the same up to names.
        same_weights: Whether the weights must be the same too. They are not where exporters
            fold batch norms into convolutions by themselves, each with its own rounding.
    """

    name: str
    find: Callable[[], Path]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    task: Task | None = None
    require: Mapping[str, int] = field(default_factory=dict)
    twin: str | None = None
    same_weights: bool = True


BACKENDS = (
    Setting("onnx fp32", "onnx", "fp32", texts=200),
    Setting("litert fp32", "raspberry-pi-5", "fp32", texts=200),
    # The evaluator reads and runs the saved program on any machine, at its own pace.
    Setting("coreml fp32", "iphone-npu", "fp32", texts=50),
    Setting("coreml fp16", "iphone-npu", "fp16", texts=50),
)
# Measured where it is asked for by name.
NATIVE = (Setting("tvm fp32", "linux-x86:backend=tvm", "fp32", texts=200),)


def columns(wanted: Sequence[str]) -> tuple[Setting, ...]:
    """The columns whose label starts with one of ``wanted``; ``BACKENDS`` if it is empty."""
    chosen = tuple(s for s in (*BACKENDS, *NATIVE) if s.label.startswith(tuple(wanted)))
    return chosen if wanted else BACKENDS


def _fixture(name: str) -> Callable[[], Path]:
    return lambda: FIXTURES / "models" / f"{name}.onnx"


def _exported(name: str) -> Callable[[], Path]:
    def find() -> Path:
        path = CACHE / "models" / f"{name}.onnx"
        if not path.is_file():
            raise CorpusUnavailableError(path.name, reason="`make models` exports it")
        return path

    return find


# DeiT-Ti: 12 blocks with one attention and one MLP, two norms each, and a last norm.
_DEIT = {"Attention": 12, "LayerNormalization": 25, "Gelu": 12}
CASES = (
    Case("fashion_hybrid_ts", _fixture("fashion_hybrid_ts"), task="fashion"),
    Case(
        "fashion_hybrid_dynamo",
        _fixture("fashion_hybrid_dynamo"),
        twin="fashion_hybrid_ts",
        same_weights=False,
    ),
    Case("fashion_vit_ts", _fixture("fashion_vit_ts"), task="fashion"),
    Case("fashion_vit_dynamo", _fixture("fashion_vit_dynamo"), twin="fashion_vit_ts"),
    Case(
        "ppocrv4_rec",
        lambda: fetch_model("ppocrv4_rec"),
        shapes={"x": (1, 3, 48, 320)},
        task="text",
    ),
    Case("deit_tiny_ts", _exported("deit_tiny_patch16_224_ts"), require=_DEIT),
    Case(
        "deit_tiny_dynamo",
        _exported("deit_tiny_patch16_224_dynamo"),
        require=_DEIT,
        twin="deit_tiny_ts",
    ),
    Case("mobilevit_xxs_ts", _exported("mobilevit_xxs_ts")),
    Case(
        "mobilevit_xxs_dynamo",
        _exported("mobilevit_xxs_dynamo"),
        twin="mobilevit_xxs_ts",
        same_weights=False,
    ),
)


def choose(wanted: Sequence[str]) -> tuple[Case, ...]:
    """The cases whose name starts with one of ``wanted``; all if it is empty.

    Raises:
        ValueError: A name fits no case.
    """
    return select(CASES, wanted)
