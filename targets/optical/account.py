"""What a frame program asks of the optics, layer by layer, and what that costs on a set-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgevit.errors import UsageError
from edgevit.sim4f import cost
from edgevit.sim4f.errors import OpticsError
from edgevit.sim4f.moves import moved_shape
from edgevit.sim4f.program import Optical, Program, frame_count
from edgevit.sim4f.setup import Setup, setup, setup_names

__all__ = ["Account", "account", "setup_of", "work"]

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Account:
    """A network on a set-up.

    Attributes:
        headline: What is hypothetical or was not read in a source.
        warnings: Differences between the program's planes and the set-up's.
        frames: Camera frames, sign frames included.
        masks: Masks written; those of computed kernels anew for every inference.
        seconds: Of one inference: masks, frames, exposure, read-out, link.
        joules: Of one inference by consumer; electronics apart.
        silent: Consumers without a figure, counted as zero.
        break_even_hz: Frame rate at which the optics alone take ``reference_s``.
        reference_s: Measured digital latency; ``None`` if not given.
        limit: The longest stage of a frame.
    """

    headline: str
    warnings: tuple[str, ...]
    frames: int
    masks: int
    seconds: float
    joules: Mapping[str, float]
    silent: tuple[str, ...]
    break_even_hz: float | None
    reference_s: float | None
    limit: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def work(step: Optical, shapes: Shapes) -> cost.Work:
    """Frames with the sign factor, masks, and pixels of one optical step."""
    exposures = len(step.signs.exposures)
    frames = frame_count(step, shapes) * exposures
    masks = 1
    for size in moved_shape(step.masked.moves, shapes[step.kernel])[:-2]:
        masks *= size
    # Parts of a kernel are masks of their own.
    masks *= len({e.masked for e in step.signs.exposures})
    pixels = step.plane[0] * step.plane[1]
    read = len(step.read.rows) * len(step.read.columns)
    return cost.Work(
        frames=frames,
        masks=masks,
        pixels_in=frames * pixels,
        pixels_mask=masks * pixels,
        pixels_out=frames * read,
        macs=step.macs,
    )


def setup_of(name: str) -> Setup:
    """A built-in set-up.

    Raises:
        UsageError: There is none of that name.
    """
    try:
        return setup(name)
    except OpticsError as e:
        raise UsageError(str(e), hint=f"known: {', '.join(setup_names())}") from e


def account(
    program: Program, chosen: Setup, reference_s: float | None, pipelined: bool = True
) -> Account:
    """Cost of one inference.

    Args:
        program: The frame program.
        chosen: The set-up; its planes should be those of the program.
        reference_s: Measured seconds of the same network in electronics.
        pipelined: Whether the stages of a frame overlap.
    """
    steps = program.optical
    works = [work(step, program.shapes) for step in steps]
    seconds, joules, limit = 0.0, 0.0, ""
    consumers: dict[str, float] = {}
    longest = -1.0
    for step, one in zip(steps, works, strict=True):
        rows = min(len(step.read.rows), chosen.parts["camera"].shape[0])
        bits = int(chosen.parts["camera"].si("bits"))
        read = len(step.read.rows) * len(step.read.columns)
        timing = cost.stages(
            chosen, rows_read=rows, bytes_per_frame=read * bits / 8, pipelined=pipelined
        )
        spent = cost.energy(one, chosen, timing, joule_per_mac=0.0)
        took = cost.latency(one, timing)
        seconds, joules = seconds + took, joules + spent.total
        if took > longest:
            longest, limit = took, timing.limit
        for name, value in asdict(spent).items():
            consumers[name] = consumers.get(name, 0.0) + value
    frames = sum(w.frames for w in works)
    return Account(
        headline=chosen.headline(),
        warnings=_warnings(program, chosen),
        frames=frames,
        masks=sum(w.masks for w in works),
        seconds=seconds,
        joules={**consumers, "total": joules},
        silent=cost.absent_powers(chosen),
        break_even_hz=None if reference_s is None else frames / reference_s,
        reference_s=reference_s,
        limit=limit,
    )


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
            f"input of {chosen.name} is binary: each frame counts once, though inputs of b "
            f"bits need b bit-planes"
        )
    return (*found, *(str(f) for f in chosen.findings() if not f.holds))
