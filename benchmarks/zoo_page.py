"""The zoo as a table, for the terminal and as a static page."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.zoo_cells import Record

__all__ = ["HEAD", "markdown", "page", "rows"]

HEAD = ("model", "nodes", "canonical", "blocks", "target", "coverage", "transposes", "MB",
        "s", "parity", "gate", "accuracy", "code", "")  # fmt: skip
_NUMBERS = frozenset({"nodes", "canonical", "coverage", "transposes", "MB", "s"})
Records = Mapping[tuple[str, str], Record]


def rows(found: Records, cells: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """One row a model and target that was measured, in the order of ``cells``."""
    made = []
    for model, what in cells:
        form, cell = found.get((model, "form")), found.get((model, what))
        kind, _, label = what.partition(" ")
        if kind != "compile" or cell is None or form is None:
            continue
        right = found.get((model, f"accuracy {label}"))
        accuracy, verdict = _end(cell, right)
        row = (model, *_form(form), label, *_cell(cell), accuracy, cell.code or "-", verdict)
        made.append(row)
    return made


def _form(record: Record) -> tuple[str, str, str]:
    if not record.figures:
        return "-", "-", "-"
    blocks = record.figures["blocks"]
    text = ", ".join(f"{count} {op}" for op, count in blocks.items())
    return str(record.figures["before"]), str(record.figures["after"]), text


def _cell(record: Record) -> tuple[str, ...]:
    f = record.figures
    if not f or not f["metric"]:
        return ("-",) * 6
    value = "exact" if f["value"] is None else f"{f['metric']} {f['value']:.3g}"
    sign = ">=" if f["metric"] == "psnr_db" else "<="
    return (
        f"{100 * f['coverage']:.0f} %",
        str(f["transposes"]),
        f"{f['size'] / 1e6:.1f}",
        f"{f['seconds']:.1f}",
        value,
        f"{sign} {f['limit']:g}",
    )


def _end(cell: Record, right: Record | None) -> tuple[str, str]:
    verdict = "skipped" if cell.skipped else "FAIL" if cell.error else "pass"
    if right is None:
        return "", verdict
    if not right.figures:
        return "-", "FAIL"
    f = right.figures
    text = f"{f['artifact']:.3f}, source {f['source']:.3f} (n={f['samples']})"
    return text, "FAIL" if right.error else verdict


def markdown(table: Iterable[Sequence[str]], failures: Iterable[str]) -> str:
    """The table for ``benchmarks/RESULTS-zoo.md``, and what failed."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    lines += ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([*lines, "", *(f"- {line}" for line in failures)]).rstrip() + "\n"


def page(table: Sequence[Sequence[str]], failures: Sequence[str]) -> str:
    """A page without scripts or foreign files."""
    head = "".join(map(_cell_of("th"), HEAD, HEAD))
    body = "\n".join(map(_row, table))
    codes = len({row[-2] for row in table})
    listed = "\n".join(f"<li>{html.escape(line)}</li>" for line in failures)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>edgevit: the zoo</title>
<style>:root{{color-scheme:light dark}}
body{{font:12px/1.4 system-ui,"DejaVu Sans",sans-serif;margin:2em}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums}}
td,th{{border-bottom:1px solid #8885;padding:.25em .5em;text-align:left;white-space:nowrap}}
td:nth-child(4){{white-space:normal;min-width:9em}}.n{{text-align:right}}
tr.FAIL{{background:#e553}}tr.skipped{{background:#8883}}</style>
<h1>The zoo</h1>
<p>Each model compiled and verified by running what was compiled, against ONNX Runtime on the
source model. {len(table)} artifacts, {len(failures)} misses; <code>code</code> is a digest
of the compiler's sources that measured a row, {codes} in all.</p>
<table><tr>{head}</tr>
{body}
</table>
{f"<h2>Misses</h2><ul>{listed}</ul>" if failures else ""}</html>
"""


def _cell_of(tag: str) -> Callable[[str, str], str]:
    def cell(text: str, column: str) -> str:
        number = ' class="n"' * (column in _NUMBERS)
        return f"<{tag}{number}>{html.escape(text)}</{tag}>"

    return cell


def _row(row: Sequence[str]) -> str:
    return f'<tr class="{row[-1]}">{"".join(map(_cell_of("td"), row, HEAD))}</tr>'
