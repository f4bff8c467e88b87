"""Count the operators of a shipped artifact, read back from its files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

__all__ = ["operators", "transposes"]

# TVM's plan calls "copy" whatever only moves elements: transposes and concatenations alike.
_TRANSPOSES = frozenset({"Transpose", "TRANSPOSE", "transpose", "copy"})


def transposes(bundle: Path) -> int:
    """How many transposes the artifacts of a bundle execute."""
    return sum(n for op, n in operators(bundle).items() if op in _TRANSPOSES)


def operators(bundle: Path) -> Counter[str]:
    """Operator name, as the artifact's format spells it -> count, over all parts."""
    from edgevit.bundle import open_bundle

    readers = {"ort": _onnx, "litert": _tflite, "coreml": _program, "tvm": _plan}
    found: Counter[str] = Counter()
    for part in open_bundle(bundle).entries[0].parts:
        found += readers[part.engine](bundle / part.artifact)
    return found


def _onnx(path: Path) -> Counter[str]:
    import onnx

    model: Any = onnx.load(path)
    return Counter(node.op_type for node in model.graph.node)


def _tflite(path: Path) -> Counter[str]:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if not k.startswith("_")}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return Counter(
        codes[op.opcodeIndex] for graph in model.subgraphs for op in graph.operators
    )


def _program(path: Path) -> Counter[str]:
    from edgevit.runtimes.mil.package import load_package

    program = load_package(path)
    operations = program.functions[program.default].operations
    return Counter(o.type for o in operations if o.type != "const")


def _plan(path: Path) -> Counter[str]:
    plan = json.loads(path.with_suffix(".plan.json").read_text(encoding="utf-8"))
    return Counter(plan["kernels"])
