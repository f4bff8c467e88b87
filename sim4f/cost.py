"""Latency and energy of frames: every stage counted, none left out silently.

Latency of a layer: masks * t_mask + frames * period, where the period is the longest of input,
exposure, read-out and transfer if they overlap (pipelined), and their sum if not. Energy of a
frame: converters, laser, modulators, camera, link; electronics beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from edgevit.sim4f.errors import require
from edgevit.sim4f.setup import Setup

__all__ = ["Energy", "Stages", "Work", "absent_powers", "energy", "latency", "stages"]


@dataclass(frozen=True)
class Stages:
    """Seconds of each stage of a frame.

    Attributes:
        mask: Writing a mask.
        input: Writing an input plane.
        exposure: Collecting light.
        readout: Reading the camera.
        transfer: Moving the frame's bytes over the link.
        pipelined: Whether the four frame stages overlap.
    """

    mask: float
    input: float
    exposure: float
    readout: float
    transfer: float
    pipelined: bool

    def __post_init__(self) -> None:
        for key in ("mask", "input", "exposure", "readout", "transfer"):
            value = getattr(self, key)
            require(value >= 0, f"stage {key}", ">= 0 s", value)

    @property
    def period(self) -> float:
        """Seconds from frame to frame while the mask stays."""
        parts = (self.input, self.exposure, self.readout, self.transfer)
        return max(parts) if self.pipelined else sum(parts)

    @property
    def limit(self) -> str:
        """Name of the longest frame stage."""
        names = ("input", "exposure", "readout", "transfer")
        return max(names, key=lambda n: getattr(self, n))


@dataclass(frozen=True)
class Work:
    """What a layer (or a network) asks of the optics.

    Attributes:
        frames: Camera frames, sign frames included.
        masks: Masks written.
        pixels_in: Input pixels written in all frames.
        pixels_mask: Mask pixels written in all.
        pixels_out: Camera pixels read in all frames.
        macs: Multiply-accumulates that this replaces.
        macs_electronic: Multiply-accumulates that stay electronic.
    """

    frames: int
    masks: int
    pixels_in: int
    pixels_mask: int
    pixels_out: int
    macs: int
    macs_electronic: int = 0

    def __add__(self, other: Work) -> Work:
        """The work of both."""
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Energy:
    """Joules by consumer."""

    dac: float
    adc: float
    laser: float
    modulators: float
    camera: float
    link: float
    electronics: float

    @property
    def total(self) -> float:
        """All of it in J."""
        return sum(float(getattr(self, f.name)) for f in fields(self))


def stages(setup: Setup, *, rows_read: int, bytes_per_frame: float, pipelined: bool) -> Stages:
    """Stages of one frame of ``setup``.

    A rolling read-out takes a time proportional to the rows that are read; the other stages
    take whole planes.

    Raises:
        DeviceFileError: A device has no frame rate.
        ParameterError: More rows than the camera has.
    """
    camera = setup.parts["camera"]
    rows = camera.shape[0]
    require(0 < rows_read <= rows, "rows_read", f"0 < rows <= {rows}", rows_read)
    return Stages(
        mask=1 / setup.parts["mask"].si("frame_rate"),
        input=1 / setup.parts["input"].si("frame_rate"),
        exposure=setup.figures["exposure"].value,
        readout=rows_read / rows / camera.si("frame_rate"),
        transfer=bytes_per_frame / setup.parts["link"].si("bandwidth"),
        pipelined=pipelined,
    )


def latency(work: Work, timing: Stages) -> float:
    """Seconds: masks * t_mask + frames * period."""
    return work.masks * timing.mask + work.frames * timing.period


def energy(
    work: Work, setup: Setup, timing: Stages, *, joule_per_mac: float, bits: int = 8
) -> Energy:
    """Joules of ``work``.

    Powers that a device file does not have count as zero and are named by
    ``absent_powers``. Converters are counted a sample, for as many bits as the file states.

    Args:
        work: What is done.
        setup: On which devices.
        timing: Of their stages.
        joule_per_mac: Of the electronics that do the rest.
        bits: Bits a sample on the link.
    """
    seconds = latency(work, timing)
    converters, laser = setup.parts["converters"], setup.parts["laser"]
    samples_in = work.pixels_in + work.pixels_mask
    carried = (samples_in + work.pixels_out) * bits / 8
    powers = {name: _power(setup, name) for name in ("input", "mask", "camera")}
    link = setup.parts["link"].quantities.get("byte_energy")
    return Energy(
        dac=samples_in * converters.si("dac"),
        adc=work.pixels_out * converters.si("adc"),
        laser=setup.figures["laser_power"].value * seconds / laser.si("wall_plug"),
        modulators=(powers["input"] + powers["mask"]) * seconds,
        camera=powers["camera"] * seconds,
        link=carried * (link.value if link else 0.0),
        electronics=work.macs_electronic * joule_per_mac,
    )


def absent_powers(setup: Setup) -> tuple[str, ...]:
    """Consumers whose figure the device files lack, and that ``energy`` counts as zero."""
    silent = [n for n in ("input", "mask", "camera") if "power" not in _keys(setup, n)]
    if "byte_energy" not in _keys(setup, "link"):
        silent.append("link")
    return tuple(silent)


def _keys(setup: Setup, part: str) -> frozenset[str]:
    return frozenset(setup.parts[part].quantities)


def _power(setup: Setup, part: str) -> float:
    figure = setup.parts[part].quantities.get("power")
    return figure.value if figure else 0.0
