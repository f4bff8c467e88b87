"""Who may import whom: the right-hand column of the architecture's table."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.sources import ROOMS, Import, imports, modules

# Shapes is a part of model in a file of its own; the registry holds strings only.
PASSES = (
    {
        f"edgevit.{m}"
        for m in (
            "model",
            "shapes",
            "views",
            "rewrite",
            "pipeline",
            "calibration",
            "reference",
            "reference_stream",
        )
    }
    | {
        f"edgevit.{m}"
        for m in (
            "target",
            "cost",
            "energy",
            "bridges",
            "flow",
            "mixing",
            "errors",
            "registry",
            "passes",
        )
    }
    | {
        f"edgevit.{m}"
        for m in (
            "quantization",
            "quantizers",
            "integer",
            "observers",
            "channel_observer",
            "ranges",
            "quantizers",
            "statistics",
            "edits",
            "estimate",
            "layer_rules",
            "attention",
            "shift_codes",
            "parity",
            "torchgraph",
        )
    }
)
RUNTIMES = {
    f"edgevit.{m}"
    for m in (
        "bundle",
        "manifest",
        "preprocess",
        "errors",
        "registry",
        "parity",
        "trust",
        "runtimes",
    )
}
# A device has none of these.
COMPILER_ONLY = frozenset({"onnx", "onnx_ir", "onnxscript", "networkx", "pydantic", "jinja2"})
# The public names of the package are a map of strings; a type checker needs the imports.
LAZY = "edgevit"


def room_of(module: str) -> str:
    """``"passes"``, ``"runtimes"``, ``"sim4f"``, ``"targets"`` or ``"core"``."""
    parts = module.split(".")
    if parts[0] != "edgevit":
        return ""
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "core"


def under(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


def verdict(module: str, found: Import) -> str | None:
    """Why ``module`` may not have this import; ``None`` if it may."""
    if found.module.startswith("."):
        return "relative import"
    if found.module.split(".")[0] in ROOMS:
        return "a room under its bare name"
    return RULES[room_of(module)](module, found)


def _core(module: str, found: Import) -> str | None:
    if module == LAZY and found.typing_only:
        return None
    bad = room_of(found.name) not in ("", "core")
    return "the core reaches rooms through the registry only" if bad else None


def _passes(module: str, found: Import) -> str | None:
    bad = room_of(found.name) != "" and not under(found.name, PASSES)
    return "not among what passes may import" if bad else None


def _targets(module: str, found: Import) -> str | None:
    room = room_of(found.name)
    optical = module.startswith("edgevit.targets.optical") and room == "sim4f"
    bad = room in ("runtimes", "passes", "sim4f") and not optical
    return "targets import the core only" if bad else None


def _runtimes(module: str, found: Import) -> str | None:
    top = found.module.split(".")[0]
    if top in COMPILER_ONLY and not found.typing_only:
        return "a device does not have it"
    if module == "edgevit.runtimes.optical" and room_of(found.name) == "sim4f":
        return None
    bad = room_of(found.name) != "" and not under(found.name, RUNTIMES)
    return "not among what runtimes may import" if bad else None


def _sim4f(module: str, found: Import) -> str | None:
    top = found.module.split(".")[0]
    bad = room_of(found.name) not in ("", "sim4f") or top in COMPILER_ONLY
    return "sim4f knows nothing of edgevit or ONNX" if bad else None


RULES: dict[str, Callable[[str, Import], str | None]] = {
    "core": _core,
    "passes": _passes,
    "targets": _targets,
    "runtimes": _runtimes,
    "sim4f": _sim4f,
}


def test_every_import_is_allowed() -> None:
    bad = [
        f"{path}:{found.line}: {found.name}: {why}"
        for module, path in modules().items()
        for found in imports(path)
        if (why := verdict(module, found)) is not None
    ]
    assert bad == []


FORBIDDEN = [
    ("edgevit.api", "from edgevit.passes.x import y"),
    ("edgevit.api", "import edgevit.runtimes"),
    ("edgevit.api", "from edgevit import targets"),
    ("edgevit.api", "def f():\n    import edgevit.sim4f.lens"),
    ("edgevit.api", "from passes import x"),
    ("edgevit.api", "from . import errors"),
    ("edgevit.passes.x", "from edgevit.bundle import Part"),
    ("edgevit.passes.x", "from edgevit import api"),
    ("edgevit.passes.x", "from edgevit.targets.onnx import lower"),
    ("edgevit.targets.onnx.lower", "from edgevit.runtimes.ort import OrtEngine"),
    ("edgevit.targets.onnx.lower", "import edgevit.sim4f"),
    ("edgevit.runtimes.ort", "import onnx"),
    ("edgevit.runtimes.ort", "def f():\n    import networkx as nx"),
    ("edgevit.runtimes.ort", "from edgevit.model import constant"),
    ("edgevit.runtimes.ort", "from edgevit import target"),
    ("edgevit.runtimes.ort", "from edgevit.sim4f import lens"),
    ("edgevit.sim4f.lens", "from edgevit.errors import UsageError"),
    ("edgevit.sim4f.lens", "import onnx_ir as ir"),
]
ALLOWED = [
    ("edgevit.api", "from edgevit import registry, bundle"),
    ("edgevit", "if TYPE_CHECKING:\n    from edgevit.runtimes.session import load"),
    ("edgevit.passes.x", "from edgevit.model import constant\nimport onnx_ir as ir"),
    ("edgevit.passes.x", "from edgevit.passes.y import z"),
    ("edgevit.targets.onnx.lower", "from edgevit.bundle import Part"),
    ("edgevit.targets.optical.lower", "from edgevit.sim4f import tiling"),
    ("edgevit.runtimes.ort", "import onnxruntime\nfrom edgevit.bundle import Part"),
    ("edgevit.runtimes.optical", "from edgevit.sim4f import lens"),
    ("edgevit.sim4f.lens", "import numpy as np\nfrom edgevit.sim4f import noise"),
]


def verdicts(tmp_path: Path, module: str, source: str) -> list[str | None]:
    ast.parse(source)
    (tmp_path / "x.py").write_text(source, encoding="utf-8")
    return [verdict(module, found) for found in imports(tmp_path / "x.py")]


@pytest.mark.parametrize(("module", "source"), FORBIDDEN)
def test_the_rules_reject(tmp_path: Path, module: str, source: str) -> None:
    assert any(verdicts(tmp_path, module, source))


@pytest.mark.parametrize(("module", "source"), ALLOWED)
def test_the_rules_accept(tmp_path: Path, module: str, source: str) -> None:
    found = verdicts(tmp_path, module, source)
    assert found
    assert not any(found)
