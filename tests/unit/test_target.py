"""Device files: strict keys, one level of extends, overrides, a digest of the content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgevit import registry
from edgevit.errors import UsageError
from edgevit.target import load_target, parse_target


def _minimal(**more: Any) -> dict[str, Any]:
    data = {
        "name": "toaster",
        "title": "A toaster",
        "backend": "onnx",
        "engine": "ort",
        "default_precision": "fp32",
        "precisions": ["fp32"],
        "tolerance": {"fp32": {"max_rel": 1e-4}},
    }
    return {**data, **more}


@pytest.mark.parametrize("name", registry.names("targets"))
def test_every_device_file_is_sound(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.default_precision in target.precisions
    assert target.backend in registry.names("backends")
    assert target.engine in registry.names("engines")
    backend = registry.load("backends", target.backend)
    assert set(target.precisions) <= backend.precisions
    for precision in target.precisions:
        gates = target.tolerance[precision].model_dump(exclude_none=True)
        assert gates, f"{name}: {precision} has no gate"
    assert target.tolerance["fp32"].max_rel == 1e-4
    if "fp16" in target.tolerance:
        assert target.tolerance["fp16"].psnr_db == 50.0
    for key, allowed in target.overridable.items():
        # Without a default the device's figures decide (the plane of an optical device).
        assert key not in target.options or target.options[key] in allowed


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"colour": "red"}, "colour"),
        ({"precisions": "fp32"}, "precisions"),
        ({"max_rank": "many"}, "max_rank"),
        ({"fallback": "perhaps"}, "fallback"),
        ({"tolerance": {"fp32": {"rmse": 1}}}, r"tolerance\.fp32\.rmse"),
        ({"placement": [{"name": "x", "unit": "TPU"}]}, "unit"),
        ({"figures": {"tops": {"value": 1, "unit": "TOP/s"}}}, r"figures\.tops\.source"),
    ],
)
def test_a_wrong_key_is_named_with_the_file(change: dict[str, Any], where: str) -> None:
    assert parse_target(_minimal(), "mine.toml").name == "toaster"
    with pytest.raises(UsageError, match=rf"device file mine\.toml: .*{where}"):
        parse_target(_minimal(**change), "mine.toml")


def test_a_missing_key_is_named() -> None:
    data = _minimal()
    del data["backend"]
    with pytest.raises(UsageError, match=r"mine\.toml: backend: Field required"):
        parse_target(data, "mine.toml")


def test_extends_merges_tables_and_replaces_the_rest() -> None:
    base = load_target("iphone-npu")
    mine = {"extends": "iphone-npu", "name": "mine", "tolerance": {"fp16": {"psnr_db": 60.0}}}
    target = parse_target(mine, "mine.toml")
    assert target.name == "mine"
    assert target.tolerance["fp16"].psnr_db == 60.0
    assert target.tolerance["fp32"] == base.tolerance["fp32"]
    assert target.placement == base.placement
    assert target.options == base.options


def test_extends_goes_one_level(monkeypatch: pytest.MonkeyPatch) -> None:
    nested = [n for n in registry.names("targets") if _extends(n)]
    assert nested, "expected a device file that extends another"
    with pytest.raises(UsageError, match="one level deep"):
        parse_target({"extends": nested[0]}, "mine.toml")


def _extends(name: str) -> bool:
    package, _, file = registry.reference("targets", name).partition(":")
    folder = Path(__file__).parents[2] / "targets" / "devices"
    assert package.endswith("devices")
    return (folder / file).read_text().startswith("extends") or (
        "\nextends" in (folder / file).read_text()
    )


def test_extends_of_an_unknown_target_suggests_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_target({"extends": "iphone"}, "mine.toml")
    assert "iphone-npu" in caught.value.hint


def test_an_override_is_applied_and_changes_nothing_else() -> None:
    assert load_target("iphone-npu:os=17") == load_target("iphone-npu")
    assert load_target("iphone-npu:os=17").options["os"] == "17"


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("iphone-npu:os=3", "os='3' is not possible", "os can be: "),
        ("iphone-npu:color=red", "no override 'color'", "it has: "),
        ("iphone-npu:os", "expected key=value, found 'os'", ""),
        ("onnx:os=17", "no override 'os'", "it has: "),
        ("iphone", "unknown target 'iphone'", "did you mean 'iphone-npu'?"),
        ("", "unknown target ''", "known: android-cpu"),
    ],
)
def test_bad_target_names_and_overrides(spec: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_target(spec)
    assert hint in caught.value.hint


def test_the_digest_follows_the_content_and_not_the_text(tmp_path: Path) -> None:
    one, two, other = (tmp_path / n for n in ("one.toml", "two.toml", "other.toml"))
    one.write_text('extends = "onnx"\nname = "mine"\ntitle = "Mine"\n')
    two.write_text('# a comment\ntitle = "Mine"\nname = "mine"\n\nextends = "onnx"\n')
    other.write_text('extends = "onnx"\nname = "mine"\ntitle = "Mine"\nmax_rank = 7\n')
    digest = load_target("", one).digest()
    assert digest == load_target("", one).digest() == load_target("", two).digest()
    assert digest != load_target("", other).digest()
    digests = {load_target(n).digest() for n in registry.names("targets")}
    assert len(digests) == len(registry.names("targets"))


def test_a_file_can_be_overridden_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = 'extends = "onnx"\nname = "mine"\n[overridable]\nsize = ["s", "m"]\n'
    file.write_text(text + '[options]\nsize = "s"\n')
    assert load_target("", file).options["size"] == "s"
    assert load_target(":size=m", file).options["size"] == "m"
    with pytest.raises(UsageError, match=r"'mine'.*size='l'") as caught:
        load_target(":size=l", file)
    assert "size can be: s, m" in caught.value.hint


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_target("", tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("name = \n")
    with pytest.raises(UsageError, match=r"bad\.toml is not valid TOML"):
        load_target("", bad)
    bad.write_bytes(b'name = "\xff"\n')
    with pytest.raises(UsageError, match=r"bad\.toml is not UTF-8"):
        load_target("", bad)


@pytest.mark.parametrize("system", ["16", "17", "18"])
def test_an_override_of_the_system_is_what_the_target_says(system: str) -> None:
    assert load_target(f"iphone-npu:os={system}").os == f"iOS {system}"
    assert load_target("linux-x86").os == ""
