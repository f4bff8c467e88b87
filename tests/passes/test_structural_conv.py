"""Passes on convolution, pooling, padding and batch normalization."""

from __future__ import annotations

import numpy as np
import pytest

from edgevit.passes.normalize_conv import same_pads
from tests.passes.cases import Case, Refusal, rng_array
from tests.passes.harness import U, f32, i64

W = {"w": rng_array(4, 3, 3, 3)}
G = {"w": rng_array(4, 2, 3, 3, seed=4)}
BN = {
    "g": rng_array(4, seed=5), "b": rng_array(4, seed=6), "m": rng_array(4, seed=7),
    "v": np.abs(rng_array(4, seed=8)) + np.float32(0.1),
}  # fmt: skip
BN_BODY = "BatchNormalization <epsilon = 0.01> ({}, g, b, m, v)"
IMAGE = "float[1,3,7,8] x => float[1,4,{}] y"
# 27 products of inputs below 10 and weights below 4, one factor below 10 from batch norm:
# each of the 27 terms (below 400) is rounded up to 30 times more on one side.
LIMIT = 30 * U * 27 * 400
EXPLICIT = ("normalize-attributes", "normalize-conv", "normalize-pool", "normalize-pad")

CASES = [
    Case("same-upper", "normalize-conv", IMAGE.format("4,4"),
         "y = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, w)", "Conv", W, LIMIT),
    Case("same-lower", "normalize-conv", IMAGE.format("4,4"),
         "y = Conv <auto_pad = \"SAME_LOWER\", strides = [2,2]> (x, w)", "Conv", W, LIMIT),
    Case("valid", "normalize-conv", IMAGE.format("5,6"),
         "y = Conv <auto_pad = \"VALID\"> (x, w)", "Conv", W, LIMIT),
    Case("zero-bias", "normalize-conv", IMAGE.format("5,6"), "y = Conv(x, w, b)", "Conv",
         {**W, "b": np.zeros(4, np.float32)}, LIMIT),
    Case("transposed", "normalize-conv", "float[1,4,5,5] x => float[1,3,10,10] y",
         "y = ConvTranspose <auto_pad = \"SAME_UPPER\", strides = [2,2], "
         "output_shape = [10,10]> (x, w)", "ConvTranspose", W, LIMIT),
    Case("transposed-beyond", "normalize-conv", "float[1,4,3,3] x => float[1,3,10,8] y",
         "y = ConvTranspose <strides = [3,2], output_shape = [10,8]> (x, w)",
         "ConvTranspose", W, LIMIT),
    Case("max-one-dimensional", "normalize-pool", "float[1,3,9] x => float[1,3,5] y",
         "y = MaxPool <kernel_shape = [3], strides = [2], pads = [1,1]> (x)",
         "Reshape MaxPool Reshape"),
    Case("average-one-dimensional", "normalize-pool", "float[1,3,9] x => float[1,3,5] y",
         "y = AveragePool <kernel_shape = [3], strides = [2], auto_pad = \"SAME_UPPER\"> (x)",
         "Reshape AveragePool Reshape", limit=LIMIT),
    Case("max-ceil", "normalize-pool", "float[1,3,7,8] x => float[1,3,4,4] y",
         "y = MaxPool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (x)", "MaxPool"),
    Case("max-same", "normalize-pool", "float[1,3,7,8] x => float[1,3,4,4] y",
         "y = MaxPool <kernel_shape = [3,3], strides = [2,2], auto_pad = \"SAME_LOWER\"> (x)",
         "MaxPool"),
    Case("max-dilated", "normalize-pool", "float[1,3,7,8] x => float[1,3,3,4] y",
         "y = MaxPool <kernel_shape = [2,2], dilations = [3,2], strides = [2,2], "
         "ceil_mode = 1> (x)", "MaxPool"),
    Case("max-indices", "normalize-pool",
         "float[1,3,7,8] x => float[1,3,4,4] y, int64[1,3,4,4] i",
         "y, i = MaxPool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1, "
         "storage_order = 1> (x)", "MaxPool"),
    Case("average-ceil", "normalize-pool", "float[1,3,7,8] x => float[1,3,4,4] y",
         "y = AveragePool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1> (x)",
         "AveragePool", limit=LIMIT),
    Case("pad", "fold-pad", IMAGE.format("7,9"),
         "p = Pad(x, a, z)\n y = Conv(p, w)", "Conv",
         {**W, "a": i64(0, 0, 1, 1, 0, 0, 1, 2), "z": f32(0.0)}, LIMIT, EXPLICIT),
    Case("pad-average", "fold-pad", "float[1,3,7,8] x => float[1,3,8,9] y",
         "p = Pad(x, a, z)\n y = AveragePool <kernel_shape = [2,2]> (p)", "AveragePool",
         {"a": i64(0, 0, 1, 1, 0, 0, 1, 1), "z": f32(0.0)}, LIMIT, EXPLICIT),
    Case("one-dimensional", "widen-conv", "float[1,3,9] x => float[1,4,5] y",
         "y = Conv <strides = [2], pads = [1,1]> (x, w, b)", "Reshape Conv Reshape",
         {"w": rng_array(4, 3, 3), "b": rng_array(4)}, LIMIT, EXPLICIT),
    Case("whole-scales", "normalize-resize", "float[1,2,3,4] x => float[1,2,6,8] y",
         "y = Resize <mode = \"linear\"> (x, r, , s)", "Resize",
         {"r": np.zeros(0, np.float32), "s": i64(1, 2, 6, 8)}, LIMIT),
    Case("resize-axes", "normalize-resize", "float[1,2,3,4] x => float[1,2,6,4] y",
         "y = Resize <mode = \"nearest\", axes = [2]> (x, , s)", "Resize",
         {"s": np.asarray([2.0], np.float32)}),
    Case("resize-axes-fraction", "normalize-resize", "float[1,2,4,6] x => float[1,2,7,9] y",
         "y = Resize <mode = \"nearest\", axes = [3,2]> (x, , , s)", "Resize",
         {"s": i64(9, 7)}),
    Case("kept-ratio", "normalize-resize", "float[1,2,4,6] x => float[1,2,6,9] y",
         "y = Resize <mode = \"nearest\", axes = [2,3], "
         "keep_aspect_ratio_policy = \"not_larger\"> (x, , , s)", "Resize",
         {"s": i64(6, 12)}),
    Case("same-size", "normalize-resize", "float[1,2,3,4] x => float[1,2,3,4] y",
         "a = Resize <mode = \"cubic\"> (x, , , s)\n y = Neg(a)", "Neg",
         {"s": i64(1, 2, 3, 4)}),
    Case("decomposed", "fold-batchnorm", "float[1,4,5,6] x => float[1,4,5,6] y",
         f"y = {BN_BODY.format('x')}", "Mul Add", BN, LIMIT),
    Case("flat", "fold-batchnorm", "float[5,4] x => float[5,4] y",
         f"y = {BN_BODY.format('x')}", "Mul Add", BN, LIMIT),
    Case("conv", "fold-affine", IMAGE.format("5,6"),
         "c = Conv(x, w, g)\n y = Mul(c, a)", "Conv",
         {**W, "g": BN["g"], "a": rng_array(4, 1, 1)}, LIMIT),
    Case("grouped", "fold-affine", "float[1,4,7,8] x => float[1,4,5,6] y",
         "c = Conv <group = 2> (x, w)\n y = Sub(c, a)", "Conv",
         {**G, "a": rng_array(1, 4, 1, 1)}, LIMIT),
    Case("grouped-transposed", "fold-affine", "float[1,4,5,6] x => float[1,4,7,8] y",
         "c = ConvTranspose <group = 2> (x, w)\n y = Mul(c, a)", "ConvTranspose",
         {**G, "a": rng_array(1, 4, 1, 1)}, LIMIT),
    Case("factor", "fold-affine-ahead", IMAGE.format("7,8"),
         "a = Mul(x, k)\n y = Conv <pads = [1,1,1,1]> (a, w, g)", "Conv",
         {**W, "g": BN["g"], "k": rng_array(3, 1, 1)}, LIMIT),
    Case("quotient-grouped", "fold-affine-ahead", "float[1,4,7,8] x => float[1,4,5,6] y",
         "a = Div(x, k)\n y = Conv <group = 2> (a, w)", "Conv",
         {**G, "k": 1 + np.abs(rng_array(1, 4, 1, 1))}, LIMIT),
    Case("offset", "fold-affine-ahead", "float[1,4,7,8] x => float[1,4,5,6] y",
         "a = Sub(x, k)\n y = Conv <group = 2> (a, w)", "Conv",
         {**G, "k": rng_array(1, 4, 1, 1)}, LIMIT),
    Case("offset-bias", "fold-affine-ahead", IMAGE.format("5,6"),
         "a = Add(x, k)\n y = Conv(a, w, g)", "Conv",
         {**W, "g": BN["g"], "k": f32(0.7)}, LIMIT),
    Case("padded-affine", "fold-affine-ahead", IMAGE.format("7,8"),
         "m = Mul(x, s)\n a = Add(m, k)\n y = Conv <pads = [1,1,1,1]> (a, w, g)", "Add Conv",
         {**W, "g": BN["g"], "s": f32(0.4), "k": rng_array(3, 1, 1)}, LIMIT),
]  # fmt: skip

REFUSALS = [
    Refusal("cropped", "normalize-resize", "float[1,1,4,4] x => float[1,1,2,2] y",
            "y = Resize <coordinate_transformation_mode = \"tf_crop_and_resize\"> (x, r, , s)",
            "region", {"r": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
                       "s": i64(1, 1, 2, 2)}),
    Refusal("rounded-ratio", "normalize-resize", "float[1,1,3,4] x => float[1,1,4,5] y",
            "y = Resize <mode = \"nearest\", axes = [2,3], "
            "keep_aspect_ratio_policy = \"not_larger\"> (x, , , s)", "no scale gives exactly",
            {"s": i64(9, 5)}),
    Refusal("one-dimensional-indices", "normalize-pool",
            "float[1,3,9] x => float[1,3,4] y, int64[1,3,4] i",
            "y, i = MaxPool <kernel_shape = [2], strides = [2]> (x)", "indices"),
    Refusal("fraction", "normalize-resize", "float[1,1,4,4] x => float[1,1,6,6] y",
            "y = Resize(x, , , s)", "", {"s": i64(1, 1, 6, 6)}),
    Refusal("dead-channel", "fold-batchnorm", "float[1,4,5,6] x => float[1,4,5,6] y",
            f"y = {BN_BODY.format('x')}", "not positive",
            {**BN, "v": np.array([-1, 1, 1, 1], np.float32)}),
    Refusal("dilated", "normalize-pool", "float[1,3,7,8] x => float[1,3,7,8] y",
            "y = MaxPool <kernel_shape = [2,2], dilations = [2,2], "
            "auto_pad = \"SAME_UPPER\"> (x)", "dilated"),
    Refusal("counted", "normalize-pool", "float[1,3,7,8] x => float[1,3,4,4] y",
            "y = AveragePool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1, "
            "count_include_pad = 1> (x)", "counted padding"),
    Refusal("reflected", "fold-pad", IMAGE.format("7,8"),
            "p = Pad <mode = \"reflect\"> (x, a)\n y = Conv(p, w)", "not constant zero",
            {**W, "a": i64(0, 0, 1, 1, 0, 0, 1, 1)}, EXPLICIT),
    Refusal("channels", "fold-pad", IMAGE.format("5,6"),
            "p = Pad(x, a, z)\n y = Conv(p, w)", "channels",
            {"w": rng_array(4, 4, 3, 3), "a": i64(0, 1, 0, 0, 0, 0, 0, 0), "z": f32(0.0)},
            EXPLICIT),
    Refusal("uncounted", "fold-pad", "float[1,3,7,8] x => float[1,3,10,11] y",
            "p = Pad(x, a, z)\n y = AveragePool <kernel_shape = [2,2], pads = [1,1,1,1]> (p)",
            "does not count", {"a": i64(0, 0, 1, 1, 0, 0, 1, 1), "z": f32(0.0)}, EXPLICIT),
    Refusal("max", "fold-pad", "float[1,3,7,8] x => float[1,3,8,9] y",
            "p = Pad(x, a, z)\n y = MaxPool <kernel_shape = [2,2]> (p)", "",
            {"a": i64(0, 0, 1, 1, 0, 0, 1, 1), "z": f32(0.0)}, EXPLICIT),
    Refusal("volume", "widen-conv", "float[1,1,4,4,4] x => float[1,1,3,3,3] y",
            "y = Conv(x, w)", "rank 5", {"w": rng_array(1, 1, 2, 2, 2)}, EXPLICIT),
    Refusal("training", "fold-batchnorm",
            "float[2,4,5,6] x => float[2,4,5,6] y, float[4] rm, float[4] rv",
            "y, rm, rv = BatchNormalization <training_mode = 1> (x, g, b, m, v)", "training",
            BN),
    Refusal("computed-statistics", "fold-batchnorm",
            "float[2,4,5,6] x, float[4] m => float[2,4,5,6] y",
            f"y = {BN_BODY.format('x')}", "not constant",
            {k: a for k, a in BN.items() if k != "m"}),
    Refusal("per-pixel", "fold-affine", IMAGE.format("5,6"), "c = Conv(x, w)\n y = Mul(c, a)",
            "per channel", {**W, "a": rng_array(5, 6)}),
    Refusal("shared", "fold-affine",
            "float[1,3,7,8] x => float[1,4,5,6] y, float[1,4,5,6] c",
            "c = Conv(x, w)\n y = Mul(c, a)", "other readers", {**W, "a": f32(2.0)}),
    Refusal("padded-offset", "fold-affine-ahead", IMAGE.format("7,8"),
            "a = Add(x, k)\n y = Conv <pads = [1,1,1,1]> (a, w)", "", {**W, "k": f32(0.7)}),
    Refusal("zero-factor", "fold-affine-ahead", IMAGE.format("7,8"),
            "m = Mul(x, s)\n a = Add(m, k)\n y = Conv <pads = [1,1,1,1]> (a, w)", "zero",
            {**W, "s": np.array([[[1]], [[0]], [[2]]], np.float32), "k": f32(0.7)}),
    Refusal("tiny-factor", "fold-affine-ahead", IMAGE.format("5,6"),
            "a = Mul(x, k)\n y = Conv(a, w)", "float16", {**W, "k": f32(1e-5)}),
    Refusal("read-twice", "fold-affine-ahead",
            "float[1,3,7,8] x => float[1,4,5,6] y, float[1,3,7,8] a",
            "a = Mul(x, k)\n y = Conv(a, w)", "other readers", {**W, "k": f32(2.0)}),
    Refusal("per-column", "fold-affine-ahead", IMAGE.format("5,6"),
            "a = Mul(x, k)\n y = Conv(a, w)", "per channel", {**W, "k": rng_array(8)}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.spec}-{c.name}")
def test_rewrites(case: Case) -> None:
    case.check()


@pytest.mark.parametrize("case", REFUSALS, ids=lambda c: f"{c.spec}-{c.name}")
def test_refuses(case: Refusal) -> None:
    case.check()


def test_same_pads_of_the_standard_example() -> None:
    # 7 wide, kernel 3, stride 2: 4 outputs reach over (4-1)*2+3 = 9, so 2 of padding;
    # 8 wide: 9 again, so 1, at the end for upper and at the beginning for lower.
    assert same_pads((7, 8), (3, 3), (2, 2), (1, 1), upper=True) == (1, 0, 1, 1)
    assert same_pads((7, 8), (3, 3), (2, 2), (1, 1), upper=False) == (1, 1, 1, 0)
