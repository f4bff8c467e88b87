"""Export one torch module with both exporters, checked against onnxruntime.

Runs in the torch environment (``requirements/torch.lock``).
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from benchmarks.corpus.store import CorpusError, write_atomic

__all__ = ["LIMIT", "Exporter", "export", "export_both"]

Exporter = Literal["ts", "dynamo"]

_LOG = logging.getLogger(__name__)

LIMIT = 1e-5  # of max|y|; float32 sums in another order, some hundred terms deep


def export_both(module: torch.nn.Module, x: torch.Tensor, stem: Path) -> tuple[Path, Path]:
    """Write ``<stem>_ts.onnx`` (opset 17) and ``<stem>_dynamo.onnx`` (opset 18).

    Both have batch size one, input ``x``, output ``logits``, and the weights inside.

    Args:
        module: Set to evaluation mode here.
        x: Input of batch size one, float32.
        stem: Path without the ending.

    Raises:
        CorpusError: The output is dead, or an export differs from torch by more than
            ``LIMIT`` of the largest output.
    """
    paths = (
        stem.with_name(f"{stem.name}_ts.onnx"),
        stem.with_name(f"{stem.name}_dynamo.onnx"),
    )
    export(module, x, paths[0], "ts")
    export(module, x, paths[1], "dynamo")
    return paths


def export(
    module: torch.nn.Module,
    x: torch.Tensor,
    path: Path,
    exporter: Exporter,
    limit: float = LIMIT,
) -> None:
    """Write one ONNX file, opset 17 (torch-script) or 18 (dynamo), as ``export_both`` does.

    Args:
        module: Set to evaluation mode here.
        x: Input of batch size one, float32.
        path: The file to write.
        exporter: ``ts`` or ``dynamo``.
        limit: Largest difference to torch, as a share of the largest output.

    Raises:
        CorpusError: The output is dead, or the export differs from torch by more than
            ``limit``.
    """
    module.eval()
    inputs = torch.cat((x, x.flip(-1) * 1.5 + 0.25))
    with torch.no_grad():
        expected = np.concatenate([module(one[None]).numpy() for one in inputs])
    _require_alive(expected, path.stem)
    data = _export_ts(module, x) if exporter == "ts" else _export_dynamo(module, x)
    worst = _difference(data, inputs.numpy(), expected)
    if worst > limit:
        raise CorpusError(f"{path.name}: expected max_rel <= {limit}, found {worst:.2e}")
    _LOG.info("%s: max_rel to torch %.1e, %d bytes", path.name, worst, len(data))
    write_atomic(path, data)


def _require_alive(outputs: np.ndarray, name: str) -> None:
    """Random weights can give zeros or denormals, on which every comparison passes."""
    peak = float(np.abs(outputs).max())
    spread = float(np.abs(outputs[0] - outputs[1]).max())
    if peak <= 1e-3 or spread <= 1e-2 * peak:
        raise CorpusError(
            f"{name}: expected max|y| > 1e-3 that follows the input, "
            f"found max|y| {peak:.2e} and {spread:.2e} between two inputs"
        )


def _export_ts(module: torch.nn.Module, x: torch.Tensor) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The torch-script exporter is deprecated; its graphs are what users still have.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (x,),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["x"],
            output_names=["logits"],
        )
    return stream.getvalue()


def _export_dynamo(module: torch.nn.Module, x: torch.Tensor) -> bytes:
    import onnx

    program = torch.onnx.export(
        module,
        (x,),
        dynamo=True,
        opset_version=18,
        input_names=["x"],
        output_names=["logits"],
        verbose=False,
    )
    model = program.model_proto
    _strip_paths(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _strip_paths(model: object) -> None:
    """Remove the exporter's stack traces: they hold file paths of the exporting machine."""
    for node in model.graph.node:  # type: ignore[attr-defined] # a protobuf message
        kept = [prop for prop in node.metadata_props if "stack_trace" not in prop.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def _difference(data: bytes, inputs: np.ndarray, expected: np.ndarray) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"x": one[None]})[0] for one in inputs])
    return float(np.abs(found - expected).max() / np.abs(expected).max())
