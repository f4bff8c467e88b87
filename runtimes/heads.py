"""What a model's output means: class names, text, a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from edgevit.errors import InputError, UsageError
from edgevit.registry import nearest

__all__ = [
    "CtcHead",
    "Head",
    "MaskHead",
    "Scored",
    "Text",
    "TopkHead",
    "ctc_greedy",
    "head_for",
    "head_json",
    "mask",
    "paddle_characters",
    "parse_head",
    "softmax",
    "topk",
]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Scored:
    """A class: its index, its label (the index as text if there are none), its score."""

    index: int
    label: str
    score: float


@dataclass(frozen=True)
class Text:
    """Decoded text and its confidence: the mean probability of the steps kept."""

    text: str
    confidence: float


def softmax(logits: Array) -> Array:
    """Softmax over the last axis, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def topk(scores: Array, k: int, labels: Sequence[str] = ()) -> tuple[Scored, ...]:
    """The ``k`` best classes, best first; of equal scores the lower index comes first.

    Args:
        scores: [classes], logits or probabilities.
        k: How many; all if there are fewer.
        labels: One a class, or none.

    Raises:
        InputError: ``scores`` has not one axis, or ``labels`` another length.
    """
    if scores.ndim != 1:
        raise InputError(f"top-k: expected scores of one axis, found shape {scores.shape}")
    if labels and len(labels) != len(scores):
        raise InputError(f"top-k: expected {len(scores)} labels, found {len(labels)}")
    order = np.argsort(-scores.astype(np.float64), kind="stable")[:k]
    return tuple(
        Scored(int(i), labels[i] if labels else str(int(i)), float(scores[i])) for i in order
    )


def ctc_greedy(probs: Array, characters: Sequence[str], blank: int = 0) -> Text:
    """Greedy CTC decoding: best class a step, repeats merged, blanks dropped.

    Args:
        probs: [steps, classes], probabilities.
        characters: The classes without the blank, in order.
        blank: Index of the blank class.

    Raises:
        InputError: The number of classes is not that of the characters and the blank.
    """
    if probs.ndim != 2 or probs.shape[1] != len(characters) + 1:
        raise InputError(
            f"CTC: expected [steps, {len(characters) + 1}] for {len(characters)} characters "
            f"and a blank, found {probs.shape}"
        )
    best = probs.argmax(axis=1)
    changed = np.concatenate([[True], best[1:] != best[:-1]])[: len(best)]
    kept = np.flatnonzero(changed & (best != blank))
    classes = [*characters[:blank], "", *characters[blank:]]
    text = "".join(classes[best[i]] for i in kept)
    confidence = float(np.mean([probs[i, best[i]] for i in kept])) if len(kept) else 0.0
    return Text(text, confidence)


def mask(logits: Array, threshold: float = 0.5) -> Array:
    """Where the sigmoid of the logits is at least ``threshold``; a boolean array."""
    # Compared as logits: no overflow, and the threshold alone is transformed.
    return np.asarray(logits.astype(np.float64) >= np.log(threshold / (1 - threshold)))


def paddle_characters(metadata: str) -> tuple[str, ...]:
    """Characters of a PaddleOCR recognizer, from its ONNX metadata ``character``.

    The metadata has one character a line; the recognizer adds the space as the last class.
    """
    # Not splitlines: characters such as U+2028 are classes, not ends of lines.
    lines = metadata.removesuffix("\n").split("\n")
    return (*(line.removesuffix("\r") for line in lines), " ")


@dataclass(frozen=True)
class TopkHead:
    """Class scores [N, classes]: the best ``k``, with labels.

    Attributes:
        k: How many.
        labels: One a class, or none.
        softmax: Whether the output is logits, to be turned into probabilities.
    """

    kind: ClassVar[str] = "topk"
    k: int = 5
    labels: tuple[str, ...] = ()
    softmax: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UsageError(f"head topk: k: expected at least 1, found {self.k}")

    def apply(self, output: Array) -> tuple[tuple[Scored, ...], ...]:
        """One tuple of classes for each sample; middle axes of size 1 are dropped."""
        rows = output.reshape(output.shape[0], -1) if output.ndim > 1 else output[None]
        scores = softmax(rows) if self.softmax else rows
        return tuple(topk(row, self.k, self.labels) for row in scores)


@dataclass(frozen=True)
class CtcHead:
    """Step probabilities [N, steps, classes]: text by greedy CTC decoding.

    Attributes:
        characters: The classes without the blank, in order.
        blank: Index of the blank class.
        softmax: Whether the output is logits, to be turned into probabilities.
    """

    kind: ClassVar[str] = "ctc"
    characters: tuple[str, ...] = ()
    blank: int = 0
    softmax: bool = False

    def __post_init__(self) -> None:
        if not self.characters:
            raise UsageError("head ctc: characters: expected at least one, found none")
        if not 0 <= self.blank <= len(self.characters):
            raise UsageError(
                f"head ctc: blank: expected 0 to {len(self.characters)}, found {self.blank}"
            )

    def apply(self, output: Array) -> tuple[Text, ...]:
        """One text for each sample."""
        probs = softmax(output) if self.softmax else output
        return tuple(ctc_greedy(sample, self.characters, self.blank) for sample in probs)


@dataclass(frozen=True)
class MaskHead:
    """Logits [N, ...]: a boolean mask.

    Attributes:
        threshold: On the sigmoid, between 0 and 1.
    """

    kind: ClassVar[str] = "mask"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UsageError(
                f"head mask: threshold: expected between 0 and 1, found {self.threshold}"
            )

    def apply(self, output: Array) -> tuple[Array, ...]:
        """One mask for each sample."""
        return tuple(mask(output, self.threshold))


Head = TopkHead | CtcHead | MaskHead


def head_for(kind: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The head object that a compile records for ``--head KIND``.

    Args:
        kind: ``"topk"``, ``"ctc"`` or ``"mask"``.
        metadata: ONNX metadata of the source model; ``ctc`` takes ``character`` from it.

    Raises:
        UsageError: An unknown kind, or ``ctc`` without characters.
    """
    if kind != "ctc":
        return head_json(parse_head({"kind": kind}))
    if "character" not in metadata:
        raise UsageError(
            "head ctc: the model's metadata has no 'character' list of its classes",
            hint="add metadata_props['character'], one character a line",
        )
    return head_json(CtcHead(characters=paddle_characters(metadata["character"])))


_KINDS: Mapping[str, type[TopkHead] | type[CtcHead] | type[MaskHead]] = {
    kind.kind: kind for kind in (TopkHead, CtcHead, MaskHead)
}


def parse_head(data: Any) -> Head:
    """Build a head from its JSON object, ``{"kind": "ctc", "characters": [...]}``.

    Raises:
        UsageError: An unknown kind or key, or a value of the wrong type.
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = nearest(str(kind), list(_KINDS))
        raise UsageError(f"head: unknown kind {kind!r}", hint=hint)
    head = _KINDS[kind]
    types = {f.name: type(f.default) for f in fields(head)}
    values = {}
    for key, value in data.items():
        if key == "kind":
            continue
        if key not in types:
            raise UsageError(f"head {kind}: unknown key {key!r}", hint=nearest(key, [*types]))
        values[key] = _value(f"head {kind}: {key}", types[key], value)
    return head(**values)


def _value(where: str, kind: type[Any], value: Any) -> Any:
    if kind is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise UsageError(f"{where}: expected a list of texts, found {value!r:.40}")
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UsageError(f"{where}: expected {kind.__name__}, found {value!r:.40}")
    return value


def head_json(head: Head) -> dict[str, Any]:
    """The JSON object of a head; ``parse_head`` reads it back equal."""
    plain = {f.name: getattr(head, f.name) for f in fields(head)}
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in plain.items()}
    return {"kind": head.kind, **values}
