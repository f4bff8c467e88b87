"""Gates: what fails leaves nothing at OUT, says why and where, and ends with exit code 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgevit
from edgevit.describe import meant_to_differ
from edgevit.errors import ArtifactError
from edgevit.manifest import PassEntry
from tests.support.cli import FIXTURES, Ran, install_silence
from tests.support.cli import edgevit as run_edgevit

VIT = FIXTURES / "models" / "fashion_vit_ts.onnx"
# Two attentions, so five parts where attention falls back.
HYBRID = FIXTURES / "models" / "fashion_hybrid_ts.onnx"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    """A compile under a tolerance that only exact equality keeps."""
    folder = tmp_path_factory.mktemp("strict")
    text = 'extends = "linux-x86"\nname = "strict"\n[tolerance.fp32]\nmax_rel = 0.0\n'
    (folder / "strict.toml").write_text(text)
    options = ["--target-file", "strict.toml", "-o", "out.edgevit", "--keep-failed", "--json"]
    return run_edgevit("compile", VIT, *options, cwd=folder), folder


def test_a_failed_gate_is_exit_1_with_the_figures(strict: tuple[Ran, Path]) -> None:
    ran, _ = strict
    assert ran.code == 1
    assert ran.envelope["status"] == "failed"
    assert ran.error["code"] == "gate"
    assert "max_rel is" in ran.error["message"]
    assert "limit 0" in ran.error["message"]
    figure = ran.result["parity"]["max_rel"]
    assert figure["pass"] is False
    assert figure["value"] > 0


def test_a_pass_that_changes_the_function_is_named_and_a_budget_asked_for() -> None:
    """Limits of fp32 are those of rounding, which a mixture of experts cannot keep."""
    exact = PassEntry("fold-affine", "exact", 3, ())
    mixed, idle = (PassEntry("moe{share=0.4}", "calibrated", n, ()) for n in (2, 0))
    said = meant_to_differ("fp32", (exact, mixed))
    assert "moe{share=0.4}: not exact" in said
    assert "[budget]" in said
    assert meant_to_differ("fp32", (exact, idle)) == ""
    assert meant_to_differ("w8a8", (exact, mixed)) == ""


def test_only_the_failed_bundle_is_kept(strict: tuple[Ran, Path]) -> None:
    ran, folder = strict
    assert sorted(p.name for p in folder.iterdir()) == ["out.failed.edgevit", "strict.toml"]
    assert "out.failed.edgevit" in ran.error["hint"]
    assert (folder / "out.failed.edgevit" / "model.tflite").is_file()


def test_a_failed_bundle_is_not_loaded(strict: tuple[Ran, Path], call: Any) -> None:
    _, folder = strict
    failed = folder / "out.failed.edgevit"
    ran = call("run", failed, "--input", "x.npy", "--json")
    assert ran.code == 4
    assert "failed verification" in ran.error["message"]
    with pytest.raises(ArtifactError, match="failed verification"):
        edgevit.load(failed)
    renamed = folder / "renamed.edgevit"
    failed.rename(renamed)
    try:
        with pytest.raises(ArtifactError, match="failed verification"):
            edgevit.load(renamed)
    finally:
        renamed.rename(failed)


def test_a_failed_bundle_can_be_reported(strict: tuple[Ran, Path], call: Any) -> None:
    _, folder = strict
    ran = call("report", folder / "out.failed.edgevit", "--json")
    assert ran.code == 0
    assert ran.result["manifest"]["verified"] is False
    text = call("report", folder / "out.failed.edgevit").out
    assert "FAIL" in text
    assert text.rstrip().splitlines()[-1] == "NOT VERIFIED: a gate failed"


def test_a_pass_that_changes_the_function_is_caught_and_located(tmp_path: Path) -> None:
    """A third party's pass scales every weight by 0.99 and calls itself nothing worse."""
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    env = install_silence(site)
    options = ["--target", "toaster", "--passes", "silence{level=0.99}", "-o", "o.edgevit"]
    ran = run_edgevit("compile", VIT, *options, "--json", cwd=work, env=env)
    assert ran.code == 1, ran.err
    assert "first node past its tolerance" in ran.error["message"]
    first = ran.result["verification"]["first_divergent"]
    assert first["op"] == "Conv", "the patch embedding comes first"
    assert first["error"] > first["limit"]
    assert list(work.iterdir()) == []


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that has no attention: parts alternate between LiteRT and ONNX Runtime."""
    folder = tmp_path_factory.mktemp("picky")
    text = 'extends = "linux-x86"\nname = "picky"\nexclude_ops = ["Attention"]\n'
    (folder / "picky.toml").write_text(text)
    return folder


def test_nodes_left_over_are_exit_1_and_listed(picky: Path, call: Any) -> None:
    ran = call("compile", HYBRID, "--target-file", picky / "picky.toml", "--json")
    assert ran.code == 1
    assert ran.error["code"] == "unsupported"
    assert "2 of " in ran.error["message"]
    assert ran.error["message"].count("\n  Attention ") == 2
    assert "excludes Attention" in ran.error["message"]
    assert "--allow-fallback" in ran.error["hint"]
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture(scope="module")
def mixed(picky: Path) -> Ran:
    """The same, with fallback allowed."""
    options = ["--target-file", "picky.toml", "--allow-fallback", "-o", "mixed.edgevit"]
    return run_edgevit("compile", HYBRID, *options, "--json", cwd=picky)


def test_parts_alternate_and_pass(mixed: Ran, picky: Path) -> None:
    assert mixed.code == 0, mixed.err
    coverage = mixed.result["coverage"]
    assert [f["op"] for f in coverage["fallback"]] == ["Attention"] * 2
    # 112 nodes: 19 constants, 3 that compute a shape; an Attention stands for a Transpose,
    # two MatMul, a Mul and a Softmax.
    assert coverage["nodes"] == 112 - 19 - 3
    assert coverage["on_target"] == coverage["nodes"] - 2 * 5
    assert mixed.result["parity"]["max_rel"]["pass"] is True
    assert mixed.result["verification"]["first_divergent"] is None
    paths = {f["path"] for f in mixed.result["files"]}
    assert {p for p in paths if p.startswith("part")} == {
        *(f"part{i}.tflite" for i in (0, 2, 4)),
        *(f"part{i}.onnx" for i in (1, 3)),
    }


def test_a_mixed_bundle_verifies_with_its_device_file(
    mixed: Ran, picky: Path, call: Any
) -> None:
    bundle, file, changed = (
        picky / n for n in ("mixed.edgevit", "picky.toml", "changed.toml")
    )
    arguments = ("verify", bundle, "--against", HYBRID, "--json")
    ran = run_edgevit(*arguments, "--target-file", file, cwd=picky)
    assert ran.code == 0, ran.err
    assert ran.result["parity"]["max_rel"]["pass"] is True
    without = call(*arguments)
    assert without.code == 2
    assert "--target-file" in without.error["hint"]
    changed.write_text(file.read_text() + "max_rank = 7\n")
    other = call(*arguments, "--target-file", changed)
    assert other.code == 4
    assert "has changed since the compile" in other.error["message"]


def test_the_phone_takes_no_fallback(tmp_path: Path, call: Any) -> None:
    file = tmp_path / "phone.toml"
    file.write_text('extends = "iphone-npu"\nname = "phone"\nexclude_ops = ["Gelu"]\n')
    ran = call("compile", VIT, "--target-file", file, "--allow-fallback", "--json")
    assert ran.code == 1
    assert "phone has no fallback engine" in ran.error["hint"]


def test_a_precision_that_the_target_cannot_execute(call: Any) -> None:
    ran = call("compile", VIT, "--target", "iphone-npu", "--precision", "w8a16", "--json")
    assert ran.code == 1
    assert "cannot execute precision 'w8a16'" in ran.error["message"]
    assert "--precision" in ran.error["hint"]
