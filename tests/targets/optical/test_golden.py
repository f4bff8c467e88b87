"""Frame counts that can be recomputed by hand or from published tables."""

from __future__ import annotations

import math

import pytest

from edgevit.sim4f.moves import reshape, transpose
from edgevit.sim4f.program import frame_count
from edgevit.sim4f.signs import HOMODYNE
from edgevit.targets.optical.layer import Layer, Window
from edgevit.targets.optical.planner import Goal, as_patches, candidates, choose
from edgevit.targets.optical.shared import as_tiles, shared_frames, tile_of
from edgevit.targets.optical.tiles import Tiling, tilings

FULL_HD, FOUR_K = (1080, 1920), (2160, 3840)


def linear(tokens: int, d: int, m: int, groups: int = 1) -> Layer:
    return Layer(
        *("y", "x", (groups, tokens, d), "k", (groups, m, d), True),
        *(1, groups, d, m, Window(tokens), Window(1)),
        (reshape(1, groups, tokens, 1, d), transpose(0, 1, 4, 2, 3)),
        (reshape(groups, m, d, 1, 1),),
        (),
    )


def convolution(c: int, o: int, size: int, k: int, stride: int = 1) -> Layer:
    before, out = k // 2, (size + 2 * (k // 2) - k) // stride + 1
    window = Window(size, k, stride, 1, before, out)
    shapes = ((1, 1, c, size, size), (1, o, c, k, k))
    return Layer(
        *("y", "x", shapes[0], "k", shapes[1], True),
        *(1, 1, c, o, window, window),
        *((), (), ()),
    )


# DeiT-T: layers as (tokens, inputs, outputs, products of the kind in a block).
BLOCK = (
    *((197, 192, 576, 1), (197, 64, 197, 3), (197, 197, 64, 3)),
    *((197, 192, 192, 1), (197, 192, 768, 1), (197, 768, 192, 1)),
)


def one_shot(layer: Layer, plane: tuple[int, int], isolated: bool) -> int:
    """Frames with one column of tokens and features in one row, as published."""
    row = [t for t in tilings(layer, plane, isolated) if t.across == (1, layer.inputs)]
    return row[0].frames(layer)


def deit_frames(plane: tuple[int, int], isolated: bool) -> int:
    block = sum(n * one_shot(linear(t, d, m), plane, isolated) for t, d, m, n in BLOCK)
    return one_shot(linear(196, 768, 192), plane, isolated) + 12 * block


@pytest.mark.parametrize(("plane", "frames"), [(FOUR_K, 393), (FULL_HD, 1515)])
def test_deit_tiny_with_whole_convolutions(plane: tuple[int, int], frames: int) -> None:
    """Kernels 2 d - 1 pixels apart; without the head, which the count leaves out."""
    assert deit_frames(plane, isolated=True) == frames


@pytest.mark.parametrize(("plane", "frames"), [(FOUR_K, 393), (FULL_HD, 1515)])
def test_deit_tiny_needs_fewer_as_only_one_column_is_read(
    plane: tuple[int, int], frames: int
) -> None:
    """Column ``G d + d - 1`` sees group G alone when groups are d apart: half the plane."""
    assert deit_frames(plane, isolated=False) <= 0.57 * frames
    for t, d, m, _ in BLOCK:
        found = one_shot(linear(t, d, m), plane, isolated=False)
        # By hand: as many kernels as columns of tokens fit below each other times features.
        assert found == math.ceil(m / min(m, (plane[0] // t) * (plane[1] // d)))


def static_layers(images: int) -> list[Layer]:
    """DeiT-T's layers with stored kernels; computed ones differ from image to image."""
    return [linear(images * t, d, m) for t, d, m, n in BLOCK if n == 1]


def pixel_bound(layers: list[Layer]) -> float:
    """One multiply-accumulate a pixel and frame: what no dense mapping of ours exceeds."""
    return sum(layer.macs for layer in layers) / (FULL_HD[0] * FULL_HD[1])


@pytest.mark.parametrize("images", [1, 8, 64])
def test_the_planner_is_near_the_pixel_bound(images: int) -> None:
    layers = static_layers(images)
    frames = sum(min(c.frames for c in candidates(one, FULL_HD)) for one in layers)
    assert pixel_bound(layers) <= frames <= 1.15 * pixel_bound(layers)


def test_valid_tiles_are_near_the_bound_once_tokens_fill_planes() -> None:
    found = {}
    for images in (1, 256):
        layers, frames = static_layers(images), 0
        for layer in layers:
            tile = tile_of(layer.inputs, FULL_HD)
            assert tile is not None
            frames += shared_frames(as_tiles(layer, *tile), FULL_HD)
        found[images] = frames / pixel_bound(layers)
    assert found[256] <= 1.15
    assert found[1] > 10


# ResNet-18 at 224 pixels: (inputs, outputs, size, kernel, stride) of its 3 x 3 layers.
RESNET = (
    *((64, 64, 56, 3, 1), (64, 128, 56, 3, 2), (128, 128, 28, 3, 1), (128, 256, 28, 3, 2)),
    *((256, 256, 14, 3, 1), (256, 512, 14, 3, 2), (512, 512, 7, 3, 1)),
)


@pytest.mark.parametrize("shape", RESNET)
def test_channel_tiling_needs_ten_times_fewer_frames_than_one_product_each(
    shape: tuple[int, int, int, int, int],
) -> None:
    """Against a frame for every pair of channels, the sum being electronic."""
    layer = convolution(*shape)
    step = choose(layer, FULL_HD, HOMODYNE, Goal())
    shapes = {"x": layer.source_shape, "k": layer.kernel_shape}
    assert step.mapping == "channel-tile"
    assert 10 * frame_count(step, shapes) <= layer.inputs * layer.outputs


def test_a_wide_layer_is_split_where_a_row_is_too_short() -> None:
    """768 features, 2 d - 1 = 1535 > 1024: isolated rows do not fit, others do."""
    layer = linear(197, 768, 192)
    rows = [t for t in tilings(layer, (1024, 1024), isolated=True) if t.across[0] == 1]
    assert all(t.across[1] < 768 for t in rows)
    best = min(candidates(layer, (1024, 1024)), key=lambda c: c.frames)
    assert best.frames >= layer.macs / 1024**2


@pytest.mark.parametrize(("kernel", "law"), [(3, 9), (7, 49)])
def test_depthwise_layers_do_k_squared_products_a_pixel(kernel: int, law: int) -> None:
    """On a plane that fits the picture; a guard of half a kernel costs the rest."""
    size = 224
    window = Window(size, kernel, 1, 1, kernel // 2, size)
    layer = Layer(
        *("y", "x", (1, 8, 1, size, size), "k", (8, 1, 1, kernel, kernel), True),
        *(1, 8, 1, 1, window, window),
        *((), (), ()),
    )
    plane = (window.pitch, window.pitch)
    frames = Tiling((1, 1), (1, 1)).frames(layer)
    per_pixel = layer.macs / (frames * plane[0] * plane[1])
    assert per_pixel == pytest.approx(law * (size / window.pitch) ** 2)
    assert per_pixel > 0.95 * law


def test_a_patch_embedding_is_a_linear_layer_over_patches() -> None:
    window = Window(224, 16, 16, 1, 0, 14)
    layer = Layer(
        *("y", "x", (1, 1, 3, 224, 224), "k", (1, 192, 3, 16, 16), True),
        *(1, 1, 3, 192, window, window),
        *((), (), ()),
    )
    made = as_patches(layer)
    assert (made.inputs, made.tokens, made.macs) == (768, 196, layer.macs)
