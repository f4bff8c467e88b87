"""What quantizing the ViT-S/14 costs: processor seconds and peak memory, ours and NNCF's.

    python -m benchmarks.quantization.cost [LABEL ...]

Each row is one process tree, one after the other, from the float model to the artifact and
without verification, as nobody else has one. Processor seconds hardly change with other load;
peak memory is the largest sum of resident memory over the tree, sampled. "full recipe" is that
of the named recipe ``hybrid-w8a8``: ``bridge-quant``, then weights chosen together.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import machine
from benchmarks.quantization.cases import CALIBRATION, Case, choose
from benchmarks.quantization.cells import BUILD, file_name
from benchmarks.quantization.run import PEERS, calibration_file, compile_command, one_sample
from benchmarks.quantization.timing import timed

__all__ = ["ROWS", "Row"]

MANY = 512
_TIMEOUT_S = 1800
_FULL = "bridge-quant{weights=-1},compensate,sink-quantizers"


@dataclass(frozen=True)
class Row:
    """A quantizer and its number of samples.

    Attributes:
        label: Row of the table.
        samples: Calibration samples.
        precision: Of ours; empty: NNCF.
        passes: Of ours; empty: the precision's own.
    """

    label: str
    samples: int
    precision: str = ""
    passes: str = ""


ROWS = (
    Row("ours w8a8", CALIBRATION, "w8a8"),
    Row("NNCF transformer", CALIBRATION),
    Row("ours w8a8, many samples", MANY, "w8a8"),
    Row("full recipe w8a8", CALIBRATION, "w8a8", _FULL),
    Row("full recipe w8a8, many samples", MANY, "w8a8", _FULL),
    Row("ours w6a6", CALIBRATION, "w6a6"),
)


def command(case: Case, row: Row, out: Path) -> list[str]:
    """What is timed."""
    data = calibration_file(case, row.samples)
    if not row.precision:
        tool = [str(PEERS / "bin" / "python"), "-m", "benchmarks.quantization.quantizers"]
        return [*tool, "nncf-w8a8-transformer", str(case.find()), str(data), f"{out}.xml"]
    made = compile_command(case, "onnx:cpu=vnni", row.precision, Path(f"{out}.edgevit"))
    passes = ["--passes", row.passes] if row.passes else []
    # All samples calibrate; without --inputs the last fifth would be kept out.
    return [*made, "--calib", str(data), "--inputs", str(one_sample(case)), *passes]


def main() -> None:
    """Print a Markdown table."""
    (case,) = choose(["vit_s_probe"])
    print(f"{case.name}; {machine()}\n")
    print("| quantizer | samples | CPU s | elapsed, s | peak, MB |\n|---|---|---|---|---|")
    for row in ROWS:
        if sys.argv[1:] and row.label not in sys.argv[1:]:
            continue
        out = BUILD / "cost" / file_name(case.name, row.label)
        out.parent.mkdir(parents=True, exist_ok=True)
        done = timed(command(case, row, out), out.with_suffix(".streams"), _TIMEOUT_S)
        said = (
            f"{done.cpu_s:.1f} | {done.seconds:.0f} | {done.peak_mb:.0f}"
            if not done.status
            else f"fails: {(done.errors or done.output).strip().splitlines()[-1][:160]} | | "
        )
        print(f"| {row.label} | {row.samples} | {said} |", flush=True)


if __name__ == "__main__":
    main()
