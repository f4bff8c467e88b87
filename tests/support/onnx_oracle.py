"""ONNX Runtime as an oracle for single operators: all cases in one child process."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgevit.runtimes.mil.spec import Array
from tests.support.mil import Onnx

__all__ = ["run_all"]

_WORKER = Path(__file__).with_name("ort_worker.py")


def _model(operator: Onnx, feeds: Mapping[str, Array]) -> bytes:
    names, initializers = [], []
    for i, source in enumerate(operator.inputs):
        if source is None:
            names.append("")
        elif isinstance(source, str):
            names.append(source)
        else:
            names.append(f"c{i}")
            initializers.append(numpy_helper.from_array(source, f"c{i}"))
    node = helper.make_node(operator.op, names, ["y"], **operator.attributes)
    used = [name for name in feeds if name in names]
    graph = helper.make_graph(
        [node],
        "case",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(feeds[name].dtype), feeds[name].shape
            )
            for name in used
        ],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", operator.opset)])
    model.ir_version = 10
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return bytes(inferred.SerializeToString())


def run_all(
    operators: Sequence[tuple[Onnx, Mapping[str, Array]]], folder: Path
) -> list[Array]:
    """The first result of each operator on its feeds."""
    jobs = []
    for operator, feeds in operators:
        used = {n: v for n, v in feeds.items() if _named(operator, n)}
        jobs.append((_model(operator, feeds), used))
    source, target = folder / "jobs.pkl", folder / "results.npz"
    source.write_bytes(pickle.dumps(jobs))
    subprocess.run(
        [sys.executable, str(_WORKER), str(source), str(target)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    with np.load(target) as arrays:
        return [arrays[f"{j}.0"] for j in range(len(jobs))]


def _named(operator: Onnx, name: str) -> bool:
    return any(isinstance(source, str) and source == name for source in operator.inputs)
