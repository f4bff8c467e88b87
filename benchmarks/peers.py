"""Public converters next to which our artifacts and our compiler are measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus.packages import fetch_model
from benchmarks.corpus.store import CACHE, ROOT, CorpusUnavailableError

__all__ = [
    "MODELS",
    "ONNX2TF",
    "ORACLES",
    "PeerModel",
    "environment_of",
    "machine",
    "onnx2tf",
    "onnx2tf_command",
    "operators",
    "ours_command",
]

ONNX2TF = ROOT / ".venv-onnx2tf"  # Python 3.12
ORACLES = ROOT / ".venv-oracles"
_TIMEOUT_S = 600


@dataclass(frozen=True)
class PeerModel:
    """One model file.

    Attributes:
        name: Shown in the tables.
        file: In ``.cache/models``.
        shapes: Input name -> shape, for symbolic dimensions.
    """

    name: str
    file: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def find(self) -> Path:
        """The file.

        Raises:
            CorpusUnavailableError: It has not been fetched or exported.
        """
        path = CACHE / "models" / self.file
        if self.name == "ppocrv4_rec":
            return fetch_model(self.name)
        if not path.is_file():
            raise CorpusUnavailableError(path.name, reason="`make zoo-models` exports it")
        return path

    def texts(self, separator: str) -> list[str]:
        """``shapes`` as ``name<separator>1,3,48,320``."""
        return [f"{n}{separator}{','.join(map(str, d))}" for n, d in self.shapes.items()]


MODELS = (
    PeerModel("ppocrv4_rec", "ppocrv4_rec.onnx", {"x": (1, 3, 48, 320)}),
    PeerModel("deit_tiny", "deit_tiny_patch16_224_ts.onnx"),
    PeerModel("mobilevit_xxs", "mobilevit_xxs_ts.onnx"),
    PeerModel("efficientformerv2_s0", "efficientformerv2_s0_ts.onnx"),
)


def environment_of(folder: Path) -> dict[str, str]:
    """The environment of a converter: it starts helper programs by name."""
    return {**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def onnx2tf_command(model: PeerModel, out: Path, *options: str) -> list[str]:
    """onnx2tf's command line, with its direct flatbuffer writer (the default).

    It reads a copy, made here: it simplifies its input in place, and the model is others' too.
    """
    shapes = model.texts(":")
    copy = out.with_name(f"{out.name}-input") / model.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.find(), copy)
    command = [str(ONNX2TF / "bin" / "onnx2tf"), "-i", str(copy), "-o", str(out)]
    return [*command, *options, *(["-ois", *shapes] if shapes else [])]


def ours_command(model: PeerModel, target: str, out: Path) -> list[str]:
    """Our command line, without verification."""
    command = [sys.executable, "-m", "edgevit", "compile", str(model.find())]
    command += ["--target", target, "--output", str(out), "--overwrite", "--no-verify"]
    return [*command, *(t for text in model.texts("=") for t in ("--shape", text)), "--quiet"]


def onnx2tf(model: PeerModel, folder: Path) -> Path:
    """Convert with onnx2tf; the float32 file.

    Raises:
        CorpusUnavailableError: Its environment is not there.
        RuntimeError: It wrote no file.
    """
    if not (ONNX2TF / "bin" / "onnx2tf").exists():
        raise CorpusUnavailableError(ONNX2TF.name, reason="run make onnx2tf-env")
    out = folder / f"{model.name}-onnx2tf"
    done = subprocess.run(
        onnx2tf_command(model, out),
        env=environment_of(ONNX2TF),
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    found = out / f"{Path(model.file).stem}_float32.tflite"
    if done.returncode or not found.is_file():
        raise RuntimeError(f"onnx2tf wrote no {found.name}:\n{done.stderr[-2000:]}")
    return found


def operators(path: Path) -> Counter[str]:
    """How many operators of each kind a ``.tflite`` file has."""
    from ai_edge_litert import schema_py_generated as schema

    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return Counter(names[codes[o.opcodeIndex]] for g in model.subgraphs for o in g.operators)


def machine() -> str:
    """CPU model and number of cores, for the head of a table."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores"
