"""ViT-S/14 with a linear probe on Fashion-MNIST, as one ONNX classifier.

    python -m benchmarks.corpus.probe

The backbone is that of ``vit_s_focus`` (a DINOv2-architecture ViT-S that its author tuned for
saliency), cut after its last LayerNorm. Features are the class token and the mean of the
patch tokens, 768 numbers; the head is a logistic regression, fitted once on the float32
features of the first training images and never again: what is quantized later is the whole
file, by every tool alike. ``.cache/models/vit_s_probe.onnx`` is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus.fashion import CLASSES, load_full
from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.store import CACHE, write_atomic

__all__ = ["SIZE", "fit", "probe_model"]

Array = np.ndarray[Any, Any]
SIZE = 224
_TRAINING = 2000  # images
# Weight of the data against half the squared weights; chosen beforehand, not tuned.
_STRENGTH = 0.05
_BACKBONE_END = "/backbone/layernorm/Add_1_output_0"
_FEATURES = "probe_features"


def probe_model() -> Path:
    """The path of the classifier; made once, which takes some minutes.

    Raises:
        CorpusUnavailableError: The backbone or the images cannot be had.
    """
    path = CACHE / "models" / "vit_s_probe.onnx"
    if not path.is_file():
        backbone = _with_features(fetch_model("vit_s_focus"))
        data = load_full("train")
        features = _features(backbone, data.images[:_TRAINING])
        weights, bias = fit(features, data.labels[:_TRAINING], len(CLASSES), _STRENGTH)
        write_atomic(path, _with_head(backbone, weights, bias).SerializeToString())
    return path


def fit(features: Array, labels: Array, classes: int, strength: float) -> tuple[Array, Array]:
    """Multinomial logistic regression on standardized features, by L-BFGS in float64.

    Minimizes ``|W|^2 / 2 + strength * sum_i -log softmax(z_i W^T + b)[label_i]`` with
    ``z = (x - mean) / std``, and returns the weights for ``x`` itself.

    Args:
        features: ``[n, d]`` float.
        labels: ``[n]``, 0..classes-1.
        classes: How many classes.
        strength: Weight of the data term, > 0.

    Returns:
        ``[classes, d]`` and ``[classes]``, float32.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    x = features.astype(np.float64)
    mean, std = x.mean(0), np.maximum(x.std(0), 1e-6)
    z, right = (x - mean) / std, np.eye(classes)[labels]

    def loss(flat: Array) -> tuple[float, Array]:
        w, b = np.split(flat, [classes * z.shape[1]])
        w = w.reshape(classes, -1)
        logs = log_softmax(z @ w.T + b, axis=1)
        slope = strength * (np.exp(logs) - right)
        value = 0.5 * float((w * w).sum()) - strength * float((logs * right).sum())
        return value, np.concatenate([(w + slope.T @ z).ravel(), slope.sum(0)])

    start = np.zeros(classes * (z.shape[1] + 1))
    options = {"maxiter": 2000, "gtol": 1e-4, "maxcor": 20}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x
    w, b = np.split(found, [classes * z.shape[1]])
    w = w.reshape(classes, -1) / std
    return w.astype(np.float32), (b - w @ mean).astype(np.float32)


def _with_features(path: Path) -> Any:
    """The backbone with one image as input and the 768 features as output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path)
    graph, end = model.graph, _BACKBONE_END
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    del graph.output[:], graph.value_info[:]
    constants = {"probe_zero": 0, "probe_one": 1, "probe_all": 2**31 - 1}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    tokens = ["probe_class", "probe_patches"]
    graph.node.extend(
        [
            helper.make_node(
                "Slice", [end, "probe_zero", "probe_one", "probe_one"], tokens[:1]
            ),
            helper.make_node(
                "Slice", [end, "probe_one", "probe_all", "probe_one"], tokens[1:]
            ),
            helper.make_node(
                "ReduceMean", tokens[:1], ["probe_class_flat"], axes=[1], keepdims=0
            ),
            helper.make_node("ReduceMean", tokens[1:], ["probe_mean"], axes=[1], keepdims=0),
            helper.make_node(
                "Concat", ["probe_class_flat", "probe_mean"], [_FEATURES], axis=1
            ),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(_FEATURES, TensorProto.FLOAT, (1, 768)))
    _drop_unused(graph)
    onnx.checker.check_model(model)
    return model


def _drop_unused(graph: Any) -> None:
    """Remove the decoder: every node and initializer that no output needs."""
    needed, kept = {o.name for o in graph.output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [i for i in graph.initializer if i.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _features(model: Any, images: Iterable[Array]) -> Array:
    import onnxruntime

    from benchmarks.zoo_tasks import upscale

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: upscale(i, (SIZE, SIZE))})[0][0] for i in images]
    return np.stack(found)


def _with_head(model: Any, weights: Array, bias: Array) -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(weights, "probe_weights"))
    graph.initializer.append(numpy_helper.from_array(bias, "probe_bias"))
    inputs = [_FEATURES, "probe_weights", "probe_bias"]
    graph.node.append(helper.make_node("Gemm", inputs, ["scores"], transB=1))
    del graph.output[:]
    shape = (1, len(bias))
    graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    return model


if __name__ == "__main__":
    print(probe_model().relative_to(CACHE.parent))
