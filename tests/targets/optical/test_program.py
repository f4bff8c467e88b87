"""Programs as files, and what is refused in them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgevit.sim4f.errors import OpticsError, ParameterError
from edgevit.sim4f.fast import FastProduct
from edgevit.sim4f.program import (
    Electronic,
    Lattice,
    Optical,
    Program,
    Tensor,
    frame_count,
    sizes,
)
from edgevit.sim4f.serial import from_json, to_json
from edgevit.sim4f.wave import WaveProduct
from tests.targets.optical.layers import MAPPED, Case, mapped


def program(made: Case, step: Optical) -> Program:
    return Program(
        (Electronic("part0.onnx", (("a", "b"),), (("c", "x"),)), step),
        (Tensor("b", (1, 2), "float32"),),
        (Tensor("y", made.exact.shape, "float32"),),
        made.shapes,
    )


@pytest.mark.parametrize("name", MAPPED)
def test_a_program_survives_its_file(name: str) -> None:
    made, step = mapped(name)
    whole = program(made, step)
    assert from_json(to_json(whole)) == whole
    assert to_json(from_json(to_json(whole))) == to_json(whole)


def test_files_hold_no_masks() -> None:
    made, step = mapped("one-shot")
    assert len(to_json(program(made, step))) < 4000


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"schema": 2}', b'{"schema": 1}', b"\xff"])
def test_damaged_files_are_refused(damage: bytes) -> None:
    with pytest.raises(OpticsError, match="frame program"):
        from_json(damage)


def test_an_unknown_move_is_refused() -> None:
    made, step = mapped("one-shot")
    data = json.loads(to_json(program(made, step)))
    data["steps"][1]["read"]["moves"][0]["kind"] = "melt"
    with pytest.raises(OpticsError, match="melt"):
        from_json(json.dumps(data).encode())


@pytest.mark.parametrize("path", [FastProduct, WaveProduct])
def test_input_elements_beyond_the_plane_are_refused(path: type) -> None:
    made, step = mapped("channel-tile")
    rows = replace(step.displayed.rows, origin=step.plane[0] - 1)
    bad = replace(step, displayed=replace(step.displayed, rows=rows))
    with pytest.raises(ParameterError, match="use a larger plane"):
        path(made.shapes)(bad, made.x, made.kernel)


@pytest.mark.parametrize("path", [FastProduct, WaveProduct])
def test_two_elements_on_a_pixel_are_refused(path: type) -> None:
    made, step = mapped("channel-tile")
    axes = tuple((size, 0) for size, _ in step.displayed.rows.axes)
    bad = replace(step, displayed=replace(step.displayed, rows=Lattice(0, axes)))
    with pytest.raises(ParameterError, match="share a pixel"):
        path(made.shapes)(bad, made.x, made.kernel)


def test_operands_that_do_not_fit_are_refused() -> None:
    made, step = mapped("one-shot")
    with pytest.raises(ValueError, match=r"cannot reshape|expected labels"):
        sizes(step, {"x": (1, 1, 12, 10, 2), "k": made.kernel.shape})


def test_frames_are_counted_without_running() -> None:
    made, step = mapped("depthwise")
    # Both outputs of a group share its frame.
    assert frame_count(step, made.shapes) == made.layer.groups
