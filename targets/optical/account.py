"""What a frame program asks of the optics, layer by layer, and what that costs on a set-up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgevit.errors import InputError, UsageError
from edgevit.sim4f import bounds, cost
from edgevit.sim4f.errors import OpticsError
from edgevit.sim4f.moves import moved_shape
from edgevit.sim4f.program import Optical, Program, frame_count
from edgevit.sim4f.setup import Setup, parse_setups, setup, setup_names

__all__ = ["Account", "Digital", "account", "compared", "setup_of", "timing_of", "work"]

Shapes = Mapping[str, Sequence[int]]
CONSUMERS = tuple(f.name for f in fields(cost.Energy))


# Bits of an input that binary pixels show one after another, each a frame.
BIT_PLANES = 8


@dataclass(frozen=True)
class Digital:
    """The same network in electronics, measured.

    Attributes:
        seconds: Of one inference, median.
        electronic_s: Of what stays electronic in the optical bundle.
        what: Machine, engine and threads of the measurement.
    """

    seconds: float
    electronic_s: float
    what: str


@dataclass(frozen=True)
class Account:
    """A network on a set-up.

    Attributes:
        headline: What is hypothetical or was not read in a source.
        warnings: Differences between the program's planes and the set-up's.
        frames: Camera frames, sign frames and bit-planes included.
        masks: Masks written; those of computed kernels anew for every inference.
        seconds: Of the optics for one inference: masks, frames, exposure, read-out, link.
        mask_seconds: Of that, writing masks.
        joules: Of one inference by consumer; electronics apart.
        silent: Consumers without a figure, counted as zero.
        limit: The longest stage of a frame.
        digital: What it is compared with; ``None`` if nothing was measured.
        break_even_hz: Frame rate at which the frames alone take as long; ``None`` without.
        break_even_whole_hz: The same with masks and electronics; ``None`` without, or if no
            frame rate suffices.
        amdahl: Speed-up if optics took no time at all; ``None`` without.
    """

    headline: str
    warnings: tuple[str, ...]
    frames: int
    masks: int
    seconds: float
    mask_seconds: float
    joules: Mapping[str, float]
    silent: tuple[str, ...]
    limit: str
    digital: Digital | None
    break_even_hz: float | None
    break_even_whole_hz: float | None
    amdahl: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def work(step: Optical, shapes: Shapes, planes: int = 1) -> cost.Work:
    """Frames, masks, and pixels of one optical step.

    Args:
        step: The step.
        shapes: Of its tensors.
        planes: Bit-planes in which an input is shown.
    """
    once = frame_count(step, shapes)
    frames = once * len(step.signs.exposures) * planes
    masks = math.prod(moved_shape(step.masked.moves, shapes[step.kernel])[:-2])
    # Parts of a kernel are masks of their own.
    masks *= len({e.masked for e in step.signs.exposures})
    pixels = step.plane[0] * step.plane[1]
    read = frames * len(step.read.rows) * len(step.read.columns)
    if any(step.joint):
        # A first exposure of the whole plane; what it holds is then displayed.
        first = once * len({(e.displayed, e.masked) for e in step.signs.exposures}) * planes
        masks, frames, read = first, frames + first, read + first * pixels
    return cost.Work(
        frames=frames,
        masks=masks,
        pixels_in=frames * pixels,
        pixels_mask=masks * pixels,
        pixels_out=read,
        macs=step.macs,
    )


def setup_of(name: str) -> Setup:
    """A built-in set-up, or one of a file: ``FILE.toml``, or ``FILE.toml:NAME`` of several.

    Raises:
        UsageError: There is none of that name, or the file has something wrong in it.
        InputError: The file cannot be read.
    """
    path, _, chosen = name.partition(".toml")
    try:
        if path != name:
            return _setup_in(Path(f"{path}.toml"), chosen.removeprefix(":"))
        return setup(name)
    except OpticsError as e:
        raise UsageError(str(e), hint=f"known: {', '.join(setup_names())}, FILE.toml") from e


def _setup_in(path: Path, name: str) -> Setup:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path} cannot be read: {e}") from e
    found = parse_setups(text, str(path))
    if name not in found and (name or len(found) != 1):
        raise UsageError(
            f"{path}: expected one of its set-ups {', '.join(found) or '(it has none)'}, "
            f"found {name!r}",
            hint=f"--setup {path}:NAME",
        )
    return found[name] if name else next(iter(found.values()))


def account(
    program: Program, chosen: Setup, digital: Digital | None, pipelined: bool = True
) -> Account:
    """Cost of one inference.

    Args:
        program: The frame program.
        chosen: The set-up; its planes should be those of the program.
        digital: The same network in electronics.
        pipelined: Whether the stages of a frame overlap.
    """
    planes = BIT_PLANES if chosen.parts["input"].technology == "binary" else 1
    works = [work(step, program.shapes, planes) for step in program.optical]
    timings = [timing_of(step, chosen, pipelined) for step in program.optical]
    spent = [
        cost.energy(one, chosen, timing, joule_per_mac=0.0)
        for one, timing in zip(works, timings, strict=True)
    ]
    took = [cost.latency(one, timing) for one, timing in zip(works, timings, strict=True)]
    longest = max(range(len(took)), key=took.__getitem__, default=None)
    frames = sum(w.frames for w in works)
    masks = sum(w.masks * t.mask for w, t in zip(works, timings, strict=True))
    joules = {f: sum(getattr(one, f) for one in spent) for f in CONSUMERS}
    return Account(
        headline=chosen.headline(),
        warnings=_warnings(program, chosen),
        frames=frames,
        masks=sum(w.masks for w in works),
        seconds=sum(took),
        mask_seconds=masks,
        joules={**joules, "total": sum(joules.values())},
        silent=cost.absent_powers(chosen),
        limit="" if longest is None else timings[longest].limit,
        digital=digital,
        **compared(frames, masks, digital),
    )


def compared(frames: int, masks: float, digital: Digital | None) -> dict[str, float | None]:
    """Break-even rates and Amdahl's bound of ``frames`` and ``masks`` seconds of writing."""
    if digital is None or not frames:
        return dict.fromkeys(("break_even_hz", "break_even_whole_hz", "amdahl"))
    stays = min(1.0, digital.electronic_s / digital.seconds)
    bound = bounds.amdahl(1 - stays)
    return {
        "break_even_hz": bounds.break_even_rate(frames, digital.seconds, 0.0),
        "break_even_whole_hz": bounds.break_even_rate(
            frames, digital.seconds, masks + digital.electronic_s
        ),
        "amdahl": bound if math.isfinite(bound) else None,
    }


def timing_of(step: Optical, chosen: Setup, pipelined: bool = True) -> cost.Stages:
    """Stages of a frame of a step; what is not read is not transferred."""
    camera = chosen.parts["camera"]
    # The first exposure of a joint transform is of the whole plane; all are timed like it.
    area = step.plane if any(step.joint) else (len(step.read.rows), len(step.read.columns))
    rows, read = min(area[0], camera.shape[0]), area[0] * area[1]
    carried = read * int(camera.si("bits")) / 8
    return cost.stages(chosen, rows_read=rows, bytes_per_frame=carried, pipelined=pipelined)


def _warnings(program: Program, chosen: Setup) -> tuple[str, ...]:
    planes = {step.plane for step in program.optical}
    found = []
    for part in ("input", "mask", "camera"):
        shape = chosen.parts[part].shape
        small = [p for p in planes if p[0] > shape[0] or p[1] > shape[1]]
        if small:
            found.append(
                f"{part} of {chosen.name} has {shape[0]} x {shape[1]} px, the program needs "
                f"{small[0][0]} x {small[0][1]}: compile with another plane"
            )
    if chosen.parts["input"].technology == "binary":
        found.append(
            f"input of {chosen.name} is binary: inputs of {BIT_PLANES} bits are shown as "
            f"{BIT_PLANES} bit-planes, a frame each"
        )
    phase = [p for p in ("input", "mask") if chosen.parts[p].technology == "phase"]
    if phase:
        found.append(
            f"{' and '.join(phase)} of {chosen.name} change the phase only: complex values by "
            f"double phase take two pixels each, which the plane's size does not count"
        )
    return (*found, *(str(f) for f in chosen.findings() if not f.holds))
