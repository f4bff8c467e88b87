"""Read the text out of a CTC recognizer's output, and score it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus.store import CorpusError

__all__ = ["characters", "collapse", "decode", "edit_distance"]


def characters(path: Path) -> tuple[str, ...]:
    """Return the character of each class of a PaddleOCR recognizer in ONNX.

    Class 0 is the CTC blank (here the empty string), then the lines of the metadata entry
    ``character``, then the space.

    Raises:
        CorpusError: The model has no such entry.
    """
    import onnx

    model: Any = onnx.load(path, load_external_data=False)
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if "character" not in entries:
        raise CorpusError(
            f"{path.name}: expected the metadata entry 'character', found {sorted(entries)}"
        )
    return ("", *entries["character"].split("\n"), " ")


def decode(scores: NDArray[np.float32], names: Sequence[str]) -> str:
    """Decode ``[steps, classes]`` greedily: merge repeats, drop blanks, strip spaces.

    Raises:
        CorpusError: The number of classes is not that of ``names``.
    """
    if scores.shape[1] != len(names):
        raise CorpusError(f"expected {len(names)} classes, found scores {scores.shape}")
    return collapse(scores.argmax(axis=1), names)


def collapse(best: NDArray[np.int64], names: Sequence[str]) -> str:
    """Turn the best class of each step, ``[steps]``, into text: see ``decode``."""
    starts = np.concatenate(([True], best[1:] != best[:-1]))
    return "".join(names[index] for index in best[starts]).strip()


def edit_distance(found: str, expected: str) -> int:
    """Return the Levenshtein distance: insertions, deletions and substitutions, each 1."""
    row = list(range(len(expected) + 1))
    for i, a in enumerate(found, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(expected, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]
