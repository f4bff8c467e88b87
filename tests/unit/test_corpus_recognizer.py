"""Reading text out of CTC scores, and scoring it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.corpus.recognizer import characters, decode, edit_distance
from benchmarks.corpus.store import CorpusError

NAMES = ("", "a", "b", " ")


def scores(path: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.eye(len(NAMES), dtype=np.float32)[path]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([0, 1, 1, 0, 1, 2, 0], "aab"),
        ([1, 1, 1], "a"),
        ([3, 1, 3, 2, 3], "a b"),
        ([0, 0], ""),
    ],
)
def test_decode_merges_repeats_and_drops_blanks(path: list[int], text: str) -> None:
    assert decode(scores(path), NAMES) == text


def test_decode_refuses_another_alphabet() -> None:
    with pytest.raises(CorpusError, match="expected 3 classes"):
        decode(scores([1]), NAMES[:3])


def recursive_distance(a: str, b: str) -> int:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        swap = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(swap, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(a), len(b))


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_edit_distance_follows_its_definition(a: str, b: str) -> None:
    assert edit_distance(a, b) == recursive_distance(a, b)


def test_edit_distance_of_a_known_pair() -> None:
    assert edit_distance("kitten", "sitting") == 3


def save(path: Path, metadata: dict[str, str]) -> Path:
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def test_characters_come_from_the_metadata(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", {"character": "x\ny\nz"})
    assert characters(path) == ("", "x", "y", "z", " ")


def test_characters_need_the_metadata(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", {"other": "x"})
    with pytest.raises(CorpusError, match=r"expected the metadata entry.*\['other'\]"):
        characters(path)
