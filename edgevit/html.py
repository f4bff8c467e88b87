"""The page of a bundle: one self-contained HTML file, made from the bundle alone.

No network, no script, no time: the same bundle gives the same page. What the page says is
gathered here; ``templates/report.html.j2`` lays it out.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgevit.bundle import open_bundle
from edgevit.charts import BAR_WIDTH, bar, graph, psnr_panel, ratio_panel
from edgevit.edits import kept_in
from edgevit.errors import InputError, UsageError, probe_package
from edgevit.manifest import Entry, Manifest, ParityRecord
from edgevit.pagedata import (
    UNITS,
    block_cells,
    bridge_lines,
    class_costs,
    placement_rows,
    unit_of,
)
from edgevit.parity import HIGHER_IS_BETTER
from edgevit.record import Record, read_record, record_path
from edgevit.report import artifact_text, bytes_text
from edgevit.samples import samples

__all__ = ["check_page", "page", "write_page"]

_FILES = {
    "Manifest.json": "package list",
    "debug_map.json": "artifact names to source nodes",
    "selfcheck.npz": "sample of the self-check",
}
_KINDS = {
    ".tflite": "LiteRT model",
    ".onnx": "ONNX model",
    ".mlmodel": "Core ML program",
    ".bin": "weights",
}
# Metric -> (name for people, unit).
_METRICS = {
    "max_rel": ("largest error / largest value", ""),
    "psnr_db": ("PSNR", " dB"),
    "sqnr_db": ("SQNR", " dB"),
    "cosine": ("cosine", ""),
    "top1_agreement": ("arg-max agreement", ""),
}


def page(bundle: Path) -> str:
    """The page of a bundle.

    Raises:
        BackendMissingError: jinja2 is not installed.
        InputError: There is no such bundle.
        ArtifactError: The bundle is corrupt, or holds no ``report.json``.
    """
    probe_package("the HTML report", "jinja2", "compile").require()
    manifest = open_bundle(bundle, failed=True)
    every = [read_record(bundle, index) for index in range(len(manifest.entries))]
    return _render(_content(bundle, manifest, every))


def check_page(place: Path, bundle: Path, overwrite: bool) -> None:
    """Whether a page may be written there.

    Raises:
        UsageError: Something is there and ``overwrite`` is off, it is a directory, or the
            place is inside the bundle, which lists all its files.
        InputError: The directory that would hold it does not exist.
    """
    if not place.parent.is_dir():
        raise InputError(f"{place.parent}: no such directory", hint="create it first")
    if place.is_dir():
        raise UsageError(f"{place}: expected a file to write, found a directory")
    if place.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"{place} is inside the bundle, whose files are fixed by its manifest",
            hint="write the page beside it",
        )
    if os.path.lexists(place) and not overwrite:
        raise UsageError(f"{place} exists", hint="give --overwrite to replace it")


def write_page(bundle: Path, place: Path, *, overwrite: bool = False) -> None:
    """Write the page of a bundle; it is there whole or not at all.

    Args:
        bundle: Bundle directory.
        place: The file.
        overwrite: Whether a file there is replaced.

    Raises:
        EdgevitError: See ``page`` and ``check_page``.
        InputError: The disk refuses.
    """
    check_page(place, bundle, overwrite)
    content = page(bundle)
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(place)
    except OSError as e:
        raise InputError(f"{place}: cannot be written: {e.strerror}") from e
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _render(content: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edgevit", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = bytes_text
    environment.filters["count"] = _count
    environment.filters["figure"] = _figure_text
    environment.filters["color"] = lambda unit: f"u{UNITS.get(unit, len(UNITS) - 1)}"
    return environment.get_template("report.html.j2").render(content)


def _count(number: int) -> str:
    """A count for people: 4.82 M, 76."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            # All three digits, so that columns of counts align.
            return f"{number / size:#.3g}".removesuffix(".") + f" {unit}"
    return str(number)


def _figure_text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _content(bundle: Path, manifest: Manifest, every: Sequence[Record]) -> dict[str, Any]:
    record = every[0]
    cells = block_cells(record, manifest)
    left_over = frozenset(f.node for f in manifest.coverage.fallback)
    classes = class_costs(record.nodes)
    numbers = {record.nodes[c.first].block: c.number for c in cells}
    return {
        "m": manifest,
        "manifest": manifest.to_json(),
        "record": record,
        "cells": cells,
        "graph": graph(cells),
        "bridges": bridge_lines(record, cells),
        "estimates": _estimates(record),
        "entries": _entries(manifest, every),
        "first": f" at entry 0, {_shapes(manifest.entries[0])}" if len(every) > 1 else "",
        "units": _units(record, left_over),
        "placement": placement_rows(record, manifest),
        "gates": _gates(manifest),
        "bar_width": BAR_WIDTH,
        "sign": _sign,
        "panels": _panels(manifest, every),
        "classes": classes,
        "totals": {
            key: sum(getattr(c, key) for c in classes)
            for key in ("nodes", "macs", "params", "weight_bytes", "moved_bytes")
        },
        "files": _files(manifest),
        "bytes": sum(f.bytes for f in manifest.files),
        "nodes": [
            (node, unit_of(node, record, left_over), numbers[node.block])
            for node in record.nodes
        ],
        "samples": samples(bundle, manifest),
        "refusals": [(p.spec, r) for p in manifest.passes for r in p.refused],
        "notes": [(p.spec, n) for p in manifest.passes for n in p.notes],
    }


def _panels(manifest: Manifest, every: Sequence[Record]) -> list[dict[str, Any]]:
    """The charts of every input shape; they say which if there are several."""
    found = []
    for number, (entry, record) in enumerate(zip(manifest.entries, every, strict=True)):
        cells = block_cells(record, manifest)
        label = f"Entry {number}, {_shapes(entry)}. " if len(every) > 1 else ""
        found.append(
            {
                "label": label,
                "ratios": ratio_panel(record.nodes, cells),
                "psnr": psnr_panel(record.nodes, cells, _psnr_gate(manifest)),
            }
        )
    return found


def _shapes(entry: Entry) -> str:
    return ", ".join(f"{i.name} {' × '.join(map(str, i.shape))}" for i in entry.inputs)


def _estimates(record: Record) -> list[dict[str, str]]:
    """Latency and energy of an entry, as far as the device file has figures for them."""
    every = (("latency", record.latency_ms, "ms"), ("energy", record.energy_mj, "mJ"))
    return [
        {
            "name": name,
            **{k: f"{getattr(found, k):.3g} {unit}" for k in ("low", "mid", "high")},
            "confidence": found.confidence,
        }
        for name, found, unit in every
        if found is not None
    ]


def _entries(manifest: Manifest, every: Sequence[Record]) -> list[dict[str, Any]]:
    """What differs from one input shape to the next: figures, artifacts, estimates."""
    measured = manifest.entry_parity or (manifest.parity,) * len(every)
    rows = []
    for entry, parity, record in zip(manifest.entries, measured, every, strict=True):
        row = {
            "shapes": _shapes(entry),
            "artifacts": ", ".join(artifact_text(p.artifact, p.function) for p in entry.parts),
            "estimates": _estimates(record),
            "metrics": {},
        }
        rows.append(row if parity is None else row | _measured(parity))
    return rows


def _measured(parity: ParityRecord) -> dict[str, Any]:
    metrics = {}
    for metric, figure in parity.figures.items():
        title, unit = _METRICS.get(metric, (metric, ""))
        known = figure["value"] is not None
        text = _figure_text(figure["value"]) + unit * known
        metrics[title] = "exact" if figure.get("exact") else text
    return {
        "metrics": metrics,
        "samples": parity.samples,
        "synthetic": parity.synthetic,
        "replayed": parity.replayed,
        "passed": all(f["pass"] for f in parity.figures.values())
        and parity.first_divergent is None,
    }


def _units(record: Record, left_over: frozenset[str]) -> list[tuple[str, int]]:
    counted: dict[str, int] = {}
    for node in record.nodes:
        unit = unit_of(node, record, left_over)
        counted[unit] = counted.get(unit, 0) + 1
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _psnr_gate(manifest: Manifest) -> float | None:
    return manifest.selfcheck.gates.get("psnr_db")


def _sign(metric: str) -> str:
    return "≥" if metric in HIGHER_IS_BETTER else "≤"


def _gates(manifest: Manifest) -> list[dict[str, Any]]:
    """Rows of the certificate: all outputs together, then each."""
    if manifest.parity is None:
        return []
    every = [("all outputs", manifest.parity.figures), *manifest.parity.outputs.items()]
    return [
        _gate(name, metric, figure, manifest.selfcheck.gates)
        for name, figures in every
        for metric, figure in figures.items()
    ]


def _gate(
    name: str, metric: str, figure: Mapping[str, Any], limits: Mapping[str, float]
) -> dict[str, Any]:
    exact = bool(figure.get("exact"))
    limit = limits.get(metric) if exact else figure["limit"]
    title, unit = _METRICS.get(metric, (metric, ""))
    known = figure["value"] is not None
    return {
        "name": name,
        "metric": title,
        "value": "exact" if exact else _figure_text(figure["value"]) + unit * known,
        "gate": "" if limit is None else f"{_sign(metric)} {limit:g}{unit}",
        "exact": exact,
        "passed": figure["pass"],
        "bar": bar(metric, figure["value"], limit, exact),
    }


def _files(manifest: Manifest) -> Sequence[tuple[str, str, int, str]]:
    """(path, what it is, bytes, sha256), the largest first."""
    entries = range(len(manifest.entries))
    known = _FILES | dict.fromkeys(map(record_path, entries), "figures of this page")
    known |= dict.fromkeys(map(kept_in, entries), "edits that passes decided on")
    rows = []
    for f in manifest.files:
        path = Path(f.path)
        what = known.get(path.name, _KINDS.get(path.suffix, ""))
        rows.append((f.path, what, f.bytes, f.sha256))
    return sorted(rows, key=lambda row: (-row[2], row[0]))
