from __future__ import annotations

import base64
import importlib.metadata
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgevit.cli import main
from edgevit.errors import ArtifactError, BackendMissingError, InputError, UsageError
from edgevit.html import page, write_page
from edgevit.manifest import (
    CoverageRecord,
    FallbackRecord,
    NoteEntry,
    PassEntry,
    RefusedEntry,
)
from edgevit.record import (
    BlockRow,
    BridgeRow,
    EstimateRow,
    NodeRow,
    Record,
    RuleRow,
    read_record,
)
from tests.support.bundles import manifest, same, tensor, toy_bundle, toy_entry
from tests.support.pages import Page

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>"
SECTIONS = ["compiled", "parity", "blocks", "coverage", "cost", "samples", "refusals", "nodes"]
REFUSALS = (
    RefusedEntry("recover-gelu", "/blocks/0/Mul", "the factor is 0.4, not 0.5"),
    RefusedEntry("recover-gelu", HOSTILE, f"because of {HOSTILE}"),
)
PASSES = (
    PassEntry("recover-gelu", "exact", 3, REFUSALS),
    PassEntry("fold-pad", "exact", 0, (RefusedEntry("fold-pad", "/Pad", "mode is reflect"),)),
    PassEntry("shiftadd{terms=2}", "bounded", 0, ()),
)
RULES = (
    RuleRow("convolution", "ANE", "measured by someone", "published"),
    RuleRow("rest", "CPU", HOSTILE, "estimated"),
)


def node(name: str, op: str, block: int, **changes: Any) -> NodeRow:
    fields: dict[str, Any] = {"rule": 0, "macs": 100, "params": 10, "weight_bytes": 40}
    fields |= {"moved_bytes": 8, "ratio": 0.25, "psnr_db": 61.5}
    return NodeRow(name, op, block, **{**fields, **changes})


def record() -> Record:
    blocks = (
        BlockRow("conv", None, "a"),
        BlockRow("hybrid", None, "b"),
        BlockRow("attention", 1, "c"),
        BlockRow("mlp", 1, "d"),
    )
    nodes = (
        node("stem", "Conv", 0, ratio=0.0),
        node("scores", "Attention", 2, macs=5000),
        node("hidden", "MatMul", 3, rule=1, ratio=1.5),
        node("joined", "Concat", 1, rule=None, macs=0, ratio=None, psnr_db=None),
        node(HOSTILE, "TopK", 1, ratio=0.5),
    )
    return Record(4096, blocks, RULES, nodes)


def make(
    place: Path,
    found: Record | None = None,
    shape: tuple[int, ...] = (1, 2, 3),
    **changes: Any,
) -> Path:
    fallback = CoverageRecord(5, 4, (FallbackRecord(HOSTILE, "TopK", "no kernel <here>"),))
    fields = {"passes": PASSES, "coverage": fallback, "name": HOSTILE, **changes}
    files = {"report.json": (found or record()).to_bytes()}
    toy_bundle(place, shapes=(shape,), files=files, **fields)
    return place


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "toy.edgevit")


def test_all_sections_are_there_and_the_page_is_well_formed(bundle: Path) -> None:
    found = Page(page(bundle))
    assert list(found.sections) == SECTIONS
    anchors = {a["href"] for tag, a in found.elements if tag == "a"}
    assert anchors == {f"#{name}" for name in SECTIONS}
    identifiers = found.values("id")
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize("broken", ["<p><b></p></b>", "<div>", '<p id="a" id="b"></p>'])
def test_the_parser_of_these_tests_rejects_a_malformed_page(broken: str) -> None:
    with pytest.raises(AssertionError):
        Page(broken)


def test_nothing_is_fetched_and_nothing_runs(bundle: Path) -> None:
    found = Page(page(bundle))
    assert not found.tags() & {"script", "link", "iframe", "object", "embed", "base", "form"}
    targets = found.values("src", "href", "xlink:href", "srcset", "action", "data", "poster")
    assert [t for t in targets if not t.startswith(("#", "data:image/png;base64,"))] == []
    assert "@import" not in found.style
    assert "url(" not in found.style
    names = {name for _, attributes in found.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}


def test_hostile_names_are_text(bundle: Path) -> None:
    source = page(bundle)
    assert "<script" not in source.lower()
    assert "<img src=http" not in source
    found = Page(source)
    heading = found.text.split("version 1", 1)[0]
    assert HOSTILE in heading
    for section in ("blocks", "coverage", "refusals", "nodes"):
        assert HOSTILE in found.sections[section], section


def test_every_refusal_is_shown_with_its_reason(bundle: Path) -> None:
    text = Page(page(bundle)).sections["refusals"]
    for entry in PASSES:
        for refused in entry.refused:
            assert refused.node in text
            assert refused.reason in text
    nothing = make(bundle.with_name("none.edgevit"), passes=PASSES[2:])
    assert "No pass refused anything" in Page(page(nothing)).sections["refusals"]


def test_notes_about_layers_are_shown_with_their_gain(bundle: Path) -> None:
    notes = (NoteEntry("", "by forward passes", None), NoteEntry(HOSTILE, "folded", -3.25))
    noted = make(
        bundle.with_name("noted.edgevit"), passes=(PassEntry("fold", "exact", 2, (), notes),)
    )
    source = page(noted)
    assert "<script" not in source.lower()
    text = Page(source).sections["notes"]
    for expected in ("all", "by forward passes", HOSTILE, "folded", "-3.2"):
        assert expected in text
    assert "notes" not in Page(page(bundle)).sections


def test_what_falls_back_is_listed(bundle: Path) -> None:
    found = Page(page(bundle))
    assert "4 of the 5 compute nodes of the source" in found.sections["coverage"]
    assert "no kernel <here>" in found.sections["coverage"]
    assert "ONNX fallback: 1 nodes" in found.sections["blocks"]


def test_passes_with_their_effects(bundle: Path) -> None:
    text = Page(page(bundle)).sections["compiled"]
    for entry in PASSES:
        assert entry.spec in text
        assert entry.effect in text
    assert "0" * 64 in text


def test_blocks_are_numbered_in_order_and_what_closes_one_is_a_join(bundle: Path) -> None:
    found = Page(page(bundle))
    titles = [
        line for line in found.sections["blocks"].splitlines() if line.startswith("block")
    ]
    kinds = [line.split(": ", 1)[1].split(",")[0] for line in titles]
    assert kinds == ["conv", "attention", "mlp", "join"]
    assert [line.split(":")[0] for line in titles] == [f"block {n}" for n in (1, 2, 3, 4)]


def test_a_value_past_its_limit_is_a_cross(bundle: Path) -> None:
    found = Page(page(bundle))
    crosses = [a for tag, a in found.elements if tag == "path" and a.get("class") == "past"]
    assert len(crosses) == 1
    assert "MatMul hidden: 1.5" in found.sections["parity"]
    fine = Record(1, record().blocks, RULES, record().nodes[:2])
    other = Page(page(make(bundle.with_name("fine.edgevit"), fine)))
    assert not [a for _, a in other.elements if a.get("class") == "past"]


def test_an_unverified_bundle_says_so(tmp_path: Path) -> None:
    rows = tuple(node(n.name, n.op, n.block, ratio=None, psnr_db=None) for n in record().nodes)
    found = Record(1, record().blocks, RULES, rows)
    why: dict[str, Any] = {
        "parity": None,
        "verified": False,
        "unverified_because": "--no-verify was given",
    }
    made = Page(page(make(tmp_path / "u.edgevit", found, **why)))
    assert "NOT VERIFIED" in made.text
    assert "--no-verify was given" in made.sections["parity"]
    assert "PASS" not in made.text


def test_a_target_without_rules_has_one_unit(tmp_path: Path) -> None:
    rows = tuple(node(n.name, n.op, n.block, rule=None) for n in record().nodes[:4])
    whole = CoverageRecord(4, 4, ())
    found = Record(1, record().blocks, (), rows)
    made = Page(page(make(tmp_path / "n.edgevit", found, coverage=whole)))
    assert "native: 4 nodes" in made.sections["blocks"]
    assert "nothing falls back" in made.sections["coverage"]


def test_an_image_like_input_is_shown_with_its_own_pixels(tmp_path: Path) -> None:
    made = Page(page(make(tmp_path / "i.edgevit", shape=(1, 1, 12, 9))))
    pictures = [a for tag, a in made.elements if tag == "img"]
    assert {a["alt"] for a in pictures} == {"input x as an image", "output y as an image"}
    uri = next(a["src"] for a in pictures if a["alt"].startswith("input"))
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(np.float64)
    x = np.random.default_rng(7).standard_normal((12, 9)).astype(np.float32)
    assert shown.shape == x.shape
    assert (shown.min(), shown.max()) == (0, 255)
    # Half a gray level of rounding on a straight line through the extremes.
    line = (x - x.min()) / (x.max() - x.min()) * 255
    assert np.abs(shown - line).max() <= 0.5 + 1e-3


def test_scores_are_shown_largest_first(tmp_path: Path) -> None:
    made = Page(page(make(tmp_path / "s.edgevit", shape=(1, 6))))
    y = 2 * np.random.default_rng(7).standard_normal((1, 6)).astype(np.float32)[0] + 1
    text = made.sections["samples"]
    at = [text.index(f"[{i}]") for i in sorted(range(6), key=lambda i: -y[i])[:5]]
    assert at == sorted(at)
    assert f"{y.max():.4g}" in text


def test_a_recorded_head_decodes_the_output(tmp_path: Path) -> None:
    head = {"kind": "topk", "k": 2, "labels": ["a<b", "cat", "dog"], "softmax": False}
    made = Page(page(make(tmp_path / "h.edgevit", shape=(1, 3), head=head)))
    y = 2 * np.random.default_rng(7).standard_normal((1, 3)).astype(np.float32)[0] + 1
    best = int(np.argmax(y))
    assert f"{head['labels'][best]}: {y[best]:.4g}" in made.sections["samples"]  # type: ignore[index]


def test_hostile_tensor_names(tmp_path: Path) -> None:
    entry = toy_entry((1, 2))
    part = type(entry.parts[0])(
        "toy", "toy.json", (same(HOSTILE, (1, 2)),), (same("y", (1, 2)),)
    )
    renamed = type(entry)((part,), (tensor(HOSTILE, (1, 2)),), (tensor("y", (1, 2)),))
    made = page(make(tmp_path / "t.edgevit", shape=(1, 2), entries=(renamed,)))
    assert HOSTILE in Page(made).sections["samples"]
    assert "<script" not in made


def test_the_same_bundle_gives_the_same_page(bundle: Path) -> None:
    assert page(bundle) == page(bundle)


def test_a_bundle_without_a_record_is_told_to_be_compiled_again(tmp_path: Path) -> None:
    toy_bundle(tmp_path / "old.edgevit")
    with pytest.raises(ArtifactError, match=r"expected report\.json") as caught:
        page(tmp_path / "old.edgevit")
    assert "compile" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nodes", 0, "block"), 9, "no block 9"),
        (("nodes", 1, "rule"), 7, "no rule 7"),
        (("blocks", 2, "parent"), 2, "no earlier block 2"),
        (("nodes", 0, "macs"), "many", "expected int"),
        (("surprise",), 1, "unknown key"),
    ],
)
def test_a_record_that_contradicts_itself_is_corrupt(
    path: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    data = json.loads(record().to_bytes())
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (tmp_path / "report.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        read_record(tmp_path)


def test_the_page_is_written_whole_and_nothing_beside_it(bundle: Path) -> None:
    place = bundle.with_name("out.html")
    write_page(bundle, place)
    assert place.read_text(encoding="utf-8") == page(bundle)
    assert {p.name for p in bundle.parent.iterdir()} == {bundle.name, "out.html"}


def test_an_existing_page_is_kept_unless_told(bundle: Path) -> None:
    place = bundle.with_name("out.html")
    place.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="exists") as caught:
        write_page(bundle, place)
    assert "--overwrite" in caught.value.hint
    assert place.read_text(encoding="utf-8") == "mine"
    write_page(bundle, place, overwrite=True)
    assert place.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_failed_page_leaves_the_old_one(bundle: Path) -> None:
    place = bundle.with_name("out.html")
    place.write_text("mine", encoding="utf-8")
    (bundle / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError):
        write_page(bundle, place, overwrite=True)
    assert place.read_text(encoding="utf-8") == "mine"


def test_places_that_cannot_hold_a_page(bundle: Path) -> None:
    with pytest.raises(UsageError, match="inside the bundle"):
        write_page(bundle, bundle / "page.html")
    with pytest.raises(UsageError, match="found a directory"):
        write_page(bundle, bundle.parent, overwrite=True)
    with pytest.raises(InputError, match="no such directory"):
        write_page(bundle, bundle.parent / "none" / "page.html")


def test_without_jinja2_the_error_names_the_extra(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(BackendMissingError, match="jinja2") as caught:
        page(bundle)
    assert "edgevit[compile]" in caught.value.hint
    assert caught.value.exit_code == 3


def test_the_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(bundle.with_name("out.html"))
    assert main(["report", str(bundle), "--html", place, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert set(result) == {"manifest", "html"}
    assert result["html"] == place
    assert main(["report", str(bundle), "--html", place, "--json"]) == 2
    assert "exists" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main(["report", str(bundle), "--html", place, "--overwrite", "-q"]) == 0


def test_overwrite_alone_is_a_mistake(bundle: Path) -> None:
    assert main(["report", str(bundle), "--overwrite"]) == 2


def test_without_html_the_report_is_as_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = toy_bundle(tmp_path / "old.edgevit")
    assert main(["report", str(tmp_path / "old.edgevit"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"] == {"manifest": made.to_json()}


def test_estimates_say_that_they_are(tmp_path: Path, bundle: Path) -> None:
    guess = EstimateRow(1.25, 2.5, 5.0, "published")
    found = replace(record(), latency_ms=guess)
    made = Page(page(make(tmp_path / "e.edgevit", found)))
    for text in ("latency, estimated", "≈ 2.5 ms", "1.25 ms to 5 ms; not measured"):
        assert text in made.text
    assert "nothing here was measured on a device" in made.sections["cost"]
    assert "published" in made.sections["cost"]
    assert "energy" not in made.sections["cost"]
    assert "No estimate of latency or energy" in Page(page(bundle)).sections["cost"]


def test_bridges_are_tagged_and_listed(tmp_path: Path, bundle: Path) -> None:
    ways = (BridgeRow("in", "stem", "scores", (0, 1)), BridgeRow("out", HOSTILE, "y", (4,)))
    made = Page(page(make(tmp_path / "b.edgevit", replace(record(), bridges=ways))))
    text = made.sections["blocks"]
    assert (text.count("bridge in"), text.count("bridge out")) == (2, 1)
    assert "in1, 22" in text  # way, blocks, nodes
    assert HOSTILE in text
    assert "bridge" not in Page(page(bundle)).sections["blocks"].lower()


def test_padding_is_shown_where_a_unit_pads(tmp_path: Path) -> None:
    rows = (*record().nodes[:2], replace(record().nodes[2], padding=3.2), *record().nodes[3:])
    made = Page(page(make(tmp_path / "p.edgevit", replace(record(), nodes=rows))))
    assert "× 3.2" in made.sections["blocks"]


def test_every_entry_has_its_own_figures(tmp_path: Path) -> None:
    shapes = [(1, 2), (4, 2)]
    entries = tuple(toy_entry(s) for s in shapes)
    one = manifest(entries).parity
    assert one is not None
    metric, figure = next(iter(one.figures.items()))
    each = tuple(
        replace(one, figures={**one.figures, metric: {**figure, "value": value}})
        for value in (1.5e-7, 2.5e-7)
    )
    slow = replace(record(), latency_ms=EstimateRow(7.0, 8.0, 9.0, "estimated"))
    files = {"report.json": record().to_bytes(), "report.1.json": slow.to_bytes()}
    out = tmp_path / "two.edgevit"
    toy_bundle(out, shapes=shapes, files=files, entry_parity=each)
    made = Page(page(out))
    for text in ("x 1 × 2", "x 4 × 2", "1.5e-07", "2.5e-07"):
        assert text in made.sections["parity"]
    assert "8 ms" in made.sections["cost"]
    for number, shape in enumerate(("1 × 2", "4 × 2")):
        assert f"Entry {number}, x {shape}. Error of each value" in made.sections["parity"]
    # What is of one input shape alone says of which.
    for section in ("blocks", "cost", "nodes"):
        assert "at entry 0, x 1 × 2" in made.sections[section]
    assert made.text.count("(entry\u00a00)") == 1
    assert made.sections["cost"].count("figures of this page") == 2
    assert "package list" not in made.sections["cost"]


def test_every_entry_has_its_own_chart(tmp_path: Path) -> None:
    shapes = [(1, 2), (4, 2)]
    rows = tuple(replace(n, ratio=0.123) for n in record().nodes)
    files = {
        "report.json": record().to_bytes(),
        "report.1.json": replace(record(), nodes=rows).to_bytes(),
    }
    out = tmp_path / "two.edgevit"
    one = manifest(tuple(toy_entry(s) for s in shapes)).parity
    assert one is not None
    toy_bundle(out, shapes=shapes, files=files, entry_parity=(one, one))
    text = page(out)
    # The last name is hostile and comes escaped.
    assert all(text.count(f"{n.op} {n.name}: 0.123</title>") == 1 for n in rows[:-1])
    single = page(make(tmp_path / "one.edgevit"))
    assert ": 0.123</title>" not in single
    assert "entry 0" not in single.lower()


def test_a_bridge_of_no_node_is_an_artifact_error(tmp_path: Path) -> None:
    made = replace(record(), bridges=(BridgeRow("in", "a", "b", (17,)),))
    with pytest.raises(ArtifactError, match=r"bridges\[0\]: no nodes \(17,\)"):
        page(make(tmp_path / "x.edgevit", made))
