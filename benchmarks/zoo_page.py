"""The zoo as a table, for the terminal and as a static page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.zoo_cells import Record

__all__ = ["HEAD", "markdown", "page", "rows"]

HEAD = ("model", "nodes", "canonical", "blocks", "target", "coverage", "transposes", "MB",
        "s", "parity", "gate", "accuracy", "")  # fmt: skip
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
        made.append((model, *_form(form), label, *_cell(cell), *_end(cell, right)))
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


def page(table: Iterable[Sequence[str]], failures: Iterable[str]) -> str:
    """A page without scripts or foreign files."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in HEAD)
    body = "\n".join(_row(row) for row in table)
    listed = "\n".join(f"<li>{html.escape(line)}</li>" for line in failures)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>edgevit: the zoo</title>
<style>body{{font:14px sans-serif;margin:2em}}table{{border-collapse:collapse}}
td,th{{border:1px solid #ccc;padding:.2em .5em;text-align:left}}
.FAIL{{background:#fdd}}.skipped{{background:#eee}}</style>
<h1>The zoo</h1>
<p>Each model compiled and verified by running what was compiled, against ONNX Runtime on the
source model.</p>
<table><tr>{head}</tr>
{body}
</table>
<h2>Failures</h2><ul>
{listed}
</ul></html>
"""


def _row(row: Sequence[str]) -> str:
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in row)
    return f'<tr class="{row[-1]}">{cells}</tr>'
