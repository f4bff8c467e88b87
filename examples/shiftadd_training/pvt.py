"""timm's pvt_v2_b0 with the weights of a trained ONNX file, so that training can go on.

A torch-script export names what keeps its layout (``stages.0...weight``), while the transposed
weight of a linear layer that is multiplied as ``MatMul`` gets a number: those come in the
order in which the layers run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["INPUT", "pvt_v2_b0", "weights_of"]

INPUT = (3, 224, 224)


def pvt_v2_b0(classes: int = 10) -> nn.Module:
    """The architecture, untrained."""
    from benchmarks.corpus.timm_models import import_timm

    network: nn.Module = import_timm().create_model("pvt_v2_b0", num_classes=classes)
    return network


def _linear_order(network: nn.Module) -> list[str]:
    """Names of linear layers in the order in which they run."""
    names = {module: name for name, module in network.named_modules()}
    order: list[str] = []
    hooks = [
        module.register_forward_hook(lambda m, *_: order.append(names[m]))
        for module in names
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *INPUT))
    for hook in hooks:
        hook.remove()
    return order


def weights_of(path: Path, network: nn.Module) -> dict[str, torch.Tensor]:
    """The state of ``network`` as an exported file holds it.

    Raises:
        ValueError: A parameter of the network is not in the file.
    """
    import onnx
    from onnx import numpy_helper

    graph: Any = onnx.load(path).graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    numbered = (
        stored[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in stored
    )
    for name in _linear_order(network):
        if f"{name}.weight" not in stored:
            stored[f"{name}.weight"] = next(numbered)
    state: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        if name not in stored or stored[name].shape != tuple(value.shape):
            raise ValueError(f"{path}: expected {name} {tuple(value.shape)}, found none such")
        state[name] = torch.from_numpy(np.array(stored[name]))
    return state
