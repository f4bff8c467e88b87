"""What the package offers by name, and what asking for it costs."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.sources import REPO, modules

HEAVY = frozenset(
    {"numpy", "PIL", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "networkx", "pydantic"}
    | {
        "rich",
        "jinja2",
        "scipy",
        "coremltools",
        "ai_edge_litert",
        "flatbuffers",
        "torch",
        "tvm",
    }
)
# Scripts: run with -m, they offer no names.
SCRIPTS = frozenset({"edgevit.__main__"})


def declared(path: Path) -> list[str] | None:
    """The value of ``__all__`` by reading, not importing."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            found: list[str] = ast.literal_eval(node.value)
            return found
    return None


def with_code() -> list[str]:
    """Modules that hold more than a docstring."""
    found = []
    for name, path in modules().items():
        body = ast.parse(path.read_text(encoding="utf-8")).body
        if name not in SCRIPTS and any(not isinstance(n, ast.Expr) for n in body):
            found.append(name)
    return found


@pytest.mark.parametrize("name", with_code())
def test_a_module_says_what_it_offers(name: str) -> None:
    offered = declared(modules()[name])
    assert offered is not None, f"{name} has no __all__"
    assert len(offered) == len(set(offered))
    module = importlib.import_module(name)
    missing = [n for n in offered if not hasattr(module, n)]
    assert missing == []


def loaded_by(program: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a program."""
    script = f"{program}\nimport json, sys\nprint(); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


QUICK = {
    "import": "import edgevit",
    "help": """
import edgevit.cli
try:
    edgevit.cli.main(["--help"])
except SystemExit:
    pass""",
    "help of a command": """
import edgevit.cli
try:
    edgevit.cli.main(["compile", "--help"])
except SystemExit:
    pass""",
    "names": "import edgevit.registry as r; r.names('engines'); r.names('passes')",
    "manifest": "import edgevit.bundle",
}


@pytest.mark.parametrize("name", QUICK)
def test_starting_loads_nothing_heavy(name: str) -> None:
    assert loaded_by(QUICK[name]) & HEAVY == set()


def test_the_list_of_heavy_modules_can_catch_one() -> None:
    assert loaded_by("import edgevit.parity") & HEAVY == {"numpy"}


def test_the_device_side_loads_no_compiler_module() -> None:
    program = "import edgevit.runtimes.session, edgevit.runtimes.child, edgevit.preprocess"
    assert loaded_by(program) & HEAVY <= {"numpy", "PIL"}
