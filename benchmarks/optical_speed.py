"""The fast path against plain inference, interleaved: python -m benchmarks.optical_speed.

Rows: ONNX Runtime on the source model, the fast path on the ideal device, the fast path with
photon noise. Medians over rounds, as many threads for each; optionally one wave-path image.
``--cpu`` counts CPU time, which a busy machine disturbs less than wall time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def timed(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Seconds of one call."""
    start = clock()
    call()
    return clock() - start


def noisy(executor: Any) -> Any:
    """The fast path with photons, a 12-bit converter and read noise."""
    import numpy as np

    from edgevit.sim4f.fast import FastProduct
    from edgevit.targets.optical.study import effects_of

    effects = effects_of(noisy_point())
    return FastProduct(executor.program.shapes, effects, np.random.default_rng(0))


def noisy_point() -> Any:
    """Photons, a 12-bit converter and read noise."""
    from edgevit.targets.optical.study import Point

    return Point(photons=1e4, adc_bits=12, read_noise=5.0)


def studied(executor: Any, sample: Any) -> tuple[Any, int]:
    """A calibrated study of the program, and how many samples it runs together."""
    from edgevit.targets.optical.study import Subject, calibrate

    subject = Subject(executor, executor.program.outputs[0].name)
    calibrate(subject, [sample])
    return subject, subject.at_once


def together(subject: Any, samples: list[Any]) -> None:
    """Samples through the device of ``noisy``, as a study runs them."""
    from edgevit.targets.optical.study import answers

    for _ in answers(subject, samples, noisy_point(), 0):
        pass


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--wave", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="CPU time: for a busy machine")
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    # Before numpy is imported: BLAS reads it once.
    os.environ["OPENBLAS_NUM_THREADS"] = str(given.threads)
    from benchmarks.optical_exactness import find, images, opened
    from edgevit.sim4f.wave import WaveProduct

    print(
        "| model | threads | plain ms | fast ms | ratio | noisy ms | noisy, together, ms "
        "| wave s | peak GB |"
    )
    print("|" + "---|" * 9)
    for name in given.models:
        path = find(name)
        with tempfile.TemporaryDirectory() as folder:
            source, executor = opened(
                path, Path(folder), "optical-4f", "optical", given.threads
            )
            sample = images(path.stem, list(source.model.graph.inputs), 1)[0]
            plain = _plain(path, sample, given.threads)
            product = noisy(executor)
            subject, count = studied(executor, sample)
            rows: dict[str, list[float]] = {
                k: [] for k in ("plain", "fast", "noisy", "together")
            }
            calls: dict[str, Callable[[], Any]] = {
                "plain": plain,
                "fast": partial(executor.run, sample),
                "noisy": partial(executor.run_with, product, sample),
                "together": partial(together, subject, [sample] * count),
            }
            for call in calls.values():
                call()
            for _ in range(given.rounds):
                for key, call in calls.items():
                    rows[key].append(timed(call, clock))
            wave = float("nan")
            if given.wave:
                waves = WaveProduct(executor.program.shapes, workers=given.threads)
                wave = timed(partial(executor.run_with, waves, sample), clock)
            executor.close()
        best = {key: statistics.median(times) * 1e3 for key, times in rows.items()}
        ratio = statistics.median(
            f / p for f, p in zip(rows["fast"], rows["plain"], strict=True)
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"| {path.stem} | {given.threads} | {best['plain']:.2f} | {best['fast']:.2f} "
            f"| {ratio:.2f} | {best['noisy']:.1f} | {best['together'] / count:.2f} "
            f"| {wave:.2f} | {peak:.2f} |",
            flush=True,
        )


def _plain(path: Path, sample: Any, threads: int) -> Callable[[], Any]:
    from edgevit.runtimes.ort import onnxruntime

    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, sample)


if __name__ == "__main__":
    main()
