"""What inspect says about a fixture, and about a model that nothing can run."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from edgevit.errors import InputError, UsageError
from edgevit.inspection import Inspection, inspect, text_of_inspection

MODELS = Path(__file__).parents[1] / "fixtures" / "models"
VIT = MODELS / "fashion_vit_ts.onnx"


@pytest.fixture(scope="module")
def found() -> Inspection:
    return inspect(VIT, {}, "onnx")


def unknown_model(folder: Path) -> Path:
    model = onnx.load(VIT)
    model.graph.node[3].op_type = "Quantum"
    model.graph.node[3].name = "first"
    model.graph.node[9].domain = "com.example"
    model.graph.node[9].name = "second"
    path = folder / "unknown.onnx"
    onnx.save(model, path)
    return path


def test_keys_of_the_contract(found: Inspection) -> None:
    data = found.to_json()
    expected = {
        "blocks",
        "bridges",
        "ops",
        "coverage",
        "placement",
        "macs",
        "params",
        "activation_bytes",
    }
    assert expected <= set(data)
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_figures_of_the_fixture(found: Inspection) -> None:
    data = found.to_json()
    # The same sums as in test_cost.py, worked out from the architecture.
    assert data["macs"] == 49 * 16 * 64 + 4 * (50 * 64 * 512 + 2 * 50 * 50 * 64) + 640
    coverage = data["coverage"]
    # 184 nodes, of which 48 are constants and 8 compute the shape of the class token.
    assert coverage["nodes"] == 184 - 48 - 8
    assert coverage["on_target"] == coverage["nodes"]
    assert coverage["fallback"] == []
    assert data["ops"]["Softmax"] == 4
    assert data["inputs"] == {"x": [1, 1, 28, 28]}
    assert data["outputs"] == {"logits": [1, 10]}


def test_the_four_blocks_are_found(found: Inspection) -> None:
    groups = found.to_json()["blocks"]
    assert [(g["count"], g["kinds"]) for g in groups if g["count"] > 1] == [
        (4, ["attention", "mlp"])
    ]


def test_bridges_are_listed_and_drawn() -> None:
    found = inspect(MODELS / "fashion_hybrid_ts.onnx", {}, None)
    data = found.to_json()["bridges"]
    assert [(b["direction"], len(b["nodes"])) for b in data] == [("in", 5), ("out", 4)]
    assert set(data[0]) == {"direction", "entry", "exit", "nodes", "attention"}
    lines = text_of_inspection(found, verbose=False).splitlines()
    (head,) = (i for i, line in enumerate(lines) if line.startswith("bridges"))
    assert [line.split()[0] for line in lines[head + 2 : head + 4]] == ["in", "out"]


def test_a_transformer_without_convolutional_stages_has_no_bridge(found: Inspection) -> None:
    assert found.to_json()["bridges"] == []
    text = text_of_inspection(found, verbose=False)
    assert "bridges between convolution and attention: none" in text


def test_passes_say_what_they_did(found: Inspection) -> None:
    passes = found.to_json()["passes"]
    specs = [p["spec"] for p in passes]
    assert len(set(specs)) == len(specs)
    assert {p["effect"] for p in passes} == {"exact"}
    assert sum(p["changed"] for p in passes) > 0


def test_without_target_there_is_no_coverage() -> None:
    data = inspect(VIT, {}, None).to_json()
    assert (data["target"], data["coverage"], data["placement"]) == (None, None, [])


def test_unknown_operators_are_all_listed(tmp_path: Path) -> None:
    found = inspect(unknown_model(tmp_path), {}, "onnx")
    named = [(u.node, u.domain, u.operator) for u in found.unknown]
    assert [n[0] for n in named] == ["first", "second"]
    assert (named[0][1], named[0][2], named[1][1]) == ("", "Quantum", "com.example")
    data = found.to_json()
    assert (data["macs"], data["coverage"]) == (None, None)
    assert data["ops"]["Quantum"] == 1


def test_text_ends_with_the_verdict_on_unknown_operators(tmp_path: Path) -> None:
    text = text_of_inspection(inspect(unknown_model(tmp_path), {}, None), verbose=False)
    assert text.splitlines()[-1] == "FAIL: 2 nodes with unknown operators"
    assert "com.example" in text


def test_text_names_cost_blocks_and_coverage(found: Inspection) -> None:
    text = text_of_inspection(found, verbose=True)
    assert "4 x attention + mlp" in text
    assert "M multiply-accumulates" in text
    assert "onnx (onnx, fp32): runs " in text


def test_unknown_target_is_refused_before_the_model_is_read() -> None:
    with pytest.raises(UsageError, match="unknown target 'onxx'"):
        inspect(Path("nowhere.onnx"), {}, "onxx")


def test_damaged_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(VIT.read_bytes()[:1000])
    with pytest.raises(InputError, match="truncated"):
        inspect(path, {}, None)
