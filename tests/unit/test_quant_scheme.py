"""Bits of weight codes, operator by operator."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.target import QuantScheme, load_target


@pytest.mark.parametrize(
    ("given", "conv", "linear"),
    [
        ({}, 8, 8),
        ({"weights": "int4"}, 4, 4),
        ({"weight_bits": 6}, 6, 6),
        ({"weight_bits": 7, "conv_weight_bits": 8}, 8, 7),
    ],
)
def test_bits_of_an_operator(given: dict[str, object], conv: int, linear: int) -> None:
    scheme = QuantScheme.model_validate({**given, "source": "a test"})
    assert (scheme.bits_of("Conv"), scheme.bits_of("MatMul")) == (conv, linear)


def test_the_portable_form_narrows_linear_layers_alone() -> None:
    schemes = load_target("onnx").quantization
    assert [schemes["w8a8"].bits_of(op) for op in ("Conv", "MatMul")] == [8, 7]
    assert [schemes["w8a8:vnni"].bits_of(op) for op in ("Conv", "MatMul")] == [8, 8]


def test_float16_programs_hold_every_scale_of_a_weight() -> None:
    smallest = float(np.finfo(np.float16).smallest_normal)
    for precision, scheme in load_target("iphone-npu").quantization.items():
        assert scheme.least_scale == smallest, precision
