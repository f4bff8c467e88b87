"""Small charts as PNG, drawn with Pillow: curves with error bars, scatter with a front."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Axis", "Curve", "Panel", "draw_noise", "draw_panels"]

# Drawn twice as large and scaled down: smooth lines without another library.
SCALE = 2
WIDTH, HEIGHT = 460, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 34, 48
INK, GRID, PAPER = (40, 40, 40), (222, 222, 222), (255, 255, 255)
COLORS = ((31, 102, 178), (214, 96, 32), (60, 140, 70), (140, 80, 160))


@dataclass(frozen=True)
class Axis:
    """One axis: its title, limits, and where it has ticks.

    Attributes:
        title: With unit.
        low: Smallest value shown.
        high: Largest.
        ticks: Values with a label.
        log: Logarithmic.
    """

    title: str
    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Position from 0 (low) to 1 (high)."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Curve:
    """Points ``(x, y, half length of the error bar)``; a line joins them unless ``loose``."""

    label: str
    points: tuple[tuple[float, float, float], ...]
    loose: bool = False


@dataclass(frozen=True)
class Panel:
    """A chart.

    Attributes:
        title: Above it.
        x: Horizontal axis.
        y: Vertical axis.
        curves: In the order of the legend.
    """

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]


def draw_panels(path: Path, panels: Sequence[Panel], columns: int = 2) -> None:
    """Write charts side by side into one PNG file."""
    rows = math.ceil(len(panels) / columns)
    size = (columns * WIDTH * SCALE, rows * HEIGHT * SCALE)
    picture = Image.new("RGB", size, PAPER)
    for number, panel in enumerate(panels):
        corner = (number % columns * WIDTH, number // columns * HEIGHT)
        _draw(ImageDraw.Draw(picture), panel, corner)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = picture.resize((size[0] // SCALE, size[1] // SCALE), Image.Resampling.LANCZOS)
    small.quantize(64).save(path, optimize=True)


def _draw(canvas: ImageDraw.ImageDraw, panel: Panel, corner: tuple[int, int]) -> None:
    font, small = (ImageFont.load_default(size * SCALE) for size in (13, 11))

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + panel.x.share(x) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - panel.y.share(y) * (HEIGHT - TOP - BOTTOM)
        return (corner[0] + across) * SCALE, (corner[1] + down) * SCALE

    for value in panel.x.ticks:
        here = at(value, panel.y.low)
        canvas.line([here, at(value, panel.y.high)], GRID, SCALE)
        canvas.text((here[0], here[1] + 6 * SCALE), f"{value:g}", INK, small, anchor="ma")
    for value in panel.y.ticks:
        here = at(panel.x.low, value)
        canvas.line([here, at(panel.x.high, value)], GRID, SCALE)
        canvas.text((here[0] - 6 * SCALE, here[1]), f"{value:g}", INK, small, anchor="rm")
    canvas.line(
        [
            at(panel.x.low, panel.y.high),
            at(panel.x.low, panel.y.low),
            at(panel.x.high, panel.y.low),
        ],
        INK,
        SCALE,
    )
    middle = (corner[0] + (LEFT + WIDTH - RIGHT) / 2) * SCALE
    canvas.text((middle, (corner[1] + 10) * SCALE), panel.title, INK, font, anchor="ma")
    below = (corner[1] + HEIGHT - 22) * SCALE
    canvas.text((middle, below), panel.x.title, INK, small, anchor="ma")
    left = (corner[0] + 4) * SCALE
    canvas.text((left, (corner[1] + 14) * SCALE), panel.y.title, INK, small, anchor="la")
    for number, curve in enumerate(panel.curves):
        _curve(canvas, at, curve, COLORS[number % len(COLORS)])
    _legend(canvas, panel.curves, (corner[0] + WIDTH - RIGHT - 178, corner[1]), small)


def _curve(canvas: ImageDraw.ImageDraw, at: Any, curve: Curve, color: Any) -> None:
    if not curve.loose:
        canvas.line([at(x, y) for x, y, _ in curve.points], color, 2 * SCALE)
    radius = 3 * SCALE
    for x, y, error in curve.points:
        if error:
            canvas.line([at(x, y - error), at(x, y + error)], color, SCALE)
        across, down = at(x, y)
        box = (across - radius, down - radius, across + radius, down + radius)
        canvas.ellipse(box, fill=color)


def _legend(
    canvas: ImageDraw.ImageDraw, curves: Sequence[Curve], corner: tuple[int, int], font: Any
) -> None:
    for number, curve in enumerate(curves):
        across = corner[0] * SCALE
        down = (corner[1] + HEIGHT - BOTTOM - 16 * (len(curves) - number)) * SCALE
        canvas.rectangle(
            (across, down - 3 * SCALE, across + 12 * SCALE, down + 3 * SCALE),
            fill=COLORS[number % len(COLORS)],
        )
        canvas.text((across + 18 * SCALE, down), curve.label, INK, font, anchor="lm")


def draw_noise(path: Path, sources: Sequence[Path]) -> None:
    """Accuracy against light, converter bits, mask bits and alignment, of every model."""
    studies: dict[tuple[str, int], list[Any]] = {}
    for source in sources:
        study = json.loads(source.read_text(encoding="utf-8"))
        # A file may hold some values of a curve, and another the rest.
        studies.setdefault((study["model"], study["samples"]), []).extend(study["rows"])
    # Below zero there is room for the legend.
    share = Axis("accuracy", -0.32, 1.0, (0, 0.2, 0.4, 0.6, 0.8, 1))
    axes = {
        "photons": ("light", Axis("photons a pixel at full scale", 2, 14_000, (), True)),
        "adc_bits": ("converter", Axis("bits", 2.5, 8.5, ())),
        "mask_bits": ("mask levels", Axis("phase bits", 0.5, 12.5, ())),
        "shift": ("mask position", Axis("displacement in mask pixels", 0, 0.65, ())),
    }
    panels = []
    for name, (title, axis) in axes.items():
        curves, ticks = [], set()
        for (model, count), every in studies.items():
            rows = [row for row in every if row["axis"] == name]
            ticks |= {row["value"] for row in rows}
            points = [(r["value"], r["accuracy"], r["standard_error"]) for r in rows]
            curves.append(Curve(f"{model}, n = {count:,}", tuple(sorted(points))))
        shown = Axis(axis.title, axis.low, axis.high, tuple(sorted(ticks)), axis.log)
        panels.append(Panel(title, shown, share, tuple(curves)))
    draw_panels(path, panels)
