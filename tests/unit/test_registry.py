"""The plug-in door: one owner a name, the nearest suggested, strangers turned away."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit import registry
from edgevit.errors import UsageError
from edgevit.registry import BUILTIN, Plugin

PLUGIN = Path(__file__).parents[1] / "support" / "plugin"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    registry.plugins.cache_clear()
    yield
    registry.plugins.cache_clear()


def test_a_name_owned_twice_names_both_owners() -> None:
    rival = Plugin(name="rival", passes={"fold-pad": "rival:FoldPad"})
    with pytest.raises(UsageError, match=r"pass.*'fold-pad'.*'edgevit'.*'rival'"):
        registry.merge((BUILTIN, rival), "passes")
    # The same name in another kind is no clash.
    assert "fold-pad" not in registry.merge((BUILTIN, rival), "targets")


def test_owners_stay_with_their_names() -> None:
    other = Plugin(name="other", targets={"toaster": "other:toaster.toml"})
    merged = registry.merge((BUILTIN, other), "targets")
    assert merged["toaster"] == ("other:toaster.toml", "other")
    assert merged["onnx"][1] == "edgevit"


@pytest.mark.parametrize(
    ("kind", "name", "said", "hint"),
    [
        ("targets", "iphone-npx", "unknown target 'iphone-npx'", "did you mean 'iphone-npu'?"),
        ("passes", "recover-gelus", "unknown pass 'recover-gelus'", "'recover-gelu'?"),
        ("backends", "lite-rt", "unknown backend 'lite-rt'", "'litert'?"),
        ("engines", "zzz", "unknown engine 'zzz'", "known: coreml"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    kind: registry.Kind, name: str, said: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        registry.reference(kind, name)
    assert hint in caught.value.hint


def _point(value: str) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint("stranger", value, registry.GROUP)


def _installed(
    monkeypatch: pytest.MonkeyPatch, *points: importlib.metadata.EntryPoint
) -> None:
    def entry_points(**_: Any) -> tuple[importlib.metadata.EntryPoint, ...]:
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


def test_an_entry_point_of_the_wrong_type_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, _point("json:dumps"))
    with pytest.raises(UsageError, match=r"'stranger'.*function.*expected.*Plugin"):
        registry.plugins()


@pytest.mark.parametrize("value", ["no_such_module:PLUGIN", "json:no_such_attribute"])
def test_an_entry_point_that_does_not_load_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    _installed(monkeypatch, _point(value))
    with pytest.raises(UsageError, match="'stranger'") as caught:
        registry.plugins()
    assert caught.value.__cause__ is not None
    assert "uninstall" in caught.value.hint


def test_the_builtin_entry_point_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, _point("edgevit.registry:BUILTIN"))
    assert registry.plugins() == (BUILTIN,)


@pytest.mark.parametrize("kind", ["passes", "backends", "engines"])
def test_every_builtin_reference_loads(kind: registry.Kind) -> None:
    for name in registry.names(kind):
        assert registry.load(kind, name) is not None


def _ask(path: Path, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "edgevit", *arguments, "--json"],
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["result"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plug-in built and installed as pip does it, without index or network."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in ("pyproject.toml", "silence.py", "silence_devices/toaster.toml"):
        (source / file).parent.mkdir(exist_ok=True)
        (source / file).write_bytes((PLUGIN / file).read_bytes())
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, *command, "--target", str(folder), str(source)], check=True
    )
    return folder


def test_an_installed_plugin_adds_a_pass_and_a_target(installed: Path) -> None:
    passes = {p["name"]: p for p in _ask(installed, "passes")["passes"]}
    assert passes["silence"]["owner"] == "silence"
    assert passes["silence"]["effect"] == "exact"
    (level,) = passes["silence"]["options"]
    assert (level["name"], level["default"]) == ("level", "0.0")
    assert passes["fold-pad"]["owner"] == "edgevit"
    targets = {t["name"]: t for t in _ask(installed, "targets")["targets"]}
    assert targets["toaster"]["owner"] == "silence"
    assert targets["toaster"]["backend"] == "onnx"
    assert targets["onnx"]["owner"] == "edgevit"


def test_without_the_plugin_its_names_do_not_exist(tmp_path: Path) -> None:
    assert "silence" not in {p["name"] for p in _ask(tmp_path, "passes")["passes"]}
