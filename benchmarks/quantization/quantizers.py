"""The public quantizers, one run each, in the environment that ``make peers-env`` sets up.

    .venv-peers/bin/python -m benchmarks.quantization.quantizers TOOL MODEL CALIBRATION.npz OUT

``MODEL`` is an ONNX file, or for ``litert-*`` a float32 ``.tflite``; ``CALIBRATION.npz`` has
one array of samples under the input's name, each of the input's full shape. Each tool gets
what its documentation asks for: static shapes, opset 17, its own preprocessing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TOOLS"]

Array = np.ndarray[Any, Any]
Samples = dict[str, Array]
_OPSET = 17
_LINEAR = ["Conv", "MatMul", "Gemm"]
_GROUP = 64  # weights that share a scale in 4-bit products, NNCF
_BLOCK = 32  # the same, ONNX Runtime


class _Reader:
    """Calibration samples as ONNX Runtime asks for them."""

    def __init__(self, samples: Samples) -> None:
        self._feeds = _feeds(samples)

    def get_next(self) -> Samples | None:
        """The next sample, ``None`` after the last."""
        return next(self._feeds, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Required by the interface; nothing here asks for ranges."""
        raise NotImplementedError(f"samples {start_index} to {end_index}")


def _feeds(samples: Samples) -> Iterator[Samples]:
    ((name, array),) = samples.items()
    return ({name: sample} for sample in array)


def _static(model: Path, samples: Samples, beside: Path) -> Path:
    """The model with static shapes and opset 17, as a file."""
    import onnx
    from onnx import version_converter
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    ((name, array),) = samples.items()
    made: Any = onnx.load(model)
    opset = next(o.version for o in made.opset_import if o.domain in ("", "ai.onnx"))
    if opset < _OPSET:
        made = version_converter.convert_version(made, _OPSET)
    make_input_shape_fixed(made.graph, name, list(array.shape[1:]))
    path = beside.with_suffix(".static.onnx")
    onnx.save(made, path)
    return path


def _prepared(model: Path, samples: Samples, out: Path) -> Path:
    """What ONNX Runtime's documentation asks for before it quantizes."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = out.with_suffix(".prepared.onnx")
    # Shapes are static: the symbolic inference has nothing to add.
    quant_pre_process(_static(model, samples, out), path, skip_symbolic_shape=True)
    return path


def _ort_static(method: str, linear: bool) -> Callable[[Path, Samples, Path], None]:
    def run(model: Path, samples: Samples, out: Path) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static

        options = {"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": _LINEAR}
        quantize_static(
            _prepared(model, samples, out),
            out,
            _Reader(samples),
            op_types_to_quantize=_LINEAR if linear else None,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options=options if linear else None,
        )

    return run


def _ort_dynamic(model: Path, samples: Samples, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = _prepared(model, samples, out)
    # ConvInteger has no kernel for int8 weights: linear layers only.
    kinds = ["MatMul", "Gemm"]
    quantize_dynamic(
        prepared,
        out,
        op_types_to_quantize=kinds,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )


def _ort_w4(model: Path, samples: Samples, out: Path) -> None:
    """MatMulNBits. The graph is folded first, but not into Gemm, which it would not see."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    folded = out.with_suffix(".folded.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(
        _static(model, samples, out),
        options,
        ["CPUExecutionProvider"],
        disabled_optimizers=["MatMulAddFusion"],
    )
    quantizer = MatMulNBitsQuantizer(str(folded), bits=4, block_size=_BLOCK, is_symmetric=True)
    quantizer.process()
    onnx.save(quantizer.model.model, out)


def _openvino(model: Path, samples: Samples) -> Any:
    openvino: Any = import_module("openvino")
    ((name, array),) = samples.items()
    read = openvino.Core().read_model(model)
    read.reshape({name: list(array.shape[1:])})
    return read


def _nncf_w8a8(transformer: bool) -> Callable[[Path, Samples, Path], None]:
    def run(model: Path, samples: Samples, out: Path) -> None:
        nncf: Any = import_module("nncf")
        openvino: Any = import_module("openvino")

        ((_, array),) = samples.items()
        quantized = nncf.quantize(
            _openvino(model, samples),
            nncf.Dataset(list(array)),
            subset_size=len(array),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        )
        openvino.save_model(quantized, out, compress_to_fp16=False)

    return run


def _nncf_w4(model: Path, samples: Samples, out: Path) -> None:
    nncf: Any = import_module("nncf")
    openvino: Any = import_module("openvino")
    advanced: Any = import_module("nncf.quantization.advanced_parameters")

    compressed = nncf.compress_weights(
        _openvino(model, samples),
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=_GROUP,
        all_layers=True,
        advanced_parameters=advanced.AdvancedCompressionParameters(
            group_size_fallback_mode=advanced.GroupSizeFallbackMode.ADJUST
        ),
    )
    openvino.save_model(compressed, out, compress_to_fp16=False)


def _litert(name: str) -> Callable[[Path, Samples, Path], None]:
    def run(model: Path, samples: Samples, out: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        quantizer: Any = import_module("litert_quantizer.quantizer")
        recipe: Any = import_module("litert_quantizer.recipe")
        made = quantizer.Quantizer(str(model), getattr(recipe, name)())
        found = None
        if made.need_calibration:
            signatures = Interpreter(model_path=str(model)).get_signature_list()
            key = next(iter(signatures), "main")
            found = made.calibrate({key: list(_feeds(samples))}, num_threads=1)
        result = made.quantize(found, enable_progress_bar=False, enable_progress_report=False)
        result.export_model(str(out), overwrite=True)

    return run


TOOLS: dict[str, Callable[[Path, Samples, Path], None]] = {
    "ort-static-minmax": _ort_static("MinMax", linear=True),
    "ort-static-percentile": _ort_static("Percentile", linear=True),
    "ort-static-all": _ort_static("MinMax", linear=False),
    "ort-dynamic": _ort_dynamic,
    "ort-w4": _ort_w4,
    "nncf-w8a8": _nncf_w8a8(transformer=False),
    "nncf-w8a8-transformer": _nncf_w8a8(transformer=True),
    "nncf-w4": _nncf_w4,
    "litert-static": _litert("static_wi8_ai8"),
    "litert-dynamic": _litert("dynamic_wi8_afp32"),
    "litert-w4": _litert("weight_only_wi4_afp32"),
}


def main() -> None:
    """Run one tool."""
    tool, model, calibration, out = sys.argv[1:]
    with np.load(calibration) as data:
        samples = {name: data[name] for name in data.files}
    TOOLS[tool](Path(model), samples, Path(out))


if __name__ == "__main__":
    main()
