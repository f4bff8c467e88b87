"""``edgevit compile`` when all goes well."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Compiled, Ran, edgevit

SHA256 = re.compile(r"[0-9a-f]{64}")


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_envelope(compiled: Compiled) -> None:
    envelope = compiled.ran.envelope
    assert set(envelope) == {"schema", "command", "status", "result"}
    assert (envelope["command"], envelope["status"]) == ("compile", "ok")
    assert compiled.ran.out.count("\n") == 1


def test_the_result_names_the_bundle_and_its_files(compiled: Compiled) -> None:
    result = compiled.ran.result
    assert Path(result["bundle"]) == compiled.bundle
    assert result["target"] == "linux-x86"
    assert (result["backend"], result["precision"]) == ("litert", "fp32")
    on_disk = _files(compiled.bundle)
    listed = {f["path"]: f for f in result["files"]}
    assert set(listed) == set(on_disk) - {"manifest.json"}
    for path, record in listed.items():
        assert record["bytes"] == len(on_disk[path])
        assert record["sha256"] == hashlib.sha256(on_disk[path]).hexdigest()


def test_the_result_tells_what_was_done(compiled: Compiled) -> None:
    result = compiled.ran.result
    changed = {p["spec"]: p["changed"] for p in result["passes"]}
    # Two transformer blocks; every SiLU of the convolutional stages was two nodes.
    assert changed["recover-attention"] == 2
    assert changed["recover-activations"] == 10
    assert changed["recover-layer-norm"] == 0
    for entry in result["passes"]:
        assert set(entry) == {"spec", "effect", "changed", "refused", "notes"}
        assert entry["effect"] in ("exact", "bounded", "calibrated", "trained")
        for refusal in entry["refused"]:
            assert refusal["reason"]
    coverage = result["coverage"]
    assert coverage["nodes"] == coverage["on_target"] > 50
    assert coverage["fallback"] == []
    assert isinstance(result["placement"], list)
    assert result["seconds"] > 0
    cost = result["cost"]
    assert cost["bytes"] == sum(f["bytes"] for f in result["files"])
    # The network has 81,098 trained parameters; folding norms and constants takes some away.
    assert 0.9 * 81_098 < cost["params"] <= 81_098
    assert cost["macs"] > 1e6


def test_parity_holds_with_room(compiled: Compiled) -> None:
    figure = compiled.ran.result["parity"]["max_rel"]
    parity = compiled.ran.result["verification"]
    assert figure["limit"] == 1e-4
    assert figure["pass"] is True
    assert 0 < figure["value"] < 1e-5
    assert parity["first_divergent"] is None
    assert parity["replayed"] > 30
    assert parity["synthetic"] is True
    assert parity["top1_agreement"] is None, "synthetic samples measure no task"
    assert parity["reference"]["engine"] == "onnxruntime"
    for worst in parity["worst"]:
        assert worst["error"] <= worst["limit"]


def test_progress_goes_to_stderr(compiled: Compiled) -> None:
    lines = compiled.ran.err.splitlines()
    steps = [line.split()[0] for line in lines]
    assert steps == [
        "load",
        "canonicalize",
        "optimize",
        "partition",
        "lower",
        "reference",
        "stage",
        "verify",
    ]
    assert "\x1b" not in compiled.ran.err


def test_a_saved_recipe_makes_the_same_bytes(compiled: Compiled, tmp_path: Path) -> None:
    out = tmp_path / "hybrid.edgevit"
    arguments = ("compile", compiled.model, "--recipe", compiled.recipe, "-o", out)
    ran = edgevit(*arguments, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert _files(out) == _files(compiled.bundle)
    # Without --json the report is for people and ends with the verdict.
    assert ran.out.splitlines()[-1].startswith("PASS")
    assert "coverage 100.0 %" in ran.out


@pytest.fixture(scope="module")
def quiet(compiled: Compiled, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """A dry run that overrides the recipe, and says nothing."""
    folder = tmp_path_factory.mktemp("dry")
    options = ["--recipe", compiled.recipe, "--target", "onnx", "--dry-run", "-q"]
    return edgevit("compile", compiled.model, *options, cwd=folder), folder


def test_a_dry_run_writes_nothing_and_quiet_says_nothing(quiet: tuple[Ran, Path]) -> None:
    ran, folder = quiet
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert list(folder.iterdir()) == []


def test_the_command_line_wins_over_the_recipe(compiled: Compiled, tmp_path: Path) -> None:
    options: list[Any] = ["--recipe", compiled.recipe, "--target", "onnx", "--dry-run"]
    options += ["--no-verify", "--bundle-version", "7", "--json"]
    ran = edgevit("compile", compiled.model, *options, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.result["target"] == "onnx:cpu=any"
    assert ran.result["bundle"] is None
    assert ran.result["parity"] is None
    assert "--no-verify" in ran.result["unverified_because"]
    assert ran.result["files"]
    assert list(tmp_path.iterdir()) == []
