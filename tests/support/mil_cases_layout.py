"""Cases of operators that move elements: shapes, slices, gathers, scatters, padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgevit.runtimes.mil.spec import Array
from tests.support.mil import Case, Onnx
from tests.support.mil_cases_math import flags, normal, uniform, whole

__all__ = ["CASES"]

F = np.float32


def _shapes() -> list[Case]:
    x = normal(2, 3, 4, 5)
    return [
        Case("reshape", {"x": x}, {"shape": [6, -1]}),
        Case("reshape", {"x": x}, {"shape": [0, 0, 20, 1]}, opset=15),
        Case("reshape", {"x": x}, {"shape": [2, 3, 1, 0, 0]}),
        Case("reshape", {"x": normal(2, 50)}, {"shape": [1, 0, -1, 0]}),
        Case("transpose", {"x": x}, {"perm": [0, -1, 1, 2]}),
        Case("expand_dims", {"x": x[0]}, {"axes": [0, -1]}),
        Case("squeeze", {"x": normal(1, 3, 1, 4)}),
        Case("squeeze", {"x": normal(1, 3, 1, 4)}, {"axes": [-2]}),
        Case("flatten2d", {"x": x}, {"axis": 2}),
        Case("flatten2d", {"x": x}, {"axis": -1}),
        Case("concat", {"values": (normal(2, 3), normal(2, 1))}, {"axis": -1}),
        Case(
            "concat",
            {"values": (x[:, [0, 1]], x[:, [2, 1]])},
            {"axis": 1, "interleave": True},
            expected=x[:, [0, 2, 1, 1]],
        ),
        Case("stack", {"values": (normal(2, 3), normal(2, 3))}, {"axis": 1}),
        Case("split", {"x": x}, {"num_splits": 2, "axis": 2}),
        Case("split", {"x": x}, {"split_sizes": [1, 2, 2], "axis": -1}),
        Case("reverse", {"x": x}, {"axes": [1, -1]}),
        Case("reverse", {"x": whole(0, 99, 3, 4)}),
        Case("shape", {"x": x}),
    ]


def _blocks() -> list[Case]:
    image, step = normal(2, 16, 4, 6), whole(0, 99, 3, 4)
    return [
        Case(
            "reshape_like",
            {"x": normal(6, 15), "ref_tensors": (normal(2, 3, 4), normal(1, 5, 3))},
            {"begins": (0, 1), "ends": (2, 0), "end_masks": (False, True)},
            onnx=Onnx("Reshape", ("x", np.array([2, 3, 5, 3]))),
            opset=16,
        ),
        Case(
            "reverse_sequence",
            {"x": step},
            {"lengths": [1, 4, 3], "seq_axis": 1, "batch_axis": 0},
            onnx=Onnx(
                "ReverseSequence",
                ("x", np.array([1, 4, 3])),
                {"batch_axis": 0, "time_axis": 1},
            ),
        ),
        Case(
            "depth_to_space",
            {"x": image},
            {"block_size": 2},
            onnx=Onnx("DepthToSpace", ("x",), {"blocksize": 2, "mode": "DCR"}),
        ),
        Case(
            "space_to_depth",
            {"x": image},
            {"block_size": 2},
            onnx=Onnx("SpaceToDepth", ("x",), {"blocksize": 2}),
        ),
        Case(
            "pixel_shuffle",
            {"x": image},
            {"upscale_factor": 4},
            onnx=Onnx("DepthToSpace", ("x",), {"blocksize": 4, "mode": "CRD"}),
        ),
        _by_loop("pixel_unshuffle", image, {"downscale_factor": np.uint32(2)}, _unshuffled),
    ]


def _by_loop(
    op: str, x: Array, constants: dict[str, object], value: Callable[..., Array]
) -> Case:
    """A case whose oracle is the documented element formula, one element at a time."""
    return Case(op, {"x": x}, constants, expected=value(x))


def _unshuffled(x: Array) -> Array:
    n, c, h, w = x.shape
    out = np.zeros((n, c * 4, h // 2, w // 2), F)
    for ch, i, j in np.ndindex(c, h, w):
        out[:, ch * 4 + (i % 2) * 2 + j % 2, i // 2, j // 2] = x[:, ch, i, j]
    return out


def _windows() -> list[Case]:
    x = normal(2, 9, 3)
    slid = np.stack([x[:, i : i + 4] for i in range(0, 6, 2)], axis=1)
    # the values that coremltools' own tests record from Core ML (tests/iOS14)
    batch = np.arange(1, 17, dtype=F).reshape(2, 1, 2, 4)
    rows = [[0, 1, 3], [0, 9, 11], [0, 2, 4], [0, 10, 12]]
    rows += [[0, 5, 7], [0, 13, 15], [0, 6, 8], [0, 14, 16]]
    spaced = np.array(rows, F).reshape(8, 1, 1, 3)
    return [
        Case("sliding_windows", {"x": x}, {"axis": 1, "size": 4, "stride": 2}, expected=slid),
        Case(
            "space_to_batch",
            {"x": batch},
            {"block_shape": [2, 2], "paddings": [[0, 0], [2, 0]]},
            expected=spaced,
        ),
        Case(
            "batch_to_space",
            {"x": spaced},
            {"block_shape": [2, 2], "crops": [[0, 0], [2, 0]]},
            expected=batch,
        ),
    ]


def _slices() -> list[Case]:
    x = normal(5, 6, 7)
    masks = {"begin_mask": [True, False, False], "end_mask": [False, True, False]}
    return [
        Case("slice_by_index", {"x": x}, {"begin": [1, 0, -4], "end": [4, 5, -1]}),
        Case(
            "slice_by_index",
            {"x": x},
            {"begin": [3, 1, 6], "end": [4, 2, 1], "stride": [1, 2, -2], **masks},
        ),
        Case(
            "slice_by_index",
            {"x": x},
            {"begin": [0, 2, 0], "end": [0, 0, 0], "squeeze_mask": [True, False, False]}
            | {"end_mask": [False, True, True]},
        ),
        Case(
            "slice_by_index",
            {"x": x},
            {"begin": [0, -2, 0], "end": [5, 0, 7], "squeeze_mask": [False, True, False]},
        ),
        Case(
            "slice_update",
            {"x": x, "update": normal(3, 5, 3)},
            {"begin": [1, 0, -4], "end": [4, 5, -1]},
            opset=18,
        ),
        Case(
            "slice_update",
            {"x": x, "update": normal(5, 3)},
            {"begin": [0, 2, 6], "end": [5, 0, 0], "stride": [1, 1, -2]}
            | {"begin_mask": [True, False, False], "squeeze_mask": [False, True, False]},
            opset=18,
        ),
        Case("slice_by_size", {"x": x}, {"begin": [1, 0, -3], "size": [2, -1, 3]}),
        Case(
            "crop",
            {"x": normal(1, 2, 5, 6)},
            {"crop_height": [1, 2], "crop_width": [0, 3]},
            onnx=Onnx(
                "Slice",
                ("x", np.array([1, 0]), np.array([3, 3]), np.array([2, 3])),
            ),
        ),
    ]


def _gathers() -> list[Case]:
    x, places = normal(5, 4, 3), whole(0, 4, 2, 3)
    along = whole(0, 5, 2, 4, 3)
    points = np.stack([whole(0, 5, 6), whole(0, 4, 6)], axis=-1)
    batched, hot = whole(0, 3, 5, 4, 2), whole(0, 4, 5)
    return [
        Case("gather", {"x": x, "indices": places}, {"axis": 1}),
        Case("gather", {"x": x, "indices": places - 4}, {"axis": 1}, opset=15),
        Case("gather", {"x": x}, {"indices": np.int32(2), "axis": -1}),
        Case("gather", {"x": x, "indices": batched}, {"axis": 2, "batch_dims": 2}, opset=16),
        Case("gather_along_axis", {"x": x, "indices": along}, {"axis": 0}),
        Case(
            "gather_nd",
            {"x": x, "indices": points},
            onnx=Onnx("GatherND", ("x", points.astype(np.int64))),
        ),
        Case(
            "gather_nd",
            {"x": x, "indices": places[:, None, :1].repeat(5, 0)[:5]},
            {"batch_dims": 1},
            onnx=Onnx(
                "GatherND",
                ("x", places[:, None, :1].repeat(5, 0)[:5].astype(np.int64)),
                {"batch_dims": 1},
            ),
        ),
        Case(
            "one_hot",
            {"indices": hot},
            {"one_hot_vector_size": 4, "axis": 0, "on_value": F(2), "off_value": F(-1)},
            onnx=Onnx(
                "OneHot",
                (hot.astype(np.int64), np.array(4), np.array([-1, 2], F)),
                {"axis": 0},
            ),
        ),
    ]


_REDUCTION = {"update": "none", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _scatters() -> list[Case]:
    data, updates = normal(5, 4), normal(3, 4)
    rows = np.array([3, 0, 3], np.int32)  # a repeated place
    along = np.array([[0, 1, 2, 4], [3, 1, 2, 0], [4, 4, 0, 1]], np.int32)
    cases = []
    for mode, reduction in _REDUCTION.items():
        # the last of repeated updates wins here, which ONNX leaves open: unique places
        unique = np.array([3, 0, 1], np.int32) if mode == "update" else rows
        element = np.repeat(unique[:, None], 4, 1).astype(np.int64)
        columns = along[:1].repeat(3, 0) * 0 + unique[:, None] if mode == "update" else along
        cases += [
            Case(
                "scatter",
                {"data": data, "indices": unique, "updates": updates},
                {"axis": 0, "mode": mode},
                onnx=Onnx(
                    "ScatterElements",
                    ("data", element, "updates"),
                    {"axis": 0, "reduction": reduction},
                ),
            ),
            Case(
                "scatter_along_axis",
                {"data": data[:, :4], "indices": columns, "updates": updates},
                {"axis": 0, "mode": mode},
                onnx=Onnx(
                    "ScatterElements",
                    ("data", columns.astype(np.int64), "updates"),
                    {"axis": 0, "reduction": reduction},
                ),
            ),
            Case(
                "scatter_nd",
                {"data": data, "indices": unique[:, None], "updates": updates},
                {"mode": mode},
                onnx=Onnx(
                    "ScatterND",
                    ("data", unique[:, None].astype(np.int64), "updates"),
                    {"reduction": reduction},
                ),
            ),
        ]
    return cases


def _tensors() -> list[Case]:
    x = normal(2, 4, 5)
    pad = [1, 2, 0, 3]
    return [
        Case("pad", {"x": x}, {"pad": pad, "constant_val": F(1.5)}),
        Case("pad", {"x": x}, {"pad": pad, "mode": "reflect"}),
        Case("pad", {"x": x}, {"pad": pad, "mode": "replicate"}),
        Case("pad", {"x": x}, {"pad": [1, 0, *pad]}),
        Case("tile", {"x": x}, {"reps": [2, 1, 3]}),
        Case("band_part", {"x": x}, {"lower": 1, "upper": 0}),
        Case("band_part", {"x": x}, {"lower": -1, "upper": 2}),
        Case("fill", {}, {"shape": [2, 3], "value": F(0.5)}),
        Case("fill", {}, {"shape": [2, 3], "value": np.int32(7)}),
        Case("fill_like", {"ref_tensor": x}, {"value": F(-2)}),
        Case("range_1d", {}, {"start": np.int32(2), "end": np.int32(11), "step": np.int32(3)}),
        Case("range_1d", {}, {"start": F(0), "end": F(2), "step": F(0.5)}),
    ]


def _blockwise_cases() -> list[Case]:
    """Scales of blocks: 8 bits with offsets, 4 bits (an odd number of them) without."""
    from coremltools.converters.mil.mil.types.type_int import np_int4_dtype

    codes, scale = whole(-128, 128, 6, 4).astype(np.int8), uniform(0.01, 0.1, 3, 2)
    offset = whole(-5, 5, 3, 2).astype(np.int8)
    wide = [np.repeat(np.repeat(a.astype(F), 2, 0), 2, 1) for a in (scale, offset)]
    four, channels = whole(-8, 8, 3, 15).astype(np.int8), uniform(0.01, 0.1, 3, 1)
    op = "constexpr_blockwise_shift_scale"
    given = {"data": codes, "scale": scale, "offset": offset}
    packed = {"data": four.astype(np_int4_dtype), "scale": channels}
    return [
        Case(op, {}, given, expected=wide[0] * (codes - wide[1]), terms=2, opset=18),
        Case(op, {}, packed, expected=channels * four, terms=2, opset=18),
    ]


def _quantized() -> list[Case]:
    x, scale = normal(3, 4), uniform(0.01, 0.1, 4)
    codes = whole(-128, 128, 3, 4).astype(np.int8)
    zero = whole(-5, 5, 4).astype(np.int8)
    bits = np.packbits(whole(0, 2, 2, 15 * 2).astype(np.uint8), axis=1, bitorder="little")[0]
    mask = flags(15)
    packed = np.packbits(mask.astype(np.uint8), bitorder="little")
    lut = normal(4)
    places = np.unpackbits(bits, bitorder="little")[:30].reshape(15, 2) @ [1, 2]
    values = normal(int(mask.sum()))
    dense = np.zeros(15, F)
    dense[mask] = values
    shape = np.array([3, 5], np.uint32)
    affine = {"zero_point": zero, "scale": scale}
    return [
        Case("quantize", {"input": x}, {**affine, "axis": 1, "output_dtype": "int8"}),
        Case("quantize", {"input": x * F(9)}, {"scale": F(0.02), "output_dtype": "uint8"}),
        Case("dequantize", {}, {"input": codes, **affine, "axis": 1}, terms=2),
        Case("dequantize", {}, {"input": codes, "scale": F(0.02)}, terms=2),
        Case(
            "constexpr_affine_dequantize",
            {},
            {"quantized_data": codes, **affine, "axis": 1},
            terms=2,
            opset=16,
        ),
        *_blockwise_cases(),
        Case(
            "constexpr_lut_to_dense",
            {},
            {"indices": bits, "lut": lut, "shape": shape},
            expected=lut[places].reshape(3, 5),
            opset=16,
        ),
        Case(
            "constexpr_sparse_to_dense",
            {},
            {"nonzero_data": values, "mask": packed, "shape": shape},
            expected=dense.reshape(3, 5),
            opset=16,
        ),
        Case(
            "constexpr_cast",
            {},
            {"source_val": x.astype(np.float16), "output_dtype": "fp32"},
            opset=16,
        ),
    ]


def _exact(cases: list[Case]) -> list[Case]:
    """Moving an element does not round it."""
    return [Case(**{**vars(c), "terms": 0}) for c in cases]


CASES = [
    *_exact([*_shapes(), *_blocks(), *_windows(), *_slices(), *_gathers(), *_tensors()]),
    *_scatters(),
    *_quantized(),
]
