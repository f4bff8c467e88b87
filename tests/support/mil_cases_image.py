"""Cases of convolutions, pools and resizes; the oracle is ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgevit.runtimes.mil.spec import Array
from tests.support.mil import Case, Onnx
from tests.support.mil_cases_math import normal

__all__ = ["CASES"]

F = np.float32


def _conv(
    x: Array, weight: Array, *, bias: bool = False, auto: str = "", **constants: Any
) -> Case:
    rank = x.ndim - 2
    offset = normal(weight.shape[0])
    pad = constants.get("pad", [0] * 2 * rank)
    attributes: dict[str, Any] = {
        "strides": constants.get("strides", [1] * rank),
        "dilations": constants.get("dilations", [1] * rank),
        "group": constants.get("groups", 1),
    }
    if auto:
        attributes["auto_pad"] = auto
    else:
        attributes["pads"] = [*pad[0::2], *pad[1::2]]
    return Case(
        "conv",
        {"x": x},
        {"weight": weight, **({"bias": offset} if bias else {}), **constants},
        onnx=Onnx("Conv", ("x", weight, offset) if bias else ("x", weight), attributes),
        terms=2 * int(np.prod(weight.shape[1:])) + 4,
    )


def _convolutions() -> list[Case]:
    x = normal(2, 6, 9, 8)
    custom: dict[str, Any] = {"pad_type": "custom"}
    return [
        _conv(x, normal(4, 6, 3, 3), bias=True),
        _conv(x, normal(4, 6, 1, 1)),
        _conv(x, normal(4, 6, 3, 2), **custom, pad=[1, 2, 0, 1], strides=[2, 1], bias=True),
        _conv(x, normal(4, 6, 3, 3), **custom, pad=[2, 2, 2, 2], dilations=[2, 2]),
        _conv(x, normal(9, 2, 3, 3), groups=3, bias=True),
        _conv(x, normal(6, 1, 3, 3), groups=6, **custom, pad=[1, 1, 1, 1], strides=[2, 2]),
        _conv(x, normal(6, 1, 5, 5), groups=6, **custom, pad=[2, 2, 2, 2], bias=True),
        _conv(x, normal(12, 1, 3, 3), groups=6),
        _conv(x, normal(4, 6, 4, 4), strides=[4, 4]),
        _conv(x, normal(4, 6, 3, 4), pad_type="same", strides=[2, 2], auto="SAME_UPPER"),
        _conv(x, normal(4, 6, 3, 4), pad_type="same_lower", strides=[2, 3], auto="SAME_LOWER"),
        _conv(normal(2, 3, 11), normal(4, 3, 3), **custom, pad=[1, 0], strides=[2]),
        _conv(normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 2), bias=True),
    ]


def _transposed(x: Array, weight: Array, bias: bool = False, **constants: Any) -> Case:
    pad = constants.get("pad", [0, 0, 0, 0])
    groups = constants.get("groups", 1)
    offset = normal(weight.shape[1] * groups)
    attributes: dict[str, Any] = {
        "strides": constants.get("strides", [1, 1]),
        "dilations": constants.get("dilations", [1, 1]),
        "group": groups,
        "pads": [*pad[0::2], *pad[1::2]],
    }
    if "output_shape" in constants:
        full = [
            (n - 1) * s + k - b - a
            for n, s, k, b, a in zip(
                x.shape[2:],
                attributes["strides"],
                weight.shape[2:],
                pad[0::2],
                pad[1::2],
                strict=True,
            )
        ]
        wanted = constants["output_shape"][2:]
        attributes["output_padding"] = [w - f for w, f in zip(wanted, full, strict=True)]
    return Case(
        "conv_transpose",
        {"x": x},
        {"weight": weight, **({"bias": offset} if bias else {}), **constants},
        onnx=Onnx(
            "ConvTranspose", ("x", weight, offset) if bias else ("x", weight), attributes
        ),
        terms=2 * weight.size // weight.shape[1],
    )


def _transposes() -> list[Case]:
    x = normal(1, 4, 5, 6)
    custom: dict[str, Any] = {"pad_type": "custom"}
    return [
        _transposed(x, normal(4, 3, 2, 2), strides=[2, 2], bias=True),
        _transposed(x, normal(4, 3, 3, 3), **custom, pad=[1, 0, 2, 1], strides=[2, 1]),
        _transposed(x, normal(4, 3, 3, 3), groups=2, dilations=[2, 1]),
        _transposed(
            x,
            normal(4, 3, 3, 3),
            **custom,
            pad=[1, 1, 1, 1],
            strides=[2, 2],
            output_shape=[1, 3, 10, 12],
        ),
    ]


def _pool(op: str, onnx_op: str, x: Array, size: list[int], **constants: Any) -> Case:
    rank = len(size)
    pad = constants.get("pad", [0] * 2 * rank)
    attributes: dict[str, Any] = {
        "kernel_shape": size,
        "strides": constants.get("strides", [1] * rank),
    }
    if constants["pad_type"] == "same":
        attributes["auto_pad"] = "SAME_UPPER"
    else:
        attributes["pads"] = [*pad[0::2], *pad[1::2]]
    if onnx_op == "AveragePool":
        attributes["count_include_pad"] = int(
            not constants.get("exclude_padding_from_average", False)
        )
    if onnx_op == "LpPool":
        attributes["p"] = 2
    if constants.get("ceil_mode"):
        attributes["ceil_mode"] = 1
    return Case(
        op,
        {"x": x},
        {"kernel_sizes": size, **constants},
        onnx=Onnx(onnx_op, ("x",), attributes),
        terms=2 * int(np.prod(size)) + 2,
    )


def _pools() -> list[Case]:
    x = normal(2, 3, 9, 8)
    cases = []
    for op, onnx_op in (("avg_pool", "AveragePool"), ("max_pool", "MaxPool")):
        cases += [
            _pool(op, onnx_op, x, [3, 2], pad_type="valid", strides=[2, 1]),
            _pool(op, onnx_op, x, [3, 3], pad_type="custom", pad=[1, 1, 1, 0], strides=[2, 2]),
            _pool(
                op,
                onnx_op,
                x,
                [2, 3],
                pad_type="custom",
                pad=[1, 1, 1, 1],
                strides=[2, 2],
                ceil_mode=True,
            ),
            _pool(op, onnx_op, x, [9, 8], pad_type="valid"),
            _pool(op, onnx_op, normal(2, 3, 11), [3], pad_type="valid", strides=[2]),
        ]
    shared: dict[str, Any] = {"exclude_padding_from_average": True}
    cases += [
        _pool("avg_pool", "AveragePool", x, [3, 3], pad_type="custom", pad=[1] * 4, **shared),
        _pool("avg_pool", "AveragePool", x, [3, 3], pad_type="same", strides=[2, 2], **shared),
        _pool("max_pool", "MaxPool", x, [3, 3], pad_type="same", strides=[2, 2]),
        _pool("l2_pool", "LpPool", x, [2, 3], pad_type="valid", strides=[2, 2]),
        _pool("l2_pool", "LpPool", x, [3, 3], pad_type="custom", pad=[1, 1, 1, 1]),
    ]
    return cases


def _sized(height: int, width: int, transform: str, mode: str = "linear") -> Onnx:
    attributes = {"coordinate_transformation_mode": transform, "mode": mode}
    if mode == "nearest":
        attributes["nearest_mode"] = "floor"
    return Onnx("Resize", ("x", None, None, np.array([1, 2, height, width])), attributes)


_SAMPLING = {
    "STRICT_ALIGN_CORNERS": "align_corners",
    "DEFAULT": "asymmetric",
    "UNALIGN_CORNERS": "half_pixel",
}


def _resizes() -> list[Case]:
    x = normal(1, 2, 5, 4)
    cases = []
    for mode, transform in _SAMPLING.items():
        for height, width in ((10, 12), (3, 2), (7, 4), (1, 6)):
            cases += [
                Case(
                    "resize_bilinear",
                    {"x": x},
                    {
                        "target_size_height": height,
                        "target_size_width": width,
                        "sampling_mode": mode,
                    },
                    onnx=_sized(height, width, transform),
                    terms=16,
                ),
                Case(
                    "resize",
                    {"x": x},
                    {
                        "shape": [9, height, width],
                        "resized_dims": np.uint32(2),
                        "sampling_mode": mode,
                    },
                    onnx=_sized(height, width, transform),
                    terms=16,
                ),
            ]
    return cases


def _recorded() -> list[Case]:
    """Values that coremltools documents, or that its tests record from Core ML."""
    two = np.array([0, 1], F).reshape(1, 1, 1, 2)
    offset = np.array([0.1, 0.3, 0.5, 0.7, 0.9], F).reshape(1, 1, 1, 5)
    pair = np.array([-6.174, 9.371], F)
    nearest = np.array([pair[0], pair[0], pair[1], pair[1], pair[1], pair[1]], F)
    return [
        Case(
            "resize_bilinear",
            {"x": two},
            {
                "target_size_height": 1,
                "target_size_width": 5,
                "sampling_mode": "OFFSET_CORNERS",
            },
            expected=offset,
        ),
        Case(
            "resize_bilinear",
            {"x": two},
            {
                "target_size_height": 1,
                "target_size_width": 1,
                "sampling_mode": "ALIGN_CORNERS",
            },
            expected=np.full((1, 1, 1, 1), 0.5, F),
        ),
        Case(
            "resize",
            {"x": pair.reshape(1, 1, 1, 2, 1)},
            {
                "shape": [3, 2],
                "resized_dims": np.uint32(2),
                "interpolation_mode": "NEAREST_NEIGHBOR",
            },
            expected=nearest.reshape(1, 1, 1, 3, 2),
        ),
        Case(
            "resize",
            {"x": two},
            {"shape": [1, 0, 0], "resized_dims": np.uint32(2)},
            expected=two,
        ),
        Case(
            "upsample_nearest_neighbor",
            {"x": np.array([1.5, -2.5, 3.5], F).reshape(1, 1, 1, 3)},
            {"scale_factor_height": F(3.17), "scale_factor_width": F(0.67)},
            expected=np.array([1.5, -2.5] * 3, F).reshape(1, 1, 3, 2),
        ),
        Case(
            "resize_nearest_neighbor",
            {"x": np.array([0.37, 6.17], F).reshape(1, 1, 2, 1)},
            {"target_size_height": 2, "target_size_width": 3},
            expected=np.array([0.37] * 3 + [6.17] * 3, F).reshape(1, 1, 2, 3),
        ),
    ]


def _upsamples() -> list[Case]:
    x = normal(1, 2, 5, 4)
    scales = {"scale_factor_height": 2, "scale_factor_width": 3}
    modes = [
        ("align_corners", {"align_corners": True}),
        ("half_pixel", {"align_corners": False}),
    ]
    modes += [("asymmetric", {"align_corners": False, "half_pixel_centers": False})]
    return [
        Case(
            "upsample_nearest_neighbor",
            {"x": x},
            scales,
            onnx=_sized(10, 12, "asymmetric", "nearest"),
            terms=0,
        ),
        Case(
            "resize_nearest_neighbor",
            {"x": x},
            {"target_size_height": 7, "target_size_width": 3},
            onnx=_sized(7, 3, "asymmetric", "nearest"),
            terms=0,
        ),
        *(
            Case(
                "upsample_bilinear",
                {"x": x},
                {**scales, **constants},
                onnx=_sized(10, 12, transform),
                terms=16,
            )
            for transform, constants in modes
        ),
    ]


def _crops() -> list[Case]:
    image = np.arange(1, 17, dtype=F).reshape(1, 1, 4, 4)
    aligned: dict[str, Any] = {"box_coordinate_mode": "CORNERS_HEIGHT_FIRST"}
    aligned |= {"sampling_mode": "ALIGN_CORNERS", "target_height": 2, "target_width": 2}
    box = np.array([1, 1, 2, 2], F).reshape(1, 1, 4, 1, 1)
    rows = [[0.1, 0.3, 1.3, 1], [0.5, 1.8, 1, 0.3], [0, 0.4, 0.6, 0.7]]
    # recorded from Core ML by coremltools' tests (iOS14, iOS16, iOS17), to three digits
    padded = np.array([3.1, 5.2, 10, 10, 10, 7.9, 10, 13.9, 2.2, 3.1, 9.4, 10.3], F)
    x = normal(2, 3, 7, 8)
    rois = np.array([[0.5, 1, 6, 4], [1, 2, 5.5, 6]], F)  # x0, y0, x1, y1
    offset: dict[str, Any] = {"box_coordinate_mode": "CORNERS_WIDTH_FIRST"}
    offset |= {"sampling_mode": "OFFSET_CORNERS", "target_height": 3, "target_width": 4}
    roi_align = {"output_height": 3, "output_width": 4, "sampling_ratio": 1}
    roi_align |= {"coordinate_transformation_mode": "output_half_pixel"}  # type: ignore[dict-item]
    return [
        Case(
            "crop_resize",
            {"x": image},
            {"roi": box, "normalized_coordinates": False, **aligned},
            expected=np.array([6, 7, 10, 11], F).reshape(1, 1, 1, 2, 2),
            opset=15,
        ),
        Case(
            "crop_resize",
            {"x": image},
            {"roi": box[:, :, ::-1] * 1, "normalized_coordinates": False, **aligned}
            | {"target_height": 1, "target_width": 1},
            expected=np.full((1, 1, 1, 1, 1), 8.5, F),
            opset=15,
        ),
        Case(
            "crop_resize",
            {"x": image, "boxes": np.array(rows, F), "box_indices": np.zeros(3, np.int32)},
            {"normalized_coordinates": True, "pad_value": F(10), **aligned},
            expected=padded.reshape(3, 1, 2, 2),
        ),
        Case(
            "crop_resize",
            {"x": x, "boxes": rois, "box_indices": np.array([1, 0], np.int32)},
            {"normalized_coordinates": False, **offset},
            onnx=Onnx("RoiAlign", ("x", rois, np.array([1, 0])), roi_align, opset=16),
            terms=32,
        ),
    ]


CASES = [
    *_crops(),
    *_convolutions(),
    *_transposes(),
    *_pools(),
    *_resizes(),
    *_recorded(),
    *_upsamples(),
]
