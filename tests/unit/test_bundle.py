from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit import bundle as bundles
from edgevit.bundle import (
    failed_path,
    npz_bytes,
    open_bundle,
    seal,
    selfcheck_bytes,
    selfcheck_key,
    staging,
    write_files,
)
from edgevit.errors import ArtifactError, InputError, InternalError, UsageError
from tests.support.bundles import manifest, toy_bundle, toy_entry


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    out = tmp_path / "toy.edgevit"
    toy_bundle(out, files={"weights/deep/w.bin": bytes(range(256))})
    return out


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(bundles.STAGING_PREFIX)]


def test_a_sealed_bundle_opens_and_says_what_was_written(sealed: Path) -> None:
    found = open_bundle(sealed)
    assert [f.path for f in found.files] == ["selfcheck.npz", "toy.json", "weights/deep/w.bin"]
    record = found.files[2]
    assert record.bytes == 256
    assert record.sha256 == hashlib.sha256(bytes(range(256))).hexdigest()
    assert found == manifest(found.entries, files=found.files)
    assert leftovers(sealed.parent) == []


def test_the_digest_is_that_of_the_canonical_text_without_it(sealed: Path) -> None:
    data = json.loads((sealed / "manifest.json").read_text(encoding="utf-8"))
    said = data.pop("digest")
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert said == hashlib.sha256(text.encode()).hexdigest()


def test_two_bundles_of_the_same_content_have_the_same_bytes(tmp_path: Path) -> None:
    roots = [tmp_path / "a.edgevit", tmp_path / "b.edgevit"]
    for root in roots:
        toy_bundle(root)
    found = [{p.name: p.read_bytes() for p in root.iterdir()} for root in roots]
    assert found[0] == found[1]


def test_a_signature_is_the_one_file_that_is_not_listed(sealed: Path) -> None:
    (sealed / "manifest.sig").write_bytes(b"signed")
    open_bundle(sealed)


def flip_byte(path: Path, at: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def edit_manifest(change: Callable[[dict[str, Any]], Any], redigest: bool) -> Any:
    """A tamperer that edits the manifest's object, and recomputes the digest or does not."""

    def tamper(root: Path) -> None:
        path = root / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        if redigest:
            data.pop("digest", None)
            text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            data["digest"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(data), encoding="utf-8")

    return tamper


def replace_with_link(root: Path) -> None:
    content = root.parent / "elsewhere"
    content.write_bytes((root / "toy.json").read_bytes())
    (root / "toy.json").unlink()
    (root / "toy.json").symlink_to(content)


def link_a_folder(root: Path) -> None:
    (root / "weights").rename(root.parent / "weights")
    (root / "weights").symlink_to(root.parent / "weights")


def same_size(root: Path) -> None:
    flip_byte(root / "weights/deep/w.bin", 100)


def set_key(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return change


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a byte changed": (same_size, "expected sha256"),
    "self-check changed": (lambda r: flip_byte(r / "selfcheck.npz", 300), "expected sha256"),
    "a file grew": (lambda r: (r / "toy.json").write_bytes(b" " * 999), "expected .* bytes"),
    "a file missing": (lambda r: (r / "toy.json").unlink(), "is listed .* and missing"),
    "a file added": (lambda r: (r / "extra").write_bytes(b""), "'extra' is not listed"),
    "a folder added": (lambda r: (r / "extra").mkdir(), "an empty directory"),
    "a file linked": (replace_with_link, "found a link"),
    "a folder linked": (link_a_folder, "found a link"),
    "a pipe": (lambda r: os.mkfifo(r / "pipe"), "found a link or a device"),
    "no manifest": (lambda r: (r / "manifest.json").unlink(), "is not a bundle"),
    "not JSON": (lambda r: (r / "manifest.json").write_bytes(b"{"), "expected JSON"),
    "not UTF-8": (lambda r: (r / "manifest.json").write_bytes(b'"\xff"'), "expected JSON"),
    "too deep": (lambda r: (r / "manifest.json").write_bytes(b"[" * 99999), "expected JSON"),
    "NaN": (lambda r: (r / "manifest.json").write_bytes(b'{"a": NaN}'), "expected JSON"),
    "infinity": (
        lambda r: (r / "manifest.json").write_bytes(b'{"a": 1e999}'),
        "expected JSON",
    ),
    "half a pair": (
        lambda r: (r / "manifest.json").write_bytes(b'{"a": "\\ud800"}'),
        "expected JSON",
    ),
    "long number": (
        lambda r: (r / "manifest.json").write_bytes(b'{"a": ' + b"9" * 5000 + b"}"),
        "expected JSON",
    ),
    "a key twice": (
        lambda r: (r / "manifest.json").write_bytes(b'{"a": 1, "a": 1}'),
        "given twice",
    ),
    "a list": (lambda r: (r / "manifest.json").write_bytes(b"[]"), "expected an object"),
    "edited": (edit_manifest(set_key("name", to="other"), False), "expected digest"),
    "no digest": (edit_manifest(lambda d: d.pop("digest"), False), "expected digest"),
    "schema 2": (edit_manifest(set_key("schema", to=2), True), "expected schema 1, found 2"),
    "schema true": (edit_manifest(set_key("schema", to=True), True), "expected schema 1"),
    "no schema": (edit_manifest(lambda d: d.pop("schema"), True), "expected schema 1"),
    "unknown key": (edit_manifest(set_key("more", to=1), True), "unknown key 'more'"),
    "missing key": (edit_manifest(lambda d: d.pop("tools"), True), "the key 'tools'"),
    "wrong type": (edit_manifest(set_key("version", to="1"), True), "version: expected int"),
    "bool for int": (edit_manifest(set_key("version", to=True), True), "expected int"),
    "bad choice": (edit_manifest(set_key("io", to="both"), True), "'source' or 'native'"),
    "deep unknown key": (
        edit_manifest(set_key("entries", 0, "parts", 0, "more", to=1), True),
        r"entries\[0\].parts\[0\]: unknown key",
    ),
    "path outside": (
        edit_manifest(set_key("files", 0, "path", to="../toy.json"), True),
        "inside the bundle",
    ),
    "absolute path": (
        edit_manifest(set_key("files", 0, "path", to="/etc/passwd"), True),
        "inside the bundle",
    ),
    "artifact outside": (
        edit_manifest(set_key("entries", 0, "parts", 0, "artifact", to=".."), True),
        "inside the bundle",
    ),
    "artifact unlisted": (
        edit_manifest(set_key("entries", 0, "parts", 0, "artifact", to="nothing"), True),
        "not among the files",
    ),
    "output unmade": (
        edit_manifest(set_key("entries", 0, "outputs", 0, "name", to="z"), True),
        "nothing makes",
    ),
    "binding resized": (
        edit_manifest(
            set_key("entries", 0, "parts", 0, "inputs", 0, "artifact_shape", to=[7]), True
        ),
        "differ in size",
    ),
    "binding turned": (
        edit_manifest(
            set_key("entries", 0, "parts", 0, "inputs", 0, "perm", to=[0, 0, 1]), True
        ),
        "not a permutation",
    ),
    "unknown dtype": (
        edit_manifest(set_key("entries", 0, "inputs", 0, "dtype", to="O"), True),
        "unknown dtype",
    ),
    "no entries": (edit_manifest(set_key("entries", to=[]), True), "at least one"),
    "verified without figures": (edit_manifest(set_key("parity", to=None), True), "figures"),
    "verified and why not": (
        edit_manifest(set_key("unverified_because", to="no device"), True),
        "a reason exactly if",
    ),
    "passed without a value": (
        edit_manifest(set_key("parity", "figures", "max_rel", "value", to=None), True),
        "without a value",
    ),
    "verified but failed": (
        edit_manifest(set_key("parity", "figures", "max_rel", "pass", to=False), True),
        "did not pass",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_bundle_is_refused(sealed: Path, name: str) -> None:
    tamper, message = TAMPERED[name]
    tamper(sealed)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_bundle(sealed)
    assert caught.value.exit_code == 4


def test_every_byte_of_the_manifest_is_covered(sealed: Path) -> None:
    path = sealed / "manifest.json"
    content = path.read_bytes()
    meaning = json.loads(content)
    accepted = []
    for at in range(0, len(content), 17):
        flip_byte(path, at)
        try:
            open_bundle(sealed)
            accepted.append(at)
        except ArtifactError:
            pass
        path.write_bytes(content)
    # A flip may be between two kinds of white space; nothing that means anything may pass.
    for at in accepted:
        changed = bytearray(content)
        changed[at] ^= 1
        assert json.loads(bytes(changed)) == meaning


def test_failed_bundles_are_kept_and_refused(tmp_path: Path) -> None:
    out = failed_path(tmp_path / "toy.edgevit")
    assert out.name == "toy.failed.edgevit"
    toy_bundle(out, verified=False, unverified_because="a gate failed")
    with pytest.raises(ArtifactError, match="failed verification"):
        open_bundle(out)
    (tmp_path / "nice.edgevit").symlink_to(out)
    with pytest.raises(ArtifactError, match="failed verification"):
        open_bundle(tmp_path / "nice.edgevit")


def test_a_missing_bundle_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such bundle"):
        open_bundle(tmp_path / "none.edgevit")


@pytest.mark.parametrize(
    "path",
    ["../x", "/x", "a/../../x", "", ".", "a//b", "a/", "a\\b", "C:x", "a\0b", "a\nb", "./a"],
)
def test_files_stay_inside_the_staging_directory(tmp_path: Path, path: str) -> None:
    with pytest.raises(ArtifactError, match="relative path"):
        write_files(tmp_path / "stage", {path: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["manifest.json", "manifest.sig"])
def test_reserved_names_cannot_be_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(ArtifactError, match="cannot be called"):
        write_files(tmp_path, {path: b""})


def test_a_file_is_not_written_twice(tmp_path: Path) -> None:
    write_files(tmp_path, {"a": b"1"})
    with pytest.raises(InputError, match="cannot be written"):
        write_files(tmp_path, {"a": b"2"})


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_compile_leaves_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def interrupted() -> None:
        with staging(tmp_path / "x.edgevit") as root:
            write_files(root, {"a/b": b"half"})
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from edgevit.bundle import *\n"
        "with staging(Path(sys.argv[1])) as root:\n"
        "    write_files(root, {'a': b'half'}); print('ready', flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.edgevit")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert len(leftovers(tmp_path)) == 1
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_the_program_keeps_its_own_sigterm_handler(tmp_path: Path) -> None:
    def mine(number: int, frame: Any) -> None:
        raise AssertionError("not called")

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with staging(tmp_path / "x.edgevit"):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_staging_needs_the_directory_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), staging(tmp_path / "no" / "x"):
        pytest.fail("not reached")


def test_an_existing_bundle_is_replaced_only_on_request(sealed: Path) -> None:
    before = (sealed / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="exists") as caught:
        toy_bundle(sealed)
    assert caught.value.exit_code == 2
    assert (sealed / "manifest.json").read_bytes() == before
    with staging(sealed) as root:
        write_files(root, {"toy.json": b"{}"})
        seal(root, manifest((toy_entry((1,)),)), sealed, overwrite=True)
    assert [f.path for f in open_bundle(sealed).files] == ["toy.json"]
    assert leftovers(sealed.parent) == []


def make_folder(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def make_link(out: Path) -> None:
    toy_bundle(out.with_name("other.edgevit"))
    out.symlink_to(out.with_name("other.edgevit"))


@pytest.mark.parametrize("make", [make_folder, make_link, lambda p: p.write_text("a file")])
def test_what_is_not_a_bundle_is_never_replaced(
    tmp_path: Path, make: Callable[[Path], Any]
) -> None:
    out = tmp_path / "x.edgevit"
    make(out)
    with staging(out) as root:
        write_files(root, {"toy.json": b"{}"})
        with pytest.raises(UsageError, match="is not a bundle"):
            seal(root, manifest((toy_entry((1,)),)), out, overwrite=True)
    assert os.path.lexists(out)
    assert leftovers(tmp_path) == []


def test_a_failed_rename_puts_the_old_bundle_back(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p: p.read_bytes() for p in sealed.rglob("*") if p.is_file()}
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if to == sealed and not getattr(failing, "failed", False):
            failing.failed = True  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with staging(sealed) as root:
        write_files(root, {"toy.json": b"{}"})
        with pytest.raises(InputError, match="No space left"):
            seal(root, manifest((toy_entry((1,)),)), sealed, overwrite=True)
    assert {p: p.read_bytes() for p in sealed.rglob("*") if p.is_file()} == before
    assert leftovers(sealed.parent) == []


def test_an_unsound_manifest_is_our_bug(tmp_path: Path) -> None:
    out = tmp_path / "x.edgevit"
    with staging(out) as root, pytest.raises(InternalError, match="not among the files"):
        seal(root, manifest((toy_entry((1,)),)), out)
    assert list(tmp_path.iterdir()) == []


def test_figures_are_kept_to_three_digits(sealed: Path) -> None:
    parity = open_bundle(sealed).to_json()["parity"]
    assert parity["figures"]["max_rel"] == {"value": 1.23e-7, "limit": 1e-4, "pass": True}


def test_an_exact_match_has_no_value(tmp_path: Path) -> None:
    base = manifest((toy_entry((1,)),)).parity
    assert base is not None
    exact = {"max_rel": {"value": None, "limit": 1e-4, "pass": True, "exact": True}}
    toy_bundle(tmp_path / "x.edgevit", parity=dataclasses.replace(base, figures=exact))
    parity = open_bundle(tmp_path / "x.edgevit").to_json()["parity"]
    assert parity["figures"]["max_rel"] == {"value": None, "exact": True, "pass": True}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_never_reach_json(tmp_path: Path, value: float) -> None:
    base = manifest((toy_entry((1,)),)).parity
    assert base is not None
    figures = {"max_rel": {"value": value, "limit": 1e-4, "pass": True}}
    with pytest.raises(InternalError, match="JSON"):
        toy_bundle(tmp_path / "x.edgevit", parity=dataclasses.replace(base, figures=figures))
    assert list(tmp_path.iterdir()) == []


def test_npz_bytes_depend_on_names_and_arrays_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "half": rng.standard_normal((2, 3)).astype(np.float16),
        "scalar": np.array(3, np.int64),
        "fortran": np.asfortranarray(rng.standard_normal((3, 4))),
        "empty": np.zeros((0, 5), np.uint8),
        "flags": np.array([True, False]),
    }
    content = npz_bytes(arrays)
    assert content == npz_bytes(dict(reversed(arrays.items())))
    (tmp_path / "x.npz").write_bytes(content)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert sorted(found.files) == sorted(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            np.testing.assert_array_equal(found[name], array)
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_self_check_sample_survives_any_tensor_name(tmp_path: Path) -> None:
    names = ["../../x", "a/b:0", "x"]
    inputs = {n: np.full((2,), i, np.float32) for i, n in enumerate(names)}
    outputs = {"y\n": np.array([1.0], np.float32)}
    (tmp_path / "s.npz").write_bytes(selfcheck_bytes(inputs, outputs, (outputs, inputs)))
    with np.load(tmp_path / "s.npz", allow_pickle=False) as found:
        for name in names:
            key = selfcheck_key(0, "input", name, names)
            np.testing.assert_array_equal(found[key], inputs[name])
            key = selfcheck_key(1, "output", name, reversed(names))
            np.testing.assert_array_equal(found[key], inputs[name])
