"""The package's source files, and what each of them imports."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
ROOMS = ("passes", "runtimes", "sim4f", "targets")


@dataclass(frozen=True)
class Import:
    """One imported name: ``from a import b`` is ``a.b``, and module ``a``."""

    module: str
    name: str
    line: int
    typing_only: bool


def project() -> dict[str, Any]:
    """``pyproject.toml``."""
    return tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))


def modules() -> dict[str, Path]:
    """Module name -> file, of everything that is packaged."""
    found = {}
    for room in ("edgevit", *ROOMS):
        for path in sorted((REPO / room).rglob("*.py")):
            parts = path.relative_to(REPO).with_suffix("").parts
            # The links in edgevit/ show the rooms a second time.
            if parts[0] == "edgevit" and len(parts) > 1 and parts[1] in ROOMS:
                continue
            whole = parts if parts[0] == "edgevit" else ("edgevit", *parts)
            found[".".join(whole).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> list[Import]:
    """Every import of a file, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    return [
        Import(module, name, node.lineno, node in guarded)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module, name in _named(node)
    ]


def _named(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, alias.name) for alias in node.names)
        return
    module = "." * node.level + (node.module or "")
    yield from ((module, f"{module}.{alias.name}") for alias in node.names)
