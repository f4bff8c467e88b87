"""A simulation for a terminal: what is hypothetical or not verified comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgevit.report import table

__all__ = ["text_of_simulation"]

# Columns of device parameters: of every table, and where some point has them.
_ALWAYS = ("axis", "photons", "adc", "mask", "display", "shift")
_RARE = {
    "read_noise": "read noise",
    "full_well": "full well",
    "defocus": "defocus",
    "background": "background",
    "speckle": "speckle",
    "laser_noise": "laser noise",
    "nonuniformity": "nonuniformity",
    "fill_factor": "fill factor",
    "crosstalk": "crosstalk",
    "rotation": "rotation",
    "magnification": "magnification",
}
# What stands for "none", where it is not zero.
_NONE = {"fill_factor": None, "magnification": 1.0}


def text_of_simulation(found: Mapping[str, Any]) -> str:
    """The headline of the set-up, costs, then tables."""
    lines: list[str] = []
    cost = found.get("cost")
    if cost is not None:
        lines += [cost["headline"], *(f"note: {w}" for w in cost["warnings"]), ""]
    program = found["program"]
    frames, masks = (sum(row[k] for row in program) for k in ("frames", "masks"))
    lines.append(
        f"{len(program)} optical layers, {frames} frames (signs included), {masks} masks"
    )
    lines += [_mapping_table(program), ""]
    if cost is not None:
        lines += _cost_lines(cost)
    if "precision" in found:
        lines += ["", *_precision_lines(found["precision"])]
        if found["not_in_precision"]:
            lines.append(f"not in this table: {', '.join(found['not_in_precision'])}")
    if "points" in found:
        points = found["points"]
        more = [key for key in _RARE if any(p[key] != _NONE.get(key, 0) for p in points)]
        head = (*_ALWAYS, *(_RARE[key] for key in more), "accuracy", "n")
        lines += ["", table(head, [_row(p, more) for p in points])]
        lines.append(f"labels: {found['labels']}; +- is one standard error (Wilson)")
    lines += [f"written: {path}" for path in found.get("pictures", ())]
    return "\n".join(lines)


def _mapping_table(program: Sequence[Mapping[str, Any]]) -> str:
    """Sums of the layers of each mapping; a frame's pixels are those of the input plane."""
    cells = []
    for mapping in sorted({row["mapping"] for row in program}):
        rows = [row for row in program if row["mapping"] == mapping]
        frames, masks, macs, pixels = (
            sum(row[key] for row in rows) for key in ("frames", "masks", "macs", "pixels")
        )
        each = f"{macs / max(pixels, 1):.3g}"
        cells.append((mapping, str(len(rows)), str(frames), str(masks), each))
    return table(("mapping", "layers", "frames", "masks", "MAC a pixel and frame"), cells)


def _cost_lines(cost: Mapping[str, Any]) -> list[str]:
    lines = [
        f"optics: {cost['seconds'] * 1e3:.4g} ms an inference, {cost['frames']} frames with "
        f"sign factor, {cost['masks']} mask writes ({cost['mask_seconds'] * 1e3:.4g} ms of "
        f"it), read-out and link (limit: {cost['limit']}); "
        f"{cost['joules']['total'] * 1e3:.4g} mJ"
    ]
    if cost["silent"]:
        lines.append(f"no figure, counted as zero energy: {', '.join(cost['silent'])}")
    if cost["digital"] is not None:
        lines += _comparison(cost, cost["digital"])
    return lines


def _comparison(cost: Mapping[str, Any], digital: Mapping[str, Any]) -> list[str]:
    whole = cost["seconds"] + digital["electronic_s"]
    even = cost["break_even_whole_hz"]
    bound = cost["amdahl"]
    return [
        f"digital: {digital['seconds'] * 1e3:.4g} ms ({digital['what']}); electronics of the "
        f"optical bundle: {digital['electronic_s'] * 1e3:.4g} ms",
        "Amdahl's bound, optics in no time: "
        + ("none" if bound is None else f"{bound:.3g} x as fast"),
        f"optics and electronics take {whole / digital['seconds']:.4g} x the digital time",
        f"break-even frame rate: {cost['break_even_hz']:.4g} Hz for the frames alone, "
        + ("none" if even is None else f"{even:.4g} Hz")
        + " with mask writes and electronics",
    ]


def _precision_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """SNR of each layer after each term, in dB, and the term that limits it."""
    # The row of most terms first: each column stands where its term enters.
    fullest = sorted(rows, key=lambda row: -len(row["terms"]))
    names = list(dict.fromkeys(name for row in fullest for name in row["terms"]))
    # A layer is limited by its light or by the full well: one column for both.
    shots = [name for name in names if name.startswith("shot noise")]
    columns = [name for name in names if name not in shots[1:]]
    head = ("layer", "photons", *("shot noise" if c in shots else c for c in columns))
    cells = []
    for row in rows:
        steps = {("shot" if k in shots else k): v for k, v in row["waterfall"].items()}
        cells.append(
            (
                row["layer"],
                "inf" if row["photons"] is None else f"{row['photons']:.4g}",
                # Only joint transforms have a power spectrum.
                *(_decibel(steps.get("shot" if c in shots else c)) for c in columns),
                "-" if row["enob"] is None else f"{row['enob']:.1f}",
                row["limiting"] or "nothing",
            )
        )
    title = "signal-to-noise ratio of each layer in dB, after each term"
    return [title, table((*head, "ENOB", "limited by"), cells)]


def _decibel(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _row(point: Mapping[str, Any], more: Sequence[str]) -> tuple[str, ...]:
    accuracy = f"{point['accuracy']:.4f} +- {point['standard_error']:.4f}"
    photons = "inf" if point["photons"] is None else f"{point['photons']:g}"
    bits = (str(point[k] or "-") for k in ("adc_bits", "mask_bits", "display_bits"))
    return (
        point["axis"],
        photons,
        *bits,
        f"{point['shift']:g}",
        *("-" if point[key] is None else f"{point[key]:g}" for key in more),
        accuracy,
        str(point["samples"]),
    )
