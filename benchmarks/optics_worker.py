"""One contestant of ``benchmarks.optics`` in its own process: ``optics_worker CONTESTANT N``.

Prints the error against direct convolution, then one time per line read from stdin. Inputs and
masks are prepared before the clock starts, as far as the contestant's interface allows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

LAM = 532e-9
FOCAL = 0.1
KERNEL = 16
Array = Any
Contestant = Callable[[Array, Array], Callable[[], Array]]


def scene(n: int) -> tuple[Array, Array]:
    """A non-negative image with a dark border, and a kernel at the origin of its plane."""
    rng = np.random.default_rng(n)
    image, kernel = np.zeros((n, n)), np.zeros((n, n))
    low = n // 4
    image[low : n - low, low : n - low] = rng.uniform(0, 1, (n - 2 * low, n - 2 * low))
    kernel[:KERNEL, :KERNEL] = rng.uniform(0, 1, (KERNEL, KERNEL)) / KERNEL**2
    return image, kernel


def expected(image: Array, kernel: Array) -> Array:
    """The convolution tap by tap: no transform."""
    total = np.zeros(image.shape)
    for i, j in np.ndindex(KERNEL, KERNEL):
        total += kernel[i, j] * np.roll(image, (i, j), axis=(0, 1))
    return total


def inverted(out: Array) -> Array:
    """Camera picture turned about pixel N // 2 of an even plane."""
    return np.roll(out[::-1, ::-1], (1, 1), axis=(0, 1))


def centred_mask(kernel: Array) -> Array:
    """Transfer function with zero frequency at pixel N // 2."""
    return np.fft.fftshift(np.fft.fft2(kernel))


def ours(image: Array, kernel: Array) -> Callable[[], Array]:
    """Two real-input transforms in single precision."""
    from edgevit.sim4f.correlate import apply, transfer_half

    plane = image.astype(np.float32)
    half = transfer_half(kernel.astype(np.float32))
    return lambda: apply(plane, half)


def ours_planes(image: Array, kernel: Array) -> Callable[[], Array]:
    """Every plane as a field: lens, mask, lens, single precision."""
    from edgevit.sim4f.fourier import four_f
    from edgevit.sim4f.grid import Field, Grid, critical_pitch

    n = len(image)
    grid = Grid((n, n), (critical_pitch(n, LAM, FOCAL),) * 2, LAM)
    field = Field(image.astype(np.complex64), grid)
    mask = centred_mask(kernel).astype(np.complex64)
    return lambda: inverted(np.abs(four_f(field, mask, FOCAL, FOCAL).values))


def ours_chain(image: Array, kernel: Array) -> Callable[[], Array]:
    """Equal physics: four Fresnel propagations and two thin lenses, double precision."""
    from edgevit.sim4f.grid import Field, Grid, critical_pitch
    from edgevit.sim4f.propagate import fresnel, thin_lens

    n = len(image)
    grid = Grid((n, n), (critical_pitch(n, LAM, FOCAL),) * 2, LAM)
    field, mask = Field(image + 0j, grid), centred_mask(kernel)

    def stage(f: Any) -> Any:
        return fresnel(thin_lens(fresnel(f, FOCAL), FOCAL), FOCAL)

    def run() -> Array:
        middle = stage(field)
        return inverted(np.abs(stage(middle.with_values(middle.values * mask)).values))

    return run


def naive(image: Array, kernel: Array) -> Callable[[], Array]:
    """Two complex transforms of numpy in double precision."""
    transfer = np.fft.fft2(kernel)
    return lambda: np.fft.ifft2(np.fft.fft2(image.astype(np.complex128)) * transfer).real


def lightpipes(image: Array, kernel: Array) -> Callable[[], Array]:
    """Four propagations and two thin lenses, double precision, no padding."""
    pipes = import_module("LightPipes")
    n = len(image)
    beam = pipes.Begin(float(np.sqrt(LAM * FOCAL / n)) * n, LAM, n)
    mask = centred_mask(kernel)

    def stage(field: Any) -> Any:
        return pipes.Forvard(pipes.Lens(pipes.Forvard(field, FOCAL), FOCAL), FOCAL)

    def run() -> Array:
        beam.field = image.astype(complex)
        middle = stage(beam)
        middle.field = middle.field * mask
        return inverted(np.abs(stage(middle).field))

    return run


def optnn(image: Array, kernel: Array) -> Callable[[], Array]:
    """Its interface transforms the kernel at each call: nine transforms."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    system = import_module("optnn.Optics_simulation").Optics_simulation(len(image))
    plane = torch.tensor(image, dtype=torch.float32)
    taps = torch.tensor(kernel, dtype=torch.float32)
    return lambda: inverted(system.convolution_4F(plane, taps).numpy())


def _torchoptics(image: Array, kernel: Array, **how: Any) -> Callable[[], Array]:
    torch = import_module("torch")
    torch.set_num_threads(1)
    optics = import_module("torchoptics")
    elements = import_module("torchoptics.elements")
    n = len(image)
    pitch = float(np.sqrt(LAM * FOCAL / n))
    optics.set_default_spacing(pitch)
    optics.set_default_wavelength(LAM)
    place = np.arange(n) - (n - 1) / 2
    # Its grid is centred between pixels: the kernel's transform at half-pixel frequencies.
    rows = np.exp(-2j * np.pi * np.outer(place, np.arange(KERNEL)) / n)
    mask = torch.tensor(rows @ kernel[:KERNEL, :KERNEL] @ rows.T)
    phase = import_module("torchoptics.profiles").lens_phase((n, n), FOCAL)
    # Its Lens cuts a disc out of the square plane; the bare phase is the lens of the others.
    system = optics.System(
        elements.PhaseModulator(phase, z=FOCAL),
        elements.Modulator(mask, z=2 * FOCAL),
        elements.PhaseModulator(phase, z=3 * FOCAL),
    )
    field = optics.Field(torch.tensor(image + 0j))

    def run() -> Array:
        with torch.no_grad():
            out = system.measure_at_z(field, z=4 * FOCAL, **how)
        return out.data.abs().numpy()[::-1, ::-1]

    return run


def torchoptics(image: Array, kernel: Array) -> Callable[[], Array]:
    """As it comes: the plane padded by twice its size on each side."""
    return _torchoptics(image, kernel, propagation_method="ASM_FRESNEL")


def torchoptics_bare(image: Array, kernel: Array) -> Callable[[], Array]:
    """Without padding: the same physics as our chain."""
    how: dict[str, Any] = {"propagation_method": "ASM_FRESNEL", "asm_pad": (0, 0)}
    return _torchoptics(image, kernel, **how)


CONTESTANTS: dict[str, Contestant] = {
    "ours": ours,
    "ours-planes": ours_planes,
    "ours-chain": ours_chain,
    "naive": naive,
    "lightpipes": lightpipes,
    "optnn": optnn,
    "torchoptics": torchoptics,
    "torchoptics-bare": torchoptics_bare,
}


def main(contestant: str, n: int) -> None:
    """Prepare, check once, then time a call for each line on stdin."""
    image, kernel = scene(n)
    run = CONTESTANTS[contestant](image, kernel)
    wanted = expected(image, kernel)
    print(float(np.abs(run() - wanted).max() / wanted.max()), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
