"""``edgevit simulate``: a bundle of the optical target on a device that is not ideal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgevit import registry
from edgevit.bench import Subject as Timed
from edgevit.bench import bench
from edgevit.bundle import open_bundle
from edgevit.errors import InputError, UsageError
from edgevit.progress import Progress
from edgevit.studies import Labeled, labeled, numbers

__all__ = ["Pictures", "Study", "simulate"]

_STUDY = "edgevit.targets.optical.study"
_PRECISION = "edgevit.targets.optical.precision"
# Timed digital inferences.
RUNS = 30
# Samples from which the full scale of every step is taken, on the ideal device.
CALIBRATION = 16
# Device parameters that the table of the layers' precision has no term for.
UNBUDGETED = (
    *("defocus", "background", "speckle", "laser-noise", "nonuniformity", "fill-factor"),
    *("crosstalk", "rotation", "magnification"),
)


@dataclass(frozen=True)
class Pictures:
    """Which frame is shown where."""

    layer: str
    frame: int
    folder: Path


@dataclass(frozen=True)
class Study:
    """What is asked.

    Attributes:
        data: ``.npz`` of samples; ``None``: no accuracy.
        count: How many of them; ``None`` for all.
        base: Device parameters by option name.
        curves: Option name -> values; one curve each, the rest as in ``base``.
        path: ``fast`` or ``wave``.
        setup: Name of a set-up to cost the program on; ``None``: no costs.
        reference_ms: Digital latency of the model, measured elsewhere.
        against: The source model, whose digital latency is measured here.
        pictures: A frame to be shown; ``None``: none.
        seed: Of the noise.
    """

    data: Path | None = None
    count: int | None = None
    base: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[str]] = field(default_factory=dict)
    path: str = "fast"
    setup: str | None = None
    reference_ms: float | None = None
    against: Path | None = None
    pictures: Pictures | None = None
    seed: int = 0


def simulate(bundle: Path, study: Study, progress: Progress) -> dict[str, Any]:
    """Run a study.

    Returns:
        ``program`` (frames by mapping), ``points`` (accuracy with standard error), ``cost``,
        ``precision`` (what limits each layer; needs samples and a device) and ``pictures``,
        each only if asked for.

    Raises:
        EdgevitError: A bundle of another target, unknown parameters, or data that do not fit.
    """
    _check(study)
    load = registry.load_attribute
    subject = load(f"{_STUDY}:open_subject")(bundle)
    if study.pictures is not None:
        load("edgevit.targets.optical.pictures:check_layer")(subject, study.pictures.layer)
        _check_folder(study.pictures.folder)
    found: dict[str, Any] = {"bundle": str(bundle), "program": _frames(subject)}
    data = None
    if study.data is not None:
        data = labeled(study.data, open_bundle(bundle), study.count)
        with progress.step("calibrate"):
            load(f"{_STUDY}:calibrate")(subject, data.samples[:CALIBRATION])
        found["labels"] = "given" if data.labels is not None else "of the ideal device"
        found["points"] = _points(subject, data, study, progress)
    if study.setup is not None:
        with progress.step("cost"):
            found["cost"] = _cost(subject, data, study)
    if data is not None and (study.setup is not None or study.base):
        with progress.step("precision"):
            found["precision"] = _precision(subject, study)
            found["not_in_precision"] = sorted(k for k in study.base if k in UNBUDGETED)
    if study.pictures is not None:
        found["pictures"] = _pictures(subject, data, study.pictures, study)
    return found


def _check(study: Study) -> None:
    """Refuse what would be ignored, and what cannot be.

    Raises:
        UsageError: Options without what they belong to; an impossible latency or seed.
    """
    if study.data is None and (study.base or study.curves):
        raise UsageError(
            "a device changes answers, and there are no samples to answer",
            hint="add --data FILE.npz",
        )
    if study.setup is None and (study.against or study.reference_ms is not None):
        raise UsageError(
            "a digital latency is compared with a set-up's, and none is given",
            hint="add --setup NAME",
        )
    reference = study.reference_ms
    if reference is not None and not 0 < reference < math.inf:
        raise UsageError(f"reference-ms: expected 0 < latency < inf ms, found {reference:g}")
    if study.seed < 0:
        raise UsageError(f"seed: expected >= 0, found {study.seed}")


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise InputError(f"{folder} cannot be written: {e.strerror}") from e


def _frames(subject: Any) -> list[dict[str, Any]]:
    work = registry.load_attribute("edgevit.targets.optical.account:work")
    rows = []
    for step in subject.program.optical:
        done = work(step, subject.program.shapes)
        rows.append(
            {
                "layer": step.name,
                "mapping": step.mapping,
                "frames": done.frames,
                "masks": done.masks,
                "macs": done.macs,
                "pixels": done.pixels_in,
                "macs_per_pixel": done.macs / max(done.pixels_in, 1),
            }
        )
    return rows


def _points(
    subject: Any, data: Labeled, study: Study, progress: Progress
) -> list[dict[str, Any]]:
    load = registry.load_attribute
    make, evaluate = load(f"{_STUDY}:Point"), load(f"{_STUDY}:evaluate")
    labels = data.labels or load(f"{_STUDY}:ideal_labels")(subject, data.samples)
    base = _base(study)
    wanted = [("base", base)]
    for key, values in study.curves.items():
        ((name, parsed),) = numbers({key: values}).items()
        wanted += [(key, {**base, name: value}) for value in parsed]
    # An impossible device is refused before the first one is simulated.
    for _, fields in wanted:
        load(f"{_STUDY}:product_of")(subject, make(**fields), study.seed, study.path)
    rows = []
    for axis, fields in wanted:
        point = make(**fields)
        said = " ".join(f"{k}={v:g}" for k, v in fields.items()) or "ideal"
        with progress.step(f"{axis}: {said}"):
            seed = point.seed(study.seed, 0)
            out = evaluate(subject, data.samples, labels, point, seed, study.path)
        rows.append(
            {
                "axis": axis,
                **asdict(point),
                "accuracy": out.accuracy,
                "standard_error": out.standard_error,
                "samples": out.samples,
            }
        )
    return rows


def _cost(subject: Any, data: Labeled | None, study: Study) -> dict[str, Any]:
    load = registry.load_attribute
    chosen = load("edgevit.targets.optical.account:setup_of")(study.setup)
    digital = _digital(subject, data, study)
    account = load("edgevit.targets.optical.account:account")
    found: dict[str, Any] = account(subject.program, chosen, digital).to_json()
    return found


def _digital(subject: Any, data: Labeled | None, study: Study) -> Any:
    """The same network in electronics: measured here, or as it was given."""
    load = registry.load_attribute
    if study.against is not None:
        timing = bench([Timed("source", str(study.against))], threads=1, runs=RUNS)[0]
        seconds = timing.p50_ms / 1e3
        what = f"median of {RUNS} runs in {timing.engine} {timing.version}, one thread, here"
    elif study.reference_ms is not None:
        seconds, what = study.reference_ms / 1e3, "given, not measured here"
    else:
        return None
    make = load("edgevit.targets.optical.digital:seeded")
    sample = make(subject) if data is None else data.samples[0]
    stays = load("edgevit.targets.optical.digital:electronic_seconds")(subject, sample)
    return load("edgevit.targets.optical.account:Digital")(seconds, stays, what)


def _precision(subject: Any, study: Study) -> list[dict[str, Any]]:
    """On the set-up if there is one, else on the device of ``base``."""
    load = registry.load_attribute
    point = load(f"{_STUDY}:Point")(**_base(study))
    if study.setup is None:
        found = load(f"{_PRECISION}:on_point")(subject, point)
    else:
        chosen = load("edgevit.targets.optical.account:setup_of")(study.setup)
        found = load(f"{_PRECISION}:on_setup")(subject, chosen, (point.shift, point.shift))
    return [one.to_json() for one in found]


def _base(study: Study) -> dict[str, Any]:
    return {k: v[0] for k, v in numbers({k: [v] for k, v in study.base.items()}).items()}


def _pictures(subject: Any, data: Labeled | None, asked: Pictures, study: Study) -> list[str]:
    if data is None:
        raise UsageError("pictures show a sample: none is given", hint="add --data FILE.npz")
    load = registry.load_attribute
    point = load(f"{_STUDY}:Point")(**_base(study))
    planes = load("edgevit.targets.optical.pictures:planes")(
        subject, data.samples[0], asked.layer, asked.frame, point, point.seed(study.seed, 0)
    )
    write = load("edgevit.targets.optical.pictures:write_pictures")
    return [str(path) for path in write(asked.folder, planes)]
