"""One record of a compile, and its views: JSON and terminal text. No logic in renderers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "artifact_text",
    "bytes_text",
    "table",
    "text_of_bench",
    "text_of_compile",
    "text_of_entries",
    "text_of_estimate",
    "text_of_manifest",
    "text_of_parity",
]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A plain-text table with aligned columns."""
    cells = [list(head), *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def bytes_text(count: int) -> str:
    """Bytes for people, in decimal units."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _figure(metric: str, figure: Mapping[str, Any]) -> list[str]:
    better = ">=" if metric in ("psnr_db", "sqnr_db", "cosine", "top1_agreement") else "<="
    value = "exact" if figure.get("exact") else _number(figure["value"])
    verdict = "pass" if figure["pass"] else "FAIL"
    limit = f"{better} {figure['limit']:g}" if "limit" in figure else ""
    return [metric, value, limit, verdict]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3g}"


def text_of_parity(parity: Mapping[str, Any]) -> str:
    """The parity certificate: whole-network gates, replay, first divergent node."""
    rows = [_figure(m, f) for m, f in parity["figures"].items()]
    lines = [table(("parity", "measured", "gate", ""), rows)]
    data = "synthetic samples" if parity["synthetic"] else "samples"
    agreement = parity["top1_agreement"]
    task = "not measured" if agreement is None else f"{agreement:.4f}"
    lines.append(f"on {parity['samples']} {data}; arg-max agreement: {task}")
    lines.append(f"replayed node by node: {parity['replayed']} values, {_replay_line(parity)}")
    lines += _routing_lines(parity)
    drop = parity["psnr_drop"]
    if drop is not None:
        what = "first below the gate" if drop["below_gate"] else "lowest"
        lines.append(
            f"accumulated error: {what} at {drop['op']} {drop['node']!r}: {drop['psnr_db']} dB"
        )
    lines += _float16_lines(parity)
    return "\n".join(lines)


def _routing_lines(parity: Mapping[str, Any]) -> list[str]:
    """What routers choose when the artifact runs by itself; a manifest does not hold it."""
    found = parity.get("routing") or ()
    if not found:
        return []
    shared, every = (sum(sets[key] for sets in found) for key in ("shared", "capacity"))
    return [
        f"routing of {len(found)} mixtures: {shared} of {every} tokens are those that the "
        "reference's routers choose"
    ]


def _float16_lines(parity: Mapping[str, Any]) -> list[str]:
    lines = []
    if parity["fp16_accumulate_psnr_db"] is not None:
        lines.append(
            f"with sums in float16 too: {parity['fp16_accumulate_psnr_db']:.1f} dB. Both "
            "figures are of\nthe evaluator's specified arithmetic, not of the neural "
            "engine's own"
        )
    return lines + [_large_line(large) for large in parity["large"]]


def _large_line(large: Mapping[str, Any]) -> str:
    where = f"{large['op']} {large['node']!r}"
    # JSON has no infinity: the largest float stands for what is not finite.
    if large["peak"] >= sys.float_info.max:
        return f"not finite: {where} gives NaN or infinity"
    return f"near the end of float16's range: {where} reaches {large['peak']:g}"


def _replay_line(parity: Mapping[str, Any]) -> str:
    first = parity["first_divergent"]
    if first is not None:
        return (
            f"first past its tolerance: {first['op']} {first['node']!r} "
            f"(error {first['error']}, limit {first['limit']})"
        )
    if parity.get("unjudged"):  # a manifest keeps the judged ones only
        return f"{len(parity['unjudged'])} without a derived tolerance: not judged"
    if not parity["worst"]:
        return "none comparable"
    worst = parity["worst"][0]
    return f"all within their derived tolerances (closest: {worst['op']} {worst['node']!r})"


def text_of_compile(result: Mapping[str, Any], verbose: bool) -> str:
    """The terminal view of a compile; ends with one line PASS or FAIL, why, where."""
    lines = [
        f"{result['bundle'] or '(dry run)'}  for {result['target']}"
        f" ({result['backend']}, {result['precision']})",
        "",
        table(
            ("pass", "effect", "changed", "refused"),
            [
                (p["spec"], p["effect"], p["changed"], len(p["refused"]))
                for p in result["passes"]
                if verbose or p["changed"] or p["refused"]
            ],
        ),
        "",
    ]
    lines += [*_refusals(result), *_notes(result)] if verbose else []
    lines += [_coverage_line(result["coverage"]), _cost_line(result)]
    if result["parity"] is not None:
        lines += ["", text_of_parity(result["verification"])]
    lines += text_of_entries(result["entries"])
    lines += [f"warning: {w}" for w in result["warnings"]]
    lines += ["", _verdict(result)]
    return "\n".join(lines)


def text_of_entries(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the input shapes and their figures, where there are several.

    Args:
        entries: Each with ``shapes``, ``artifacts`` and ``parity`` (figures or ``None``).
    """
    if len(entries) < 2:
        return []
    rows = []
    for index, entry in enumerate(entries):
        shapes = " ".join(f"{n}={','.join(map(str, s))}" for n, s in entry["shapes"].items())
        figures = (_figure(m, f) for m, f in (entry["parity"] or {}).items())
        verdicts = "; ".join(" ".join(filter(None, cells)) for cells in figures)
        rows.append((index, shapes, ", ".join(entry["artifacts"]), verdicts or "not measured"))
    return ["", table(("entry", "input shapes", "artifact", "parity"), rows)]


def _refusals(result: Mapping[str, Any]) -> list[str]:
    found = [
        (p["spec"], r["node"], r["reason"]) for p in result["passes"] for r in p["refused"]
    ]
    return [table(("refused by", "node", "reason"), found), ""] if found else []


def _notes(result: Mapping[str, Any]) -> list[str]:
    found = [
        (p["spec"], n["node"] or "all", n["text"], _gain(n["gain_db"]))
        for p in result["passes"]
        for n in p["notes"]
    ]
    return [table(("pass", "layer", "note", "SQNR"), found), ""] if found else []


def _gain(value: float | None) -> str:
    return "" if value is None else f"{value:+.1f} dB"


def _coverage_line(coverage: Mapping[str, Any]) -> str:
    nodes, done = coverage["nodes"], coverage["on_target"]
    share = 100 * done / nodes if nodes else 100
    return f"coverage {share:.1f} % ({done} of {nodes} source nodes)"


def _cost_line(result: Mapping[str, Any]) -> str:
    cost, size = result["cost"], sum(f["bytes"] for f in result["files"])
    line = (
        f"{cost['macs'] / 1e6:.1f} M multiply-accumulates, {cost['params'] / 1e6:.2f} M "
        f"parameters, {bytes_text(size)} on disk"
    )
    guess = text_of_estimate(cost)
    several = " (entry 0)" if len(result["entries"]) > 1 else ""
    return f"{line}\n{guess}{several}" if guess else line


def text_of_estimate(cost: Mapping[str, Any]) -> str:
    """Latency and energy on one line that says what they are; empty without an estimate."""
    parts = []
    for key, unit in (("latency_ms", "ms"), ("energy_mj", "mJ")):
        found = cost[key]
        if found is not None:
            parts.append(f"{found['mid']:g} {unit} ({found['low']:g} to {found['high']:g})")
    return f"estimate, not measured: {', '.join(parts)} a run" if parts else ""


def _verdict(result: Mapping[str, Any]) -> str:
    if result["parity"] is None:
        return "NOT VERIFIED: " + str(result["unverified_because"])
    return "PASS: the shipped artifact computes what the source model computes"


def text_of_manifest(manifest: Mapping[str, Any]) -> str:
    """What a bundle's manifest says, for people."""
    size = sum(f["bytes"] for f in manifest["files"])
    rows = [
        ("bundle", f"{manifest['name']} version {manifest['version']}"),
        ("target", f"{manifest['target']} ({manifest['backend']}, {manifest['precision']})"),
        ("source sha256", manifest["source_sha256"]),
        ("digest", manifest["digest"]),
        ("size", f"{bytes_text(size)} in {len(manifest['files'])} files"),
        ("made with", ", ".join(f"{k} {v}" for k, v in sorted(manifest["tools"].items()))),
    ]
    for entry in manifest["entries"]:
        for kind in ("inputs", "outputs"):
            for t in entry[kind]:
                rows.append((kind[:-1], f"{t['name']} {t['dtype']} {t['shape']}"))
    lines = [table(("", ""), rows).split("\n", 2)[2], "", _coverage_line(manifest["coverage"])]
    parity = manifest["parity"]
    if parity is not None:
        measured = parity["measured"]
        where = (
            f"measured with {measured['engine']} {measured['version']} on {measured['arch']}"
        )
        lines += ["", text_of_parity(parity), where]
    lines += [*text_of_entries(_entries(manifest)), *_whole_notes(manifest)]
    verdict = "PASS" if manifest["verified"] else "NOT VERIFIED: "
    return "\n".join([*lines, "", verdict + manifest["unverified_because"]])


def _whole_notes(manifest: Mapping[str, Any]) -> list[str]:
    """What passes note of the whole model: sizes, modelled energies."""
    found = [
        (p["spec"], p["effect"], [n["text"] for n in p["notes"] if not n["node"]])
        for p in manifest["passes"]
    ]
    lines = []
    for spec, effect, texts in found:
        if texts:
            lines += ["", f"{spec} ({effect})", *(f"  {text}" for text in texts)]
    return lines


def _entries(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Entries of a manifest as ``compile --json`` lists them."""
    measured = manifest["entry_parity"] or [None] * len(manifest["entries"])
    return [
        {
            "shapes": {i["name"]: i["shape"] for i in entry["inputs"]},
            "artifacts": [artifact_text(p["artifact"], p["function"]) for p in entry["parts"]],
            "parity": None if parity is None else parity["figures"],
        }
        for entry, parity in zip(manifest["entries"], measured, strict=True)
    ]


def artifact_text(artifact: str, function: str | None) -> str:
    """An artifact and, if it holds several, the function or signature: ``m.tflite#1x3``."""
    return artifact if function is None else f"{artifact}#{function}"


def text_of_bench(entries: Sequence[Mapping[str, Any]]) -> str:
    """The timing table."""
    rows = []
    for e in entries:
        r = e["ratio_to_first"]
        rows.append(
            (
                e["label"],
                f"{e['engine']} {e['version']}".strip(),
                e["threads"],
                f"{e['p50_ms']:.2f}",
                f"{e['p90_ms']:.2f}",
                f"{e['cpu_ms']:.2f}",
                f"{e['rss_mb']:.0f}",
                f"{r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}]",
            )
        )
    times = ("p50 ms", "p90 ms", "cpu ms")
    return table(("subject", "engine", "threads", *times, "MiB", "ratio [95 %]"), rows)
