"""`edgevit simulate` and `edgevit sweep` on a fixture compiled for the ideal 4f device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit import api
from edgevit.errors import InputError, UsageError
from edgevit.progress import SilentProgress
from edgevit.simtext import text_of_simulation
from edgevit.simulate import Pictures, Study, simulate
from edgevit.studies import parse_axes
from edgevit.sweep import Sweep, finished, run_task, sweep, tasks_of
from tests.support.cli import FIXTURES, PREPROCESS, edgevit

DATA = FIXTURES / "data" / "fashion_test_500.npz"
LAYER = "/blocks/blocks.0/mlp/mlp.0/MatMul_output_0"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("optical") / "vit.edgevit"
    api.compile(
        FIXTURES / "models" / "fashion_vit_ts.onnx",
        target="optical-4f:plane=256x256",
        preprocess=PREPROCESS,
        verify=False,
        output=out,
    )
    return out


def points(bundle: Path, **study: Any) -> list[dict[str, Any]]:
    asked = Study(data=DATA, count=12, **study)
    found: list[dict[str, Any]] = simulate(bundle, asked, SilentProgress())["points"]
    return found


def test_little_light_costs_accuracy_and_much_light_none(bundle: Path) -> None:
    found = points(bundle, curves={"photons": ["0.01", "1e8"]})
    ideal, dark, bright = (p["accuracy"] for p in found)
    assert ideal == bright > 0.6
    assert dark < ideal - 0.3
    assert all(0 < p["standard_error"] < 0.2 for p in found)


def test_the_same_seed_gives_the_same_noise(bundle: Path) -> None:
    base = {"photons": "3", "adc-bits": "6"}
    assert points(bundle, base=base) == points(bundle, base=base)


def test_costs_start_with_what_is_not_verified(bundle: Path) -> None:
    study = Study(setup="catalogue-1080p-60", reference_ms=1.0)
    found = simulate(bundle, study, SilentProgress())
    text = text_of_simulation(found)
    assert "not verified" in text.splitlines()[0]
    cost = found["cost"]
    frames = sum(row["frames"] for row in found["program"])
    assert cost["frames"] == frames
    assert cost["break_even_hz"] == pytest.approx(frames / 1e-3)
    # 60 Hz: nothing is faster than its frames and masks.
    assert cost["seconds"] >= (frames + cost["masks"]) / 60 * 0.999
    assert "Hz" in text


def test_work_is_summed_by_mapping(bundle: Path) -> None:
    found = simulate(bundle, Study(), SilentProgress())
    lines = text_of_simulation(found).splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("mapping"))
    rows = [line.split() for line in lines[head + 2 :] if line]
    assert sum(int(row[1]) for row in rows) == len(found["program"])
    assert sum(int(row[2]) for row in rows) == sum(row["frames"] for row in found["program"])
    # A dense product does at most one multiply-accumulate a pixel; signs take two exposures.
    (dense,) = [float(row[4]) for row in rows if row[0] == "one-shot"]
    macs = sum(row["macs"] for row in found["program"] if row["mapping"] == "one-shot")
    frames = sum(row["frames"] for row in found["program"] if row["mapping"] == "one-shot")
    assert dense == pytest.approx(macs / frames / 256**2, rel=5e-3)
    assert dense <= 0.5


def test_hypothetical_set_ups_say_so_first(bundle: Path) -> None:
    study = Study(setup="hypothetical-4k-2mhz")
    text = text_of_simulation(simulate(bundle, study, SilentProgress()))
    assert text.startswith("hypothetical")


def test_pictures_of_a_frame(bundle: Path, tmp_path: Path) -> None:
    from PIL import Image

    asked = Study(data=DATA, count=1, pictures=Pictures(LAYER, 0, tmp_path / "p"))
    found = simulate(bundle, asked, SilentProgress())["pictures"]
    assert [Path(p).stem for p in found] == [
        "input",
        "mask-modulus",
        "mask-phase",
        "fourier-intensity",
        "camera-intensity",
    ]
    for path in found:
        with Image.open(path) as picture:
            assert picture.size == (256, 256)
            low, high = picture.getextrema()
            assert low != high


def camera(bundle: Path, **device: Any) -> dict[str, Any]:
    """The planes of a frame of ``LAYER``, and what the ideal device multiplies there."""
    from edgevit.bundle import open_bundle
    from edgevit.studies import labeled
    from edgevit.targets.optical import pictures
    from edgevit.targets.optical.study import Point, calibrate, open_subject

    subject = open_subject(bundle)
    samples = labeled(DATA, open_bundle(bundle), 1).samples
    calibrate(subject, samples)
    found: dict[str, Any] = pictures.planes(subject, samples[0], LAYER, 0, Point(**device), 7)
    return {**found, "full": subject.full[LAYER]}


def test_pictures_show_the_device_that_is_asked_for(bundle: Path) -> None:
    ideal, bright = camera(bundle), camera(bundle, photons=1e4)
    assert "camera-electrons" not in ideal
    # First exposure: (field + reference)^2 in units of the full scale's light.
    mean = 1e4 * (ideal["camera-intensity"] / ideal["full"] + 1) ** 2
    apart = bright["camera-electrons"] - mean
    lit = mean > 100
    # Poisson: unit variance behind the root; 65,536 pixels put 0.006 on its spread.
    assert 0.97 < np.std(apart[lit] / np.sqrt(mean[lit])) < 1.03
    moved = camera(bundle, shift=0.4)["camera-intensity"]
    assert np.abs(moved - ideal["camera-intensity"]).max() > 0.05 * ideal["full"]
    levels = camera(bundle, mask_bits=2)["mask"]
    assert len(np.unique(np.round(levels, 6))) <= 16


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"base": {"fotons": "1"}}, "unknown device parameter 'fotons'"),
        ({"base": {"photons": "0"}}, "photons: expected > 0, found 0"),
        ({"base": {"photons": "1e3", "adc-bits": "60"}}, "adc_bits: expected 0 <= bits <= 24"),
        ({"base": {"adc-bits": "8"}}, "expected photons > 0"),
        ({"base": {"mask-bits": "a"}}, "mask-bits: expected whole numbers, found 'a'"),
        ({"base": {"photons": "10um"}}, "photons: expected numbers without a unit"),
        ({"base": {"shift": "129"}}, r"\|shift\| <= 128, half of the mask's 256 pixels"),
        ({"base": {"defocus": "0.1"}}, r"aberration \(defocus\)"),
        (
            {"base": {"photons": "1e4", "full-well": "9000"}},
            r"full_well: expected 4 x photons <= full_well .* found '40000 <= 9000'",
        ),
        ({"base": {"full-well": "9000"}}, "full_well: expected 4 x photons <= full_well"),
        ({"setup": "nothing"}, "unknown set-up"),
    ],
)
def test_impossible_devices_are_refused(bundle: Path, study: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        points(bundle, **study)


def test_a_floor_keeps_the_answers_where_the_mask_is_off(bundle: Path, tmp_path: Path) -> None:
    firm = tmp_path / "firm.edgevit"
    model = FIXTURES / "models" / "fashion_vit_ts.onnx"
    target = "optical-4f:plane=256x256,floor=40,misalignment=0.3"
    api.compile(model, target=target, preprocess=PREPROCESS, verify=False, output=firm)
    found = {}
    for name, compiled in (("cheap", bundle), ("firm", firm)):
        study = Study(data=DATA, count=40, curves={"shift": ["0.3"]})
        result = simulate(compiled, study, SilentProgress())
        mappings = {row["mapping"] for row in result["program"]}
        ideal, moved = (p["accuracy"] for p in result["points"])
        found[name] = (ideal - moved, "valid-tile" in mappings)
    assert (found["cheap"][1], found["firm"][1]) == (False, True)
    assert found["cheap"][0] > 0.3
    assert found["firm"][0] < 0.1


def test_a_floor_asks_for_a_displacement(tmp_path: Path) -> None:
    model = FIXTURES / "models" / "fashion_vit_ts.onnx"
    with pytest.raises(UsageError, match="floor=30: expected misalignment > 0"):
        api.compile(model, target="optical-4f:floor=30", output=tmp_path / "m.edgevit")


def test_no_samples_are_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="samples: expected a count >= 1, found 0"):
        simulate(bundle, Study(data=DATA, count=0), SilentProgress())


def test_joint_transforms_are_simulated_as_far_as_they_are_modeled(tmp_path: Path) -> None:
    out = tmp_path / "joint.edgevit"
    api.compile(
        FIXTURES / "models" / "fashion_vit_ts.onnx",
        target="optical-4f:plane=256x256,attention=joint",
        preprocess=PREPROCESS,
        verify=False,
        output=out,
    )
    asked = Study(data=DATA, count=2, base={"photons": "1e6"})
    text = text_of_simulation(simulate(out, asked, SilentProgress()))
    (head,) = [line for line in text.splitlines() if line.startswith("layer ")]
    assert head.index("power spectrum") < head.index("shot noise")
    for base, message in (
        ({"photons": "1e6", "adc-bits": "8"}, "below the converter's step"),
        ({"mask-bits": "8"}, "joint"),
    ):
        with pytest.raises(UsageError, match=message):
            simulate(out, Study(data=DATA, count=2, base=base), SilentProgress())


def test_a_bundle_of_another_target_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "m.edgevit"
    model = FIXTURES / "models" / "fashion_vit_ts.onnx"
    api.compile(model, target="onnx", verify=False, output=out)
    with pytest.raises(InputError, match="expected a bundle of an optical target"):
        simulate(out, Study(), SilentProgress())


def swept(bundle: Path, out: Path, **more: Any) -> Sweep:
    axes = parse_axes(["photons=0.1,1e6", "shift=0,0.2"])
    return Sweep(bundle, axes, out, data=DATA, count=6, **more)


def test_a_sweep_resumes_after_half_a_line(bundle: Path, tmp_path: Path) -> None:
    what = swept(bundle, tmp_path / "r.jsonl")
    tasks = tasks_of(what)
    assert len(tasks) == 4
    rows = [json.dumps(run_task(t), sort_keys=True) for t in tasks]
    # All done but for the last, whose line was cut off: nothing finished is lost.
    what.output.write_text("\n".join(rows[:3]) + "\n" + rows[3][:20], encoding="utf-8")
    assert len(finished(what.output)) == 3
    assert what.output.read_text(encoding="utf-8").count("\n") == 3
    what.output.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = sweep(what, SilentProgress())
    assert found["resumed"] == 4
    assert [r["samples"] for r in found["rows"]] == [6] * 4
    assert found["rows"][2]["accuracy"] >= found["rows"][0]["accuracy"]


def test_results_of_another_sweep_are_not_mixed(bundle: Path, tmp_path: Path) -> None:
    what = swept(bundle, tmp_path / "r.jsonl")
    what.output.write_text('{"key": "other"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="results of another sweep"):
        sweep(what, SilentProgress())


@pytest.mark.parametrize(
    ("grid", "more", "message"),
    [
        ("photons=10,0", {}, "photons: expected > 0, found 0"),
        ("defocus=0.1", {}, r"aberration \(defocus\)"),
        ("shift=0,500", {}, r"\|shift\| <= 128"),
        ("photons=10", {"setups": ("nothing",)}, "unknown set-up 'nothing'"),
        ("photons=10", {"output": Path("/nowhere/r.jsonl")}, "cannot be written"),
        ("photons=10", {"scheduler": "tcp:/127.0.0.1"}, "no Dask scheduler answers"),
    ],
)
def test_impossible_sweeps_are_refused_before_they_start(
    bundle: Path, tmp_path: Path, grid: str, more: dict[str, Any], message: str
) -> None:
    asked = {"output": tmp_path / "r.jsonl", **more}
    what = Sweep(bundle, parse_axes([grid]), data=DATA, count=6, **asked)
    with pytest.raises((InputError, UsageError), match=message):
        sweep(what, SilentProgress())


@pytest.mark.long
def test_sweeps_on_a_local_cluster(bundle: Path, tmp_path: Path) -> None:
    arguments: list[object] = [
        "sweep",
        bundle,
        "--grid",
        "photons=0.1,1e6",
        "--grid",
        "shift=0,0.2",
    ]
    arguments += ["-o", tmp_path / "r.jsonl", "--data", DATA, "--samples", "6", "--json"]
    first = edgevit(*arguments, cwd=tmp_path)
    assert first.code == 0, first.err
    assert first.result["resumed"] == 0
    again = edgevit(*arguments, cwd=tmp_path)
    assert again.result["resumed"] == again.result["tasks"] == 4
    assert again.result["rows"] == first.result["rows"]


@pytest.mark.long
def test_a_model_is_swept_over_targets_and_precisions(tmp_path: Path) -> None:
    model = FIXTURES / "models" / "fashion_vit_ts.onnx"
    arguments = ["sweep", str(model), "--grid", "target=onnx,iphone-npu", "--json"]
    arguments += ["--grid", "precision=fp32,fp16", "-o", str(tmp_path / "r.jsonl")]
    found = edgevit(*arguments, cwd=tmp_path)
    assert found.code == 0, found.err
    assert len(found.result["rows"]) == 4
