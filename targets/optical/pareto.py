"""What the device of a point costs on a set-up: exposures as long as its light needs."""

from __future__ import annotations

import math
from dataclasses import replace

from edgevit.sim4f import cost
from edgevit.sim4f.catalogue import camera_of
from edgevit.sim4f.setup import Setup
from edgevit.targets.optical.account import BIT_PLANES, timing_of, work
from edgevit.targets.optical.precision import photon_rate, top_of
from edgevit.targets.optical.study import PEDESTAL, Point, Subject

__all__ = ["point_cost"]

# Bits of the converters whose energy a sample the device files state; a successive-
# approximation converter takes energy in proportion to its bits.
ANCHOR_BITS = 8


def point_cost(subject: Subject, chosen: Setup, point: Point) -> tuple[float, float] | None:
    """Seconds and joules of one inference by the optics alone; electronics apart.

    Each layer is exposed until a pixel at full scale has the point's photons; where that is
    more than the full well holds with the reference's pedestal, exposures are averaged.

    Args:
        subject: Calibrated.
        chosen: Laser, efficiency, modulators, camera, converters, link.
        point: Photons and converter bits count; ``None`` is returned for unlimited light.
    """
    if point.photons is None:
        return None
    camera = camera_of(chosen.parts["camera"])
    planes = BIT_PLANES if chosen.parts["input"].technology == "binary" else 1
    bits = point.adc_bits or int(chosen.parts["camera"].si("bits"))
    seconds = joules = 0.0
    for step in subject.program.optical:
        top = top_of(subject, step)
        rate = photon_rate(step, subject.levels[step.name], top, chosen)
        pedestal = PEDESTAL if step.signs.detector == "intensity" else 1.0
        electrons = point.photons * pedestal * camera.quantum_efficiency
        averaged = max(1, math.ceil(electrons / camera.full_well))
        done = work(step, subject.program.shapes, planes * averaged)
        timing = replace(timing_of(step, chosen), exposure=point.photons / averaged / rate)
        spent = cost.energy(done, chosen, timing, joule_per_mac=0.0)
        seconds += cost.latency(done, timing)
        joules += spent.total + spent.adc * (bits / ANCHOR_BITS - 1)
    return seconds, joules
