"""ONNX's own node tests through our backends, in processes of their own.

    echo BACKEND:OPERATOR/CASE ... | python -m tests.support.node_cases     (the worker)

The worker writes one JSON line ``{"case", "outcome", "detail"}`` a case, when it is done.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "TARGETS",
    "Outcome",
    "at_common_opset",
    "case_names",
    "cases_of",
    "judge",
    "run_cases",
]

Array = np.ndarray[Any, Any]
TARGETS = {"onnx": "onnx", "litert": "linux-x86", "coreml": "iphone-npu"}
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 1800
# Of the largest output, beside the case's own tolerance: a few operations in a row, where the
# result is near zero and a relative tolerance means nothing. In float16 there are fewer in a
# row: engines accumulate in float32 and round scores, weights and results.
_ROUNDINGS = {2: 3, 4: 16, 8: 16}
_NEWEST, _OLDEST = 23, 11
# Operators that are no canonical ones, because canonicalization always rewrites them.
_REWRITTEN = frozenset(
    {"Gemm", "Flatten", "Squeeze", "Unsqueeze", "BatchNormalization", "GlobalAveragePool"}
    | {"GlobalMaxPool", "Col2Im", "Einsum", "LogSoftmax", "Sum", "Mean", "Identity"}
)


@dataclass(frozen=True)
class Outcome:
    """What became of a case, and why.

    ``pass``, ``refused``, ``wrong`` or ``crashed``; ``deviates`` if the bundle computes what
    ONNX Runtime computes on the source, and that is not what ONNX states.
    """

    outcome: str
    detail: str


@functools.cache
def _operators() -> frozenset[str]:
    from edgevit.passes.check_canonical import OPERATORS

    return frozenset(OPERATORS) | _REWRITTEN


@functools.cache
def _load(module: str) -> None:
    """Let ONNX make the cases of one operator: it makes them when the module is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflows that its cases of Cast are about
        importlib.import_module(f"onnx.backend.test.case.node.{module}")


def _modules() -> dict[str, str]:
    """Operator, in lower case -> module of its cases."""
    from onnx.backend.test.case import node

    names = [name for _, name, _ in pkgutil.iter_modules(node.__path__)]
    return {name.replace("_", ""): name for name in names}


@functools.cache
def cases_of(operator: str) -> Mapping[str, Any]:
    """Name -> test case, of one node of the operator in the default domain.

    Function bodies (``..._expanded``) are left out: those of other operators are there only
    if their module happens to be loaded.
    """
    from onnx.backend.test.case import node

    module = _modules().get(operator.lower())
    if module is None:
        return {}
    _load(module)
    found = {}
    for case in node._NodeTestCases:
        nodes = case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type != operator or nodes[0].domain:
            continue
        if "_expanded" not in case.name:
            found[case.name] = case
    return found


def case_names() -> tuple[str, ...]:
    """``OPERATOR/CASE`` of all cases of canonical operators, sorted."""
    return tuple(sorted(f"{op}/{name}" for op in _operators() for name in cases_of(op)))


def run_cases(names: Sequence[str]) -> dict[str, Outcome]:
    """Run cases; one that takes its process down is ``crashed``, and the rest goes on.

    Args:
        names: ``BACKEND:OPERATOR/CASE``.
    """
    found: dict[str, Outcome] = {}
    left = list(names)
    while left:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.node_cases"],
            input="\n".join(left), cwd=ROOT, capture_output=True, text=True, check=False,
            timeout=TIMEOUT_S,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
        found |= {x["case"]: Outcome(x["outcome"], x["detail"]) for x in lines}
        left = [name for name in left if name not in found]
        if left:
            tail = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
            found[left.pop(0)] = Outcome("crashed", tail[0])
    return found


def _arrays(case: Any) -> tuple[dict[str, Array], list[Array]]:
    inputs, outputs = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    return dict(zip(names, map(_plain, inputs), strict=False)), [_plain(o) for o in outputs]


def _plain(value: Any) -> Array:
    import onnx

    if isinstance(value, onnx.TensorProto):
        value = onnx.numpy_helper.to_array(value)
    return np.asarray(value)


def _fixed(model: Any, arrays: Mapping[str, Array]) -> Any:
    """The model with all inputs but the first as constants: weights, shapes, axes."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in list(copy.graph.input)[1:]:
        copy.graph.initializer.append(
            onnx.numpy_helper.from_array(arrays[value.name], value.name)
        )
        copy.graph.input.remove(value)
    return copy


def _run(model: Any, arrays: Mapping[str, Array], target: str, folder: Path) -> list[Array]:
    """Compile and run; outputs in order."""
    import onnx

    import edgevit

    path = folder / "model.onnx"
    onnx.save(model, path)
    made = edgevit.compile(
        path, target=target, precision="fp32", output=folder / "model.edgevit",
        verify=False, overwrite=True,
    )  # fmt: skip
    session = edgevit.load(made.path or path)
    answers = session.run({v.name: arrays[v.name] for v in session.inputs})
    return [answers[value.name] for value in model.graph.output]


def judge(case: Any, found: Iterable[Array], expected: Sequence[Array]) -> Outcome:
    """Hold outputs against the expected ones.

    The tolerance is the one that the case itself states, beside some roundings of the
    largest output.

    Args:
        case: Has ``rtol`` and ``atol``, of each element.
        found: Outputs in order.
        expected: What they should be.
    """
    for index, (y, r) in enumerate(zip(found, expected, strict=True)):
        if y.shape != r.shape or y.dtype != r.dtype:
            return Outcome(
                "wrong", f"output {index}: {y.dtype}{y.shape}, not {r.dtype}{r.shape}"
            )
        atol = max(case.atol, _roundings(r) * _peak(r))
        if not np.allclose(y, r, rtol=case.rtol, atol=atol, equal_nan=True):
            gap = np.abs(y.astype(np.float64) - r.astype(np.float64))
            return Outcome("wrong", f"output {index} off by {np.nanmax(gap):.3g}")
    return Outcome("pass", "")


def _roundings(array: Array) -> float:
    """Relative: unit roundoffs of the dtype, of float32 at best."""
    if array.dtype.kind != "f":
        return _ROUNDINGS[4] * 2.0**-24
    unit = max(float(np.finfo(array.dtype).eps) / 2, 2.0**-24)
    return _ROUNDINGS[array.dtype.itemsize] * unit


def _peak(array: Array) -> float:
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array[:0]
    return float(np.abs(finite).max(initial=0))


def at_common_opset(model: Any) -> Any:
    """The model at an operator set that we and ONNX Runtime take, if that says the same.

    A case names the operator set that changed its operator last: one from before 11 is the
    same at 11 if nothing changed until then; one after 23 mostly allows more dtypes.
    """
    import onnx

    found = model.opset_import[0].version
    wanted = min(max(found, _OLDEST), _NEWEST)
    op = model.graph.node[0].op_type
    if wanted == found:
        return model
    since = onnx.defs.get_schema(op, wanted, "").since_version
    if found < wanted and since != onnx.defs.get_schema(op, found, "").since_version:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.opset_import[0].version = wanted
    try:
        onnx.checker.check_model(copy, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return model
    return copy


def _as_the_source(
    case: Any, model: Any, arrays: Mapping[str, Array], found: Sequence[Array]
) -> bool:
    """Whether ONNX Runtime computes the same on the case itself."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.SerializeToString())
    feeds = {v.name: arrays[v.name] for v in session.get_inputs()}
    return judge(case, found, session.run(None, feeds)).outcome == "pass"


def _outcome(case: Any, target: str) -> Outcome:
    from edgevit.errors import ArtifactError, EdgevitError, InternalError

    arrays, expected = _arrays(case)
    reason = ""
    given = at_common_opset(case.model)
    for model in [given] if len(arrays) < 2 else [given, _fixed(given, arrays)]:
        with tempfile.TemporaryDirectory(prefix="edgevit-node-") as folder:
            try:
                found = _run(model, arrays, target, Path(folder))
                outcome = judge(case, found, expected)
                if outcome.outcome == "wrong" and _as_the_source(case, model, arrays, found):
                    return Outcome("deviates", outcome.detail)
                return outcome
            except (InternalError, ArtifactError) as e:
                return Outcome("wrong", f"{type(e).__name__}: {e}")
            except EdgevitError as e:
                reason = str(e)
            except Exception as e:  # noqa: BLE001 - whatever it is, the case did not pass
                return Outcome("wrong", f"{type(e).__name__}: {e}")
    return Outcome("refused", reason)


def main() -> None:
    """Run the cases named on standard input."""
    for name in sys.stdin.read().split():
        backend, _, path = name.partition(":")
        operator, _, case = path.partition("/")
        found = _outcome(cases_of(operator)[case], TARGETS[backend])
        line = {"case": name, "outcome": found.outcome, "detail": found.detail[:300]}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
