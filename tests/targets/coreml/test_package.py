"""The files: the same bytes in every process, readable by coremltools, described fully."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest

from edgevit.backend import Lowered
from edgevit.errors import ArtifactError
from edgevit.targets.coreml.quiet import quiet_coremltools
from tests.targets.coreml.harness import (
    Case,
    f32,
    ints,
    lower,
    normal,
    operations,
    spec_of,
    write,
)

SMALL = Case(
    "Small-Net.1",
    "(float[1,3,8,8] x) => (float[1,16,10] y, float[1,16,8] n) {"
    "c = Conv<kernel_shape = [2,2], strides = [2,2], pads = [0,0,0,0], dilations = [1,1],"
    "group = 1>(x, w) r = Reshape(c, sh) t = Transpose<perm = [0,2,1]>(r)"
    "n = LayerNormalization<axis = 2, epsilon = 1e-5>(t, s, b) m = MatMul(n, w2)"
    'a = Add(m, b2) y = Gelu<approximate = "none">(a) }',
    (),
    {
        "w": normal(1, 8, 3, 2, 2),
        "s": normal(2, 8),
        "b": normal(3, 8),
        "w2": normal(4, 8, 10),
        "b2": normal(5, 10),
        "sh": ints(1, 8, 16),
    },
)


def small() -> Case:
    return Case("small", SMALL.graph, (), SMALL.constants)


SCRIPT = """
import hashlib, sys
from tests.targets.coreml.harness import lower
from tests.targets.coreml.test_package import small
if sys.argv[1] == "busy":
    lower(small().model(), "fp32")  # names must not depend on what was built before
for precision in ("fp32", "fp16"):
    for path, content in sorted(lower(small().model(), precision).files.items()):
        print(path, hashlib.sha256(content).hexdigest())
"""


def _digests(seed: str, state: str) -> str:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, state],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
        env=environment,
    )
    assert run.stderr == ""
    return run.stdout


def test_same_bytes_in_two_processes_and_silent() -> None:
    first, second = _digests("1", "fresh"), _digests("2", "busy")
    assert len(first.splitlines()) == 6
    assert first == second


@pytest.fixture(scope="module")
def fp16() -> Lowered:
    return lower(small().model(), "fp16")


def test_manifest_names_the_files_by_content(fp16: Lowered) -> None:
    manifest = json.loads(fp16.files["m.mlpackage/Manifest.json"])
    root = manifest["rootModelIdentifier"]
    entries = manifest["itemInfoEntries"]
    assert entries[root]["path"] == "com.apple.CoreML/model.mlmodel"
    assert {e["path"] for e in entries.values()} == {
        "com.apple.CoreML/model.mlmodel",
        "com.apple.CoreML/weights",
    }
    assert all(uuid.UUID(name).version == 5 for name in entries)
    other = lower(small().model(), "fp32").files["m.mlpackage/Manifest.json"]
    assert json.loads(other)["rootModelIdentifier"] != root


def test_description_and_metadata(fp16: Lowered) -> None:
    spec = spec_of(fp16)
    assert spec.specificationVersion == 8
    names = [f.name for f in (*spec.description.input, *spec.description.output)]
    assert names == ["x", "y", "n"]
    assert list(spec.description.output[0].type.multiArrayType.shape) == [1, 16, 10]
    notes = dict(spec.description.metadata.userDefined)
    assert notes["ai.edgevit.precision"] == "fp16"
    assert notes["ai.edgevit.deployment_target"] == "iOS17"


def test_coremltools_reads_the_package_back(fp16: Lowered, tmp_path: Path) -> None:
    path = write(fp16, tmp_path)
    with quiet_coremltools() as ct:
        from coremltools.converters.mil.frontend.milproto.load import load

        model = ct.models.MLModel(str(path), skip_model_load=True)
        program = load(model.get_spec(), 8, model.weights_dir)
        weight = program.functions["main"].find_ops(op_type="linear")[0].weight.val
    np.testing.assert_array_equal(weight, SMALL.constants["w2"].T.astype(np.float16))


def test_debug_map_is_in_execution_order_and_leaves_out_fused_values(fp16: Lowered) -> None:
    assert [b.name for b in fp16.values] == ["c", "r", "t", "n", "a", "y"]
    written = [name for op in operations(fp16) for name in op.outputs]
    positions = [written.index(b.artifact) for b in fp16.values]
    assert positions == sorted(positions)


def test_names_become_identifiers_and_stay_distinct() -> None:
    graph = '(float[4] "a.b", float[4] "a/b") => (float[4] "1.y") {'
    body = '"string" = Add("a.b", "a/b") "1.y" = Relu("string") }'
    lowered = lower(Case("g", graph + body, ()).model(), "fp32")
    assert [b.artifact for b in lowered.part.inputs] == ["a_b", "a_b_1"]
    assert [b.name for b in lowered.part.inputs] == ["a.b", "a/b"]
    assert [b.artifact for b in lowered.values] == ["string_", "_1_y"]


def test_default_constants_never_take_the_name_of_a_value() -> None:
    """Coremltools names the axis constant of softmax ``s_axis_0``; so is this value."""
    graph = "(float[2,4] x) => (float[2,4] y) { s = Softmax<axis = 1>(x) "
    body = "s_axis_0 = Relu(s) y = Softmax<axis = 0>(s_axis_0) }"
    lowered = lower(Case("g", graph + body, ()).model(), "fp32")
    function = spec_of(lowered).mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    names = [out.name for op in block.operations for out in op.outputs]
    assert len(names) == len(set(names))
    assert [b.artifact for b in lowered.values] == ["s", "s_axis_0", "y"]


def test_an_input_that_is_an_output_and_an_unused_input() -> None:
    graph = "(float[4] x, float[4] u) => (float[4] x2, float[4] y)"
    lowered = lower(
        Case(
            "g",
            graph + "{ x2 = Clip(x, lo, hi) y = Relu(x) }",
            (),
            {"lo": f32(-np.inf), "hi": f32(np.inf)},
        ).model(),
        "fp32",
    )
    assert [op.kind for op in operations(lowered)] == ["identity", "relu", "identity"]
    assert [b.name for b in lowered.values] == ["y"]


def test_a_package_without_its_model_is_an_error(fp16: Lowered) -> None:
    from dataclasses import replace

    with pytest.raises(ArtifactError, match="has no Data"):
        spec_of(replace(fp16, files={}))


def test_digest_of_weights_depends_on_weights_only() -> None:
    weights = "m.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    first = lower(small().model(), "fp32").files[weights]
    changed = {**SMALL.constants, "w2": SMALL.constants["w2"] + 1}
    second = lower(Case("small", SMALL.graph, (), changed).model(), "fp32").files[weights]
    assert hashlib.sha256(first).digest() != hashlib.sha256(second).digest()
    assert len(first) == len(second)
