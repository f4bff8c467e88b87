"""The ablation's steps are real passes, each one thing away from the one before."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from benchmarks.quantization.ablation_steps import (
    BITS,
    EXTRA,
    PLAIN,
    STEPS,
    Step,
    precision_of,
    target_for,
)
from edgevit import registry
from edgevit.passes.bridge_quant import BridgeQuant
from edgevit.pipeline import Pass, Pipeline, split_specs


def passes(step: Step) -> tuple[Pass, ...]:
    def find(name: str) -> type[Pass]:
        found: type[Pass] = registry.load("passes", name)
        return found

    return Pipeline.parse(split_specs(step.passes), find).passes


def test_each_step_changes_one_thing() -> None:
    made = [passes(step) for step in STEPS[1:]]
    chosen = [next(p for p in line if isinstance(p, BridgeQuant)) for line in made]
    differences = []
    for before, after in itertools.pairwise(chosen):
        fields = dataclasses.fields(BridgeQuant)
        changed = [f.name for f in fields if getattr(before, f.name) != getattr(after, f.name)]
        differences.append(changed)
    assert differences == [["granularity"], ["scheme"], ["hessian"], [], ["weights"]]
    assert [len(line) for line in made] == [1, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("step", [*STEPS, *EXTRA, *PLAIN], ids=lambda s: s.label)
def test_every_spec_is_a_pipeline(step: Step) -> None:
    assert ",".join(map(str, passes(step))) == step.passes
    assert set(step.bits) <= set(BITS)


def test_every_width_quantizes_the_same_layers() -> None:
    schemes = [target_for(bits).quantization[precision_of(bits)] for bits in BITS]
    assert all(s.depthwise and s.operators == ("Conv", "MatMul") for s in schemes)
    assert [(s.weight_bits, s.activation_bits) for s in schemes] == [(0, 0), (6, 6), (4, 4)]


def test_schemes_by_name_are_what_is_tried() -> None:
    scheme = target_for(8).quantization[precision_of(8)]
    tried = {
        name: BridgeQuant(scheme=name)._form(scheme).schemes
        for name in ("both", "device", "symmetric", "asymmetric")
    }
    assert tried == {
        "both": ("asymmetric", "symmetric"),
        "device": ("asymmetric",),
        "symmetric": ("symmetric",),
        "asymmetric": ("asymmetric",),
    }
    device = scheme.model_copy(update={"scheme": "symmetric"})
    assert BridgeQuant()._form(device).schemes == ("symmetric",)
