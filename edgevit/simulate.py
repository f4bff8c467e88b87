"""``edgevit simulate``: a bundle of the optical target on a device that is not ideal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgevit import registry
from edgevit.bundle import open_bundle
from edgevit.errors import UsageError
from edgevit.progress import Progress
from edgevit.report import table
from edgevit.studies import Labeled, labeled, numbers

__all__ = ["Pictures", "Study", "simulate", "text_of_simulation"]

_STUDY = "edgevit.targets.optical.study"
# Samples from which the full scale of every step is taken, on the ideal device.
CALIBRATION = 16


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
        reference_ms: Measured digital latency of the model.
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
    pictures: Pictures | None = None
    seed: int = 0


def simulate(bundle: Path, study: Study, progress: Progress) -> dict[str, Any]:
    """Run a study.

    Returns:
        ``program`` (frames by mapping), ``points`` (accuracy with standard error), ``cost``
        and ``pictures``, each only if asked for.

    Raises:
        EdgevitError: A bundle of another target, unknown parameters, or data that do not fit.
    """
    load = registry.load_attribute
    subject = load(f"{_STUDY}:open_subject")(bundle)
    found: dict[str, Any] = {"bundle": str(bundle), "program": _frames(subject)}
    data = None
    if study.data is not None:
        data = labeled(study.data, open_bundle(bundle), study.count)
        with progress.step("calibrate"):
            load(f"{_STUDY}:calibrate")(subject, data.samples[:CALIBRATION])
        found["labels"] = "given" if data.labels is not None else "of the ideal device"
        found["points"] = _points(subject, data, study, progress)
    if study.setup is not None:
        found["cost"] = _cost(subject, study)
    if study.pictures is not None:
        found["pictures"] = _pictures(subject, data, study.pictures, study)
    return found


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
    base = {k: v[0] for k, v in numbers({k: [v] for k, v in study.base.items()}).items()}
    wanted = [("base", base)]
    for key, values in study.curves.items():
        ((name, parsed),) = numbers({key: values}).items()
        wanted += [(key, {**base, name: value}) for value in parsed]
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


def _cost(subject: Any, study: Study) -> dict[str, Any]:
    load = registry.load_attribute
    chosen = load("edgevit.targets.optical.account:setup_of")(study.setup)
    reference = None if study.reference_ms is None else study.reference_ms / 1e3
    account = load("edgevit.targets.optical.account:account")
    found: dict[str, Any] = account(subject.program, chosen, reference).to_json()
    return found


def _pictures(subject: Any, data: Labeled | None, asked: Pictures, study: Study) -> list[str]:
    if data is None:
        raise UsageError("pictures show a sample: none is given", hint="add --data FILE.npz")
    load = registry.load_attribute
    bits = int(dict(study.base).get("display-bits", 0))
    planes = load("edgevit.targets.optical.pictures:planes")(
        subject, data.samples[0], asked.layer, asked.frame, bits
    )
    write = load("edgevit.targets.optical.pictures:write_pictures")
    return [str(path) for path in write(asked.folder, planes)]


def text_of_simulation(found: Mapping[str, Any]) -> str:
    """For a terminal: what is hypothetical comes first."""
    lines: list[str] = []
    cost = found.get("cost")
    if cost is not None:
        lines += [cost["headline"], *(f"note: {w}" for w in cost["warnings"]), ""]
    program = found["program"]
    frames, masks = (sum(row[k] for row in program) for k in ("frames", "masks"))
    lines.append(
        f"{len(program)} optical layers, {frames} frames (signs included), {masks} masks"
    )
    if cost is not None:
        lines += _cost_lines(cost)
    if "points" in found:
        head = ("axis", "photons", "adc", "mask", "display", "shift", "accuracy", "n")
        lines += ["", table(head, [_row(p) for p in found["points"]])]
        lines.append(f"labels: {found['labels']}; +- is one standard error")
    lines += [f"written: {path}" for path in found.get("pictures", ())]
    return "\n".join(lines)


def _cost_lines(cost: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{cost['seconds'] * 1e3:.4g} ms an inference with sign factor, mask writes, read-out "
        f"and link (limit: {cost['limit']}); {cost['joules']['total'] * 1e3:.4g} mJ"
    ]
    if cost["silent"]:
        lines.append(f"no figure, counted as zero energy: {', '.join(cost['silent'])}")
    if cost["break_even_hz"] is not None:
        ratio = cost["reference_s"] / cost["seconds"]
        lines.append(
            f"break-even frame rate against {cost['reference_s'] * 1e3:g} ms measured: "
            f"{cost['break_even_hz']:.4g} Hz; optics take {1 / ratio:.4g} x that time"
        )
    return lines


def _row(point: Mapping[str, Any]) -> tuple[str, ...]:
    accuracy = f"{point['accuracy']:.4f} +- {point['standard_error']:.4f}"
    photons = "inf" if point["photons"] is None else f"{point['photons']:g}"
    bits = (str(point[k] or "-") for k in ("adc_bits", "mask_bits", "display_bits"))
    return (
        point["axis"],
        photons,
        *bits,
        f"{point['shift']:g}",
        accuracy,
        str(point["samples"]),
    )
