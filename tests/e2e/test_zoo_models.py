"""Models of the zoo that are on disk: they settle, are covered, and keep their blocks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.corpus.store import CACHE, CorpusUnavailableError
from benchmarks.zoo_cases import ZooCase, zoo_cases
from edgevit.loading import load
from edgevit.partition import backend_of, coverage
from edgevit.passes.order import canonicalize
from edgevit.target import load_target

TARGETS = (("onnx", "fp32"), ("raspberry-pi-5", "fp32"), ("iphone-npu", "fp16"))
CASES = zoo_cases(CACHE / "trained")


def _path(case: ZooCase) -> Path:
    try:
        return case.find()
    except CorpusUnavailableError as e:
        pytest.skip(f"skipped: {e}")


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_model_of_the_zoo_is_covered_whole_on_every_target(case: ZooCase) -> None:
    model = load(_path(case), dict(case.shapes)).model
    canonicalize(model)
    for name, precision in TARGETS:
        target = load_target(name)
        found = coverage(model, backend_of(target.backend), target, precision)
        assert found.fallback == (), name


@pytest.mark.long
def test_the_saliency_transformer_has_its_blocks_in_at_most_300_nodes() -> None:
    (case,) = (c for c in CASES if c.name == "vit_s_focus")
    source = load(_path(case), dict(case.shapes))
    assert sum(source.operators.values()) - source.operators.get("Constant", 0) > 1000
    canonicalize(source.model)
    counted = Counter(node.op_type for node in source.model.graph)
    blocks = ("LayerNormalization", "Gelu", "Attention")
    assert [counted[op] for op in blocks] == [25, 12, 12]
    assert sum(counted.values()) <= 300
