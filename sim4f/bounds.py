"""What optics could gain at most, and from which frame rate on it gains at all."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgevit.sim4f.errors import require

__all__ = ["Comparison", "amdahl", "break_even_rate"]


def amdahl(share: float, speedup: float = math.inf) -> float:
    """Speed-up of the whole if ``share`` of its time is made ``speedup`` times faster.

    Amdahl (AFIPS 1967): 1 / (1 - share + share / speedup); inf if everything vanishes.
    """
    require(0 <= share <= 1, "share of time", "0 <= share <= 1", share)
    require(speedup > 0, "speedup", "> 0", speedup)
    rest = 1 - share + share / speedup
    return math.inf if rest == 0 else 1 / rest


def break_even_rate(frames: int, reference: float, other: float) -> float | None:
    """Frames per second at which optics is as fast as the reference.

    Args:
        frames: Camera frames, sign frames included.
        reference: Measured seconds of the digital way.
        other: Seconds of the optical way that are no frames: masks, electronic operators.

    Returns:
        The rate in Hz, or ``None`` if no rate suffices.
    """
    require(frames >= 1, "frames", ">= 1", frames)
    require(reference > 0, "reference latency", "> 0 s", reference)
    left = reference - other
    return frames / left if left > 0 else None


@dataclass(frozen=True)
class Comparison:
    """An optical latency beside a measured digital one, with all that it includes.

    Attributes:
        digital: Measured seconds.
        digital_what: Machine, engine, precision, batch.
        frames: Camera frames with sign frames.
        sign_frames: Frames per signed product.
        frame_seconds: frames * period.
        mask_seconds: Writing masks.
        readout_seconds: Read-out of a frame.
        transfer_seconds: Link time of a frame.
        electronic_seconds: Operators that stay electronic.
        headline: Of the set-up: what is hypothetical or not verified.
    """

    digital: float
    digital_what: str
    frames: int
    sign_frames: int
    frame_seconds: float
    mask_seconds: float
    readout_seconds: float
    transfer_seconds: float
    electronic_seconds: float
    headline: str

    @property
    def optical(self) -> float:
        """Seconds of frames, masks and electronics."""
        return self.frame_seconds + self.mask_seconds + self.electronic_seconds

    def text(self) -> str:
        """The ratio, never without what it is made of."""
        ratio = self.digital / self.optical
        other = self.mask_seconds + self.electronic_seconds
        rate = break_even_rate(self.frames, self.digital, other)
        even = f"{rate:,.0f} frames/s" if rate is not None else "at no frame rate"
        return "\n".join(
            (
                self.headline,
                f"digital: {self.digital * 1e3:.3g} ms ({self.digital_what})",
                f"optical: {self.optical * 1e3:.3g} ms = {self.frames} frames "
                f"({self.sign_frames} per signed product) {self.frame_seconds * 1e3:.3g} ms "
                f"+ masks {self.mask_seconds * 1e3:.3g} ms "
                f"+ electronics {self.electronic_seconds * 1e3:.3g} ms",
                f"a frame includes read-out {self.readout_seconds * 1e6:.3g} us "
                f"and link {self.transfer_seconds * 1e6:.3g} us",
                f"optics is {ratio:.3g} x as fast; it breaks even at {even}",
            )
        )
