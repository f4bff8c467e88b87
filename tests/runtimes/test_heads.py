from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import InputError, UsageError
from edgevit.runtimes.heads import (
    CtcHead,
    Head,
    MaskHead,
    TopkHead,
    ctc_greedy,
    head_for,
    head_json,
    mask,
    paddle_characters,
    parse_head,
    softmax,
    topk,
)


def test_topk_orders_and_names() -> None:
    found = topk(np.array([0.1, 3.0, -1.0, 3.0], np.float32), 3, ["a", "b", "c", "d"])
    assert [(s.index, s.label) for s in found] == [(1, "b"), (3, "d"), (0, "a")]
    assert found[0].score == 3.0


def test_topk_without_labels_or_with_few_classes() -> None:
    assert [s.label for s in topk(np.array([1.0, 2.0]), 5)] == ["1", "0"]


def test_topk_refuses_other_shapes_and_labels() -> None:
    with pytest.raises(InputError, match="one axis"):
        topk(np.zeros((1, 3)), 1)
    with pytest.raises(InputError, match="expected 3 labels, found 2"):
        topk(np.zeros(3), 1, ["a", "b"])


def test_softmax_is_stable_and_sums_to_one() -> None:
    found = softmax(np.array([[1000.0, 1000.0 + np.log(3)], [-1e4, 0.0]]))
    np.testing.assert_allclose(found, np.array([[0.25, 0.75], [0, 1]]), rtol=0, atol=1e-12)


def steps(path: list[int], classes: int, high: float = 0.9) -> np.ndarray[Any, Any]:
    probs = np.full((len(path), classes), (1 - high) / (classes - 1), np.float32)
    probs[np.arange(len(path)), path] = high
    return probs


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([1, 1, 2], "ab"),
        ([1, 0, 1], "aa"),
        ([0, 0, 0], ""),
        ([0, 1, 1, 0, 0, 3, 2, 2], "acb"),
        ([], ""),
    ],
)
def test_ctc_merges_repeats_and_drops_blanks(path: list[int], text: str) -> None:
    assert ctc_greedy(steps(path, 4), "abc").text == text


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 3))
def test_ctc_agrees_with_the_definition(path: list[int], blank: int) -> None:
    classes = [c for c in range(4) if c != blank]
    merged = [key for key, _ in itertools.groupby(path)]
    expected = "".join("abc"[classes.index(c)] for c in merged if c != blank)
    assert ctc_greedy(steps(path, 4), "abc", blank).text == expected


def test_ctc_confidence_is_the_mean_of_the_kept_steps() -> None:
    probs = np.array([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.7, 0.3, 0], [0.4, 0, 0.6]])
    found = ctc_greedy(probs, "ab")
    assert found.text == "ab"
    assert found.confidence == pytest.approx((0.9 + 0.6) / 2, abs=1e-12)
    assert ctc_greedy(steps([0], 3), "ab").confidence == 0.0


def test_ctc_refuses_a_wrong_dictionary() -> None:
    with pytest.raises(InputError, match=r"expected \[steps, 4\] for 3 characters"):
        ctc_greedy(np.zeros((5, 5)), "abc")


def test_mask_thresholds_the_sigmoid() -> None:
    logits = np.array([-1e30, -0.1, 0.0, 0.1, 1e30], np.float32)
    assert mask(logits).tolist() == [False, False, True, True, True]
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)[1:4]))
    assert mask(logits[1:4], 0.51).tolist() == (probability >= 0.51).tolist()


def test_paddle_dictionaries_gain_the_space_and_keep_odd_characters() -> None:
    assert paddle_characters("a\nb\n\u2028\nc") == ("a", "b", "\u2028", "c", " ")
    assert paddle_characters("a\r\nb\r\n") == ("a", "b", " ")


HEADS: list[Head] = [
    TopkHead(),
    TopkHead(3, ("x", "y"), softmax=False),
    CtcHead(("a", "b"), 2),
    MaskHead(0.25),
]


@pytest.mark.parametrize("head", HEADS)
def test_heads_survive_json(head: Head) -> None:
    assert parse_head(json.loads(json.dumps(head_json(head)))) == head


def test_heads_take_batches() -> None:
    scores = TopkHead(1).apply(np.array([[0.0, 2.0], [3.0, 0.0]]))
    assert [s[0].index for s in scores] == [1, 0]
    assert scores[0][0].score == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-12)
    ctc = CtcHead(("a", "b"))
    assert [t.text for t in ctc.apply(np.stack([steps([1, 2], 3), steps([2, 0], 3)]))] == [
        "ab",
        "b",
    ]
    assert MaskHead().apply(np.zeros((2, 1, 3)))[1].shape == (1, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "topc"}, "unknown kind 'topc'"),
        ({"kind": ["topk"]}, "unknown kind"),
        ("topk", "unknown kind"),
        ({"kind": "topk", "n": 3}, "unknown key 'n'"),
        ({"kind": "topk", "k": "3"}, "expected int"),
        ({"kind": "topk", "k": True}, "expected int"),
        ({"kind": "topk", "k": 0}, "at least 1"),
        ({"kind": "ctc"}, "characters"),
        ({"kind": "ctc", "characters": "abc"}, "list of texts"),
        ({"kind": "ctc", "characters": ["a"], "blank": 2}, "expected 0 to 1"),
        ({"kind": "mask", "threshold": 1}, "between 0 and 1"),
    ],
)
def test_nonsense_is_bad_usage(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_head(data)


def test_a_head_is_built_from_the_models_metadata() -> None:
    found = parse_head(head_for("ctc", {"character": "a\nb"}))
    assert found == CtcHead(("a", "b", " "))
    assert parse_head(head_for("mask", {})) == MaskHead()
    assert isinstance(parse_head(head_for("topk", {})), TopkHead)
    with pytest.raises((UsageError, InputError), match="character"):
        head_for("ctc", {})
