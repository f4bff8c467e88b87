"""What needs torch, in the environment that has it.

    .venv-torch/bin/python -m tests.support.torch_worker JOB.pkl RESULT.pkl     (the worker)

Tests call ``ask`` with the name of a function below and its arguments.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PYTHON", "ask"]

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-torch" / "bin" / "python"
TIMEOUT_S = 1200
# torch computes with these; its other integers are for storage.
_DTYPES = {"float16", "float32", "float64", "int32", "int64", "bool"}


def ask(job: str, **arguments: Any) -> Any:
    """Do a job in the environment with torch."""
    with tempfile.TemporaryDirectory(prefix="edgevit-torch-") as folder:
        given, made = Path(folder) / "job.pkl", Path(folder) / "result.pkl"
        given.write_bytes(pickle.dumps((job, arguments)))
        done = subprocess.run(
            [str(PYTHON), "-m", "tests.support.torch_worker", str(given), str(made)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr
        return pickle.loads(made.read_bytes())


def curvature(
    model: bytes,
    axes: Mapping[str, int],
    samples: Sequence[Mapping[str, Array]],
    draws: Mapping[str, Any],
    end: Mapping[str, Any] | None = None,
    mutant: str = "",
) -> dict[str, Array]:
    """``edgevit.torchgraph.curvature.curvatures``, or a mutant of it."""
    from edgevit.torchgraph import curvature as module

    if mutant:
        name, made = MUTANTS[mutant]
        setattr(module, name, made)
    exit_ = None if end is None else module.Exit(**end)
    return module.curvatures(_model(model), axes, samples, module.Draws(**draws), exit_)


def products(
    model: bytes,
    axes: Mapping[str, int],
    samples: Sequence[Mapping[str, Array]],
    draws: Mapping[str, Any],
    mutant: str = "",
) -> dict[str, Array]:
    """``edgevit.torchgraph.curvature.between_channels``, or a mutant of it."""
    from edgevit.torchgraph import curvature as module

    if mutant:
        name, made = {**MUTANTS, **_OF_PRODUCTS}[mutant]
        setattr(module, name, made)
    return module.between_channels(_model(model), axes, samples, module.Draws(**draws))


def importances(model: bytes, samples: Sequence[Mapping[str, Array]], mode: str) -> Any:
    """``bridge_weights.importance`` in both ways: layer name -> (forward, gradient)."""
    from edgevit.passes.bridge_weights import WAYS, importance
    from edgevit.passes.channel_layers import channel_layers
    from edgevit.passes.output_weights import Probe

    graph = _model(model)
    layers, source = list(channel_layers(graph)), _Memory(list(samples))
    probe = Probe(len(samples), groups=0)
    both = [importance(graph, layers, source, probe, mode, way) for way in WAYS]
    return {name: (both[0][name], both[1][name]) for name in both[0]}


def replay(
    model: bytes, feeds: Mapping[str, Array], reference: Mapping[str, Array], mutant: str = ""
) -> dict[str, float]:
    """Each node in float64 on the reference's inputs: value name -> largest difference."""
    from edgevit.torchgraph.interpret import OPERATORS, interpreter

    if mutant:
        OPERATORS[mutant] = BROKEN[mutant](OPERATORS[mutant])
    graph = _model(model)
    machine = interpreter(graph, "float64")
    wide = {n: _tensor(machine.t, a) for n, a in {**reference, **feeds}.items()}
    found = {}
    for node in graph.graph:
        values = {v: wide[v.name] for v in node.inputs if v is not None and v.name in wide}
        machine.advance([node], values, {})
        for out in node.outputs:
            expected = wide[out.name]
            assert values[out].shape == expected.shape, out.name
            found[str(out.name)] = float((values[out] - expected).abs().max())
    return found


def cases(names: Sequence[str]) -> dict[str, str]:
    """ONNX's own node tests: name -> ``pass``, ``unsupported: ...`` or what is wrong."""
    return {name: _case(name) for name in names}


def _case(name: str) -> str:
    from edgevit.errors import EdgevitError, UnsupportedModelError
    from tests.support import node_cases

    operator, _, case_name = name.partition("/")
    case = node_cases.cases_of(operator)[case_name]
    arrays, expected = node_cases._arrays(case)
    kinds = {array.dtype.name for array in [*arrays.values(), *expected]}
    if not kinds <= _DTYPES:
        return f"unsupported: {sorted(kinds - _DTYPES)}"
    models = (
        [case.model]
        if len(arrays) < 2
        else [case.model, node_cases._fixed(case.model, arrays)]
    )
    reason = ""
    for model in models:
        try:
            found = _interpreted(model, arrays, [str(v.name) for v in model.graph.output])
        except UnsupportedModelError as e:
            return f"unsupported: {e.message}"
        except EdgevitError as e:
            reason = f"refused: {e.message}"
            continue
        except Exception as e:  # noqa: BLE001 - whatever it is, the case did not pass
            return f"{type(e).__name__}: {e}"
        same = [y.astype(r.dtype) for y, r in zip(found, expected, strict=True)]
        outcome = node_cases.judge(case, same, expected)
        return outcome.outcome if outcome.outcome == "pass" else outcome.detail
    return reason


def _interpreted(proto: Any, arrays: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    import onnx

    from edgevit.errors import UnsupportedModelError
    from edgevit.loading import load
    from edgevit.passes.check_canonical import check_canonical
    from edgevit.passes.order import canonicalize
    from edgevit.torchgraph.interpret import interpreter

    with tempfile.TemporaryDirectory(prefix="edgevit-torch-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path)
        model = load(path, {}).model
        canonicalize(model)
        if problems := check_canonical(model):
            raise UnsupportedModelError(problems[0])
        feeds = {str(v.name): arrays[str(v.name)] for v in model.graph.inputs}
        made = interpreter(model, "float64").run(feeds)
        return [made[name].detach().numpy() for name in names]


def _model(content: bytes) -> Any:
    import onnx
    import onnx_ir as ir

    return ir.from_proto(onnx.load_model_from_string(content))


def _tensor(t: Any, array: Array) -> Any:
    kind = np.float64 if array.dtype.kind == "f" else array.dtype
    return t.tensor(np.asarray(array).astype(kind))


class _Memory:
    """Samples from memory."""

    name, synthetic = "memory", True

    def __init__(self, samples: list[Mapping[str, Array]]) -> None:
        self._samples = samples

    def digest(self) -> str:
        return "0" * 64

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Any:
        return iter(self._samples)


def _with_labels(t: Any, model: Any, values: Mapping[str, Any]) -> Any:
    """Mutant: squared gradients at the best answer only (the empirical Fisher)."""
    logs = t.log_softmax(values[str(model.graph.outputs[0].name)], dim=-1)
    return (logs == logs.max(dim=-1, keepdim=True).values) * logs


def _uniform(t: Any, model: Any, values: Mapping[str, Any]) -> Any:
    """Mutant: every answer counts the same."""
    logs = t.log_softmax(values[str(model.graph.outputs[0].name)], dim=-1)
    return logs / logs.shape[-1] ** 0.5


def _not_held(t: Any, model: Any, values: Mapping[str, Any]) -> Any:
    """Mutant: the gradient goes through the weight ``sqrt(p)`` too."""
    logs = t.log_softmax(values[str(model.graph.outputs[0].name)], dim=-1)
    return (logs / 2).exp() * logs


def _no_second_term(t: Any, model: Any, values: Mapping[str, Any]) -> Any:
    """Mutant: ``J^T diag(p) J`` without ``- p p^T``."""
    y = values[str(model.graph.outputs[0].name)]
    return t.softmax(y, dim=-1).sqrt().detach() * y


def _summed(gradient: Any, axis: int) -> Array:
    """Mutant: a sum over positions in the place of the mean."""
    others = [i for i in range(gradient.ndim) if i != axis]
    return np.asarray((gradient.double() ** 2).sum(dim=others).numpy())


def _magnitudes(gradient: Any, axis: int) -> Array:
    """Mutant: gradients are not squared."""
    others = [i for i in range(gradient.ndim) if i != axis]
    return np.asarray(gradient.double().abs().mean(dim=others).numpy())


MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "best answer": ("_log_likelihood", _with_labels),
    "uniform": ("_log_likelihood", _uniform),
    "not held": ("_log_likelihood", _not_held),
    "no second term": ("_log_likelihood", _no_second_term),
    "summed": ("_by_channel", _summed),
    "magnitudes": ("_by_channel", _magnitudes),
}


def _unsigned(gradient: Any, axis: int) -> Array:
    """Mutant: products of magnitudes."""
    rows = gradient.abs().movedim(axis, -1).reshape(-1, gradient.shape[axis])
    return np.asarray((rows.T @ rows / len(rows)).numpy())


def _products_summed(gradient: Any, axis: int) -> Array:
    """Mutant: a sum over positions in the place of the mean."""
    rows = gradient.movedim(axis, -1).reshape(-1, gradient.shape[axis])
    return np.asarray((rows.T @ rows).numpy())


_OF_PRODUCTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "unsigned": ("_products", _unsigned),
    "products summed": ("_products", _products_summed),
}
# Operator -> a mutant of it, made from the right one.
BROKEN: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "LayerNormalization": lambda right: lambda t, at, x: right(t, at, x) * (1 + 1e-4),
    "Conv": lambda right: lambda t, at, x: right(t, at, x[:2]),
    "Gelu": lambda right: lambda t, at, x: t.nn.functional.gelu(x[0], approximate="tanh"),
    "MatMul": lambda right: lambda t, at, x: right(t, at, x) * (1 + 1e-4),
    "ReduceMean": lambda right: lambda t, at, x: right(t, at, x) * (1 + 1e-4),
    "Attention": lambda right: lambda t, at, x: right(t, at, [x[0], x[2], x[1], *x[3:]]),
}


def main() -> None:
    """Do the job of a file."""
    job, arguments = pickle.loads(Path(sys.argv[1]).read_bytes())
    made = {f.__name__: f for f in (curvature, products, importances, replay, cases)}[job](
        **arguments
    )
    Path(sys.argv[2]).write_bytes(pickle.dumps(made))


if __name__ == "__main__":
    main()
