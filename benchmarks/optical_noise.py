"""Accuracy on 4f devices that are not ideal: curves, and the two paths side by side.

python -m benchmarks.optical_noise curves NAME --samples N [--axis KEY=V1,V2]... --json FILE
python -m benchmarks.optical_noise paths NAME --samples N --plane 256x256
python -m benchmarks.optical_noise picture OUT.png FILE.json...

Names: ``fashion_vit_ts``, ``fashion_hybrid_ts`` (official test images), ``ppocrv4_rec``
(generated text images, a text counts if every letter is right). Full scales are calibrated on
other samples: training images, texts of another seed.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.corpus import fashion
from benchmarks.corpus.recognizer import characters, decode
from benchmarks.corpus.text_images import default_source, generate, preprocess
from benchmarks.optical_exactness import find, opened
from edgevit.targets.optical.study import PathName, Point, Subject, answers, calibrate

Array = np.ndarray[Any, Any]
CALIBRATION = 64
# Axis -> the rest of the device, and the values.
Curves = dict[str, tuple[dict[str, Any], tuple[float, ...]]]
CURVES: Curves = {
    "photons": ({}, (3, 10, 30, 100, 300, 1000, 3000)),
    "adc_bits": ({"photons": 1e4}, (3, 4, 5, 6, 8)),
    "mask_bits": ({}, (1, 2, 3, 4, 6)),
    "shift": ({}, (0.05, 0.1, 0.2, 0.3, 0.4, 0.6)),
}
# An image costs the recognizer a hundred times as much.
CURVES_OF_TEXTS: Curves = {
    "photons": ({}, (1000, 3000, 10_000)),
    "adc_bits": ({"photons": 1e5}, (5, 6, 8)),
    "mask_bits": ({}, (6, 8, 10, 12)),
    "shift": ({}, (0.05, 0.1, 0.2)),
}
# One device near the knee of each curve; the hybrid asks for ten times the light.
PATHS: tuple[dict[str, Any], ...] = (
    {"photons": 30.0},
    {"photons": 1e4, "adc_bits": 4},
    {"mask_bits": 3},
    {"shift": 0.3},
)
PATHS_OF: dict[str, tuple[dict[str, Any], ...]] = {
    "fashion_hybrid_ts": ({"photons": 300.0}, *PATHS[1:]),
}


@dataclass(frozen=True, eq=False)
class Task:
    """Samples of a model, and whether an output is right.

    Attributes:
        samples: Input name -> array.
        calibration: Others, for the full scales.
        right: Output and number of the sample -> whether it is right.
    """

    samples: list[dict[str, Array]]
    calibration: list[dict[str, Array]]
    right: Callable[[Array, int], bool]


def garments(name: str, count: int) -> Task:
    """Official test images; calibration on training images."""
    test, train = fashion.load_full("test"), fashion.load_full("train")
    labels = test.labels[:count]

    def right(output: Array, i: int) -> bool:
        return bool(output.argmax() == labels[i])

    return Task(
        [{name: one[None]} for one in fashion.preprocess(test.images[:count])],
        [{name: one[None]} for one in fashion.preprocess(train.images[:CALIBRATION])],
        right,
    )


def texts(name: str, count: int) -> Task:
    """Generated texts; a text is right if every letter is."""
    letters, source = characters(find("ppocrv4_rec")), default_source()
    wanted = list(generate(source, "clean", 1, count))
    others = generate(source, "clean", 2, 8)

    def right(output: Array, i: int) -> bool:
        return decode(output[0], letters) == wanted[i].label

    return Task(
        [{name: preprocess(s.image)} for s in wanted],
        [{name: preprocess(s.image)} for s in others],
        right,
    )


@contextmanager
def prepared(model: str, plane: str, count: int) -> Iterator[tuple[Subject, Task]]:
    """A model on the 4f device, calibrated, with its samples."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"optical-4f:plane={plane}"
        _, executor = opened(find(model), Path(folder), target, "optical", 1)
        subject = Subject(executor, executor.program.outputs[0].name)
        make = garments if model.startswith("fashion") else texts
        task = make(executor.program.inputs[0].name, count)
        calibrate(subject, task.calibration)
        yield subject, task
        executor.close()


def marks(subject: Subject, task: Task, point: Point, path: PathName = "fast") -> Array:
    """Which samples are right on the device of a point, bool ``[samples]``."""
    seed = point.seed(0, 0)
    found = answers(subject, task.samples, point, seed, path)
    return np.array([task.right(output, i) for i, output in enumerate(found)])


def row(axis: str, value: float | None, right: Array) -> dict[str, Any]:
    """One point of a curve with its standard error."""
    share = float(right.mean())
    error = math.sqrt(share * (1 - share) / len(right))
    return {"axis": axis, "value": value, "accuracy": share, "standard_error": error}


def chosen(model: str, axes: Sequence[str]) -> Curves:
    """The curves of a model, or only the named values of some."""
    every = CURVES if model.startswith("fashion") else CURVES_OF_TEXTS
    if not axes:
        return every
    pairs = (text.split("=") for text in axes)
    return {key: (every[key][0], tuple(map(float, v.split(",")))) for key, v in pairs}


def curves(model: str, plane: str, count: int, axes: Sequence[str]) -> dict[str, Any]:
    """The ideal device, then the curves."""
    with prepared(model, plane, count) as (subject, task):
        rows = [row("ideal", None, marks(subject, task, Point()))]
        wanted = chosen(model, axes)
        for axis, (rest, values) in wanted.items():
            for value in values:
                number = int(value) if axis.endswith("bits") else value
                point = Point(**{**rest, axis: number})
                rows.append(row(axis, value, marks(subject, task, point)))
                print(rows[-1], flush=True)
    return {"model": model, "plane": plane, "samples": count, "rows": rows}


def paths(model: str, plane: str, count: int) -> None:
    """Both paths on the same images: the difference in its paired standard errors."""
    print("| model | device | n | fast | wave | difference in standard errors |")
    print("|" + "---|" * 6)
    with prepared(model, plane, count) as (subject, task):
        for fields in PATHS_OF.get(model, PATHS):
            point = Point(**fields)
            fast, wave = (marks(subject, task, point, p) for p in ("fast", "wave"))
            apart = fast.astype(float) - wave
            error = float(apart.std(ddof=1)) / math.sqrt(count)
            ratio = float(apart.mean()) / error if error else 0.0
            said = ", ".join(f"{k} {v:g}" for k, v in fields.items())
            print(
                f"| {model} | {said} | {count} | {fast.mean():.4f} | {wave.mean():.4f} "
                f"| {ratio:+.2f} |",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("curves", "paths", "picture"))
    parser.add_argument("names", nargs="+")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--plane", default="1080x1920")
    parser.add_argument("--axis", action="append", default=[], metavar="KEY=V1,V2")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.what == "picture":
        from benchmarks.plot import draw_noise

        draw_noise(Path(given.names[0]), [Path(name) for name in given.names[1:]])
    elif given.what == "paths":
        paths(given.names[0], given.plane, given.samples)
    else:
        found = curves(given.names[0], given.plane, given.samples, given.axis)
        text = json.dumps(found, indent=1) + "\n"
        if given.json is None:
            print(text)
        else:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
