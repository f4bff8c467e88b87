"""ConvShare's exact and cheap forms, and the marks of optical products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgevit.errors import UsageError
from edgevit.model import constant
from edgevit.passes.convshare import ConvShare, squarest
from edgevit.passes.mark_optical import MarkOptical
from edgevit.passes.project_convshare import ProjectConvShare, fit, toeplitz
from edgevit.pipeline import Effect
from tests.passes.harness import Array, U, apply, build, check_same, operators, reasons

LINEAR = "float[2,5,12] x => float[2,5,{m}] y"
# Sums of 12 products of normal numbers, spread 2, in another order.
LIMIT = 8 * 12 * U * 40


def weight(d: int, m: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((d, m)).astype(np.float32)


def linear(m: int, constants: dict[str, Any] | None = None) -> Any:
    return build(LINEAR.format(m=m), "y = MatMul(x, w)", constants or {"w": weight(12, m)})


def test_a_linear_layer_is_a_valid_convolution_of_tiles() -> None:
    model = linear(7)
    check_same(ConvShare(), model, LIMIT)
    assert operators(model) == {"Reshape": 2, "Conv": 1}
    assert "w" not in model.graph.initializers, "the weight is stored once"
    assert ConvShare.effect is Effect.EXACT


def test_the_kernel_s_order_matters() -> None:
    """A flipped kernel is another function: the comparison above can fail."""
    model = linear(7)
    apply(ConvShare(), model)
    conv = next(n for n in model.graph if n.op_type == "Conv")
    kernels = constant(conv.inputs[1])
    assert kernels is not None
    assert kernels.shape == (7, 1, 3, 4)
    assert np.array_equal(kernels.reshape(7, 12).T, weight(12, 7))
    assert not np.array_equal(kernels[:, :, ::-1].reshape(7, 12).T, weight(12, 7))


@pytest.mark.parametrize(("d", "tile"), [(192, (12, 16)), (64, (8, 8)), (13, (1, 13))])
def test_tiles_are_as_square_as_can_be(d: int, tile: tuple[int, int]) -> None:
    assert squarest(d) == tile


def test_products_of_computed_tensors_stay() -> None:
    model = build("float[2,5,12] x, float[2,12,7] w => float[2,5,7] y", "y = MatMul(x, w)")
    assert not apply(ConvShare(), model).modified


def test_the_fit_recovers_a_convolution_exactly() -> None:
    kernel = np.random.default_rng(2).standard_normal((3, 3))
    assert np.allclose(fit(toeplitz(kernel, 4, 5), 4, 5, 3), kernel, atol=1e-12)


def test_the_fit_is_the_least_squares_solution() -> None:
    """Against numpy's solver on the taps' indicator matrices."""
    w = weight(12, 12).astype(float)
    columns = [toeplitz(np.eye(9)[i].reshape(3, 3), 3, 4).reshape(-1) for i in range(9)]
    solved = np.linalg.lstsq(np.stack(columns, axis=1), w.reshape(-1), rcond=None)[0]
    assert np.allclose(fit(w, 3, 4, 3).reshape(-1), solved, atol=1e-12)


def test_projecting_a_convolution_changes_nothing_else_is_reported() -> None:
    kernel = np.random.default_rng(2).standard_normal((3, 3))
    exact = toeplitz(kernel, 3, 4).astype(np.float32)
    done = check_same(ProjectConvShare(), linear(12, {"w": exact}), LIMIT)
    assert done.changes[0].detail.endswith("0.000")
    far = apply(ProjectConvShare(), linear(24))
    assert float(far.changes[0].detail.split()[-1]) > 0.7
    assert ProjectConvShare.effect is Effect.TRAINED


def test_features_that_are_no_kernels_are_refused() -> None:
    assert "12 -> 7 features" in reasons(apply(ProjectConvShare(), linear(7)))
    with pytest.raises(UsageError, match="odd kernel"):
        ProjectConvShare(kernel=4)


def test_marks_run_as_what_they_mark() -> None:
    model = linear(7)
    check_same(MarkOptical(), model, 0.0)
    assert operators(model) == {"OpticalLinear": 1}
    body = (
        "y = Conv <kernel_shape = [3, 3], strides = [2, 1], dilations = [1, 1], "
        "pads = [1, 1, 1, 0], group = 2> (x, w, b)"
    )
    rng = np.random.default_rng(4)
    constants = {
        "w": rng.standard_normal((6, 2, 3, 3)).astype(np.float32),
        "b": rng.standard_normal(6).astype(np.float32),
    }
    model = build("float[1,4,7,6] x => float[1,6,4,5] y", body, constants)
    check_same(MarkOptical(), model, 8 * 18 * U * 40)
    assert operators(model) == {"OpticalConv": 1, "Add": 1}


def test_the_optical_target_schedules_marks_as_layers() -> None:
    from edgevit.targets.optical.sites import layer_of

    plain, marked = linear(7), linear(7)
    apply(MarkOptical(), marked)
    layers = [layer_of(next(iter(m.graph))) for m in (plain, marked)]
    assert layers[0] is not None
    assert layers[1] is not None
    assert layers[0].macs == layers[1].macs == 2 * 5 * 12 * 7
    assert layers[0].static
    assert layers[1].static
