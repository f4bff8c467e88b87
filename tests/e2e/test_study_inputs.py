"""What a careless user gives to `edgevit simulate` and `edgevit sweep`: files and options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgevit import api
from edgevit.errors import InputError, UsageError
from edgevit.progress import SilentProgress
from edgevit.simtext import text_of_simulation
from edgevit.simulate import Pictures, Study, simulate
from edgevit.studies import parse_axes, standard_error
from edgevit.sweep import Sweep, finished, sweep, tasks_of
from edgevit.targets.optical import study as studied
from tests.support.cli import FIXTURES, PREPROCESS, edgevit

DATA = FIXTURES / "data" / "fashion_test_500.npz"
SHAPE = (1, 1, 28, 28)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("optical") / "vit.edgevit", "256x256")


def compiled(out: Path, plane: str) -> Path:
    api.compile(
        FIXTURES / "models" / "fashion_vit_ts.onnx",
        target=f"optical-4f:plane={plane}",
        preprocess=PREPROCESS,
        verify=False,
        output=out,
    )
    return out


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"base": {"photons": "1e300"}}, r"photons: expected 1e-12 <= photons <= 1e\+18"),
        ({"base": {"photons": "1e-300"}}, "photons: expected 1e-12 <= photons"),
        ({"base": {"photons": "9", "read-noise": "inf"}}, "read_noise: .* < inf electrons"),
        ({"base": {"mask-bits": "1100"}}, "mask_bits: expected 0 <= bits <= 24, found 1100"),
        ({"base": {"mask-bits": "-3"}}, "mask_bits: expected 0 <= bits <= 24, found -3"),
        ({"base": {"defocus": "nan"}, "path": "wave"}, "aberration 4: expected a finite"),
        ({"base": {"background": "9"}}, "background: expected finite photons beside it"),
        ({"base": {"laser-noise": "0.3"}}, "laser_noise: expected 0 <= laser_noise < 0.2"),
        ({"base": {"speckle": "-1"}}, "speckle: expected 0 <= speckle < inf full scales"),
        ({"base": {"nonuniformity": "1"}}, "nonuniformity: expected 0 <= prnu < 1"),
        ({"base": {"fill-factor": "0"}}, "fill_factor: expected 0 < fill_factor <= 1"),
        ({"base": {"crosstalk": "-1"}}, "crosstalk: expected 0 <= crosstalk < inf mask pix"),
        ({"base": {"rotation": "0.01"}}, "rotation: the fast path has no closed form"),
        ({"base": {"magnification": "3"}}, "magnification: expected 0.5 <= magnification <="),
        (
            {"base": {"photons": "1e3", "background": "5e3", "full-well": "8e3"}},
            r"full_well: expected 4 x photons \+ background <= full_well",
        ),
        ({"curves": {"photons": ["10", "1e1"]}}, "photons: the value 10.0 is given twice"),
        ({"seed": -1}, "seed: expected >= 0, found -1"),
        ({"setup": "catalogue-1080p-60", "reference_ms": 0.0}, "reference-ms: expected 0 <"),
        ({"setup": "catalogue-1080p-60", "reference_ms": -3.0}, "found -3"),
        ({"reference_ms": 3.0}, "latency is compared with a set-up's"),
        ({"data": None, "base": {"photons": "10"}}, "no samples"),
        ({"data": None, "curves": {"photons": ["1", "2"]}}, "no samples"),
    ],
)
def test_impossible_studies_are_refused(bundle: Path, study: Any, message: str) -> None:
    asked = Study(**{"data": DATA, "count": 2, **study})
    with pytest.raises(UsageError, match=message):
        simulate(bundle, asked, SilentProgress())


def test_light_at_both_ends_of_what_is_allowed_gives_finite_numbers(bundle: Path) -> None:
    for photons in ("1e-12", "1e18"):
        base = {"photons": photons, "read-noise": "5", "adc-bits": "8"}
        study = Study(data=DATA, count=4, base=base)
        with np.errstate(invalid="raise"):
            (point,) = simulate(bundle, study, SilentProgress())["points"]
        assert (point["accuracy"] > 0.5) == (photons == "1e18")


def test_numbers_that_are_not_finite_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [np.array([[np.nan, 0.0]]), np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
    monkeypatch.setattr(studied, "answers", lambda *_: iter(found))
    subject: Any = None
    samples: list[dict[str, Any]] = [{}] * 3
    out = studied.evaluate(subject, samples, [0, 0, 0], studied.Point(), 0)
    assert out == studied.Outcome(1, 3)


def test_every_parameter_that_varies_has_a_column(bundle: Path) -> None:
    study = Study(
        data=DATA, count=1, base={"photons": "100"}, curves={"read-noise": ["1.25", "7.5"]}
    )
    text = text_of_simulation(simulate(bundle, study, SilentProgress()))
    (head,) = [line for line in text.splitlines() if line.startswith("axis")]
    assert "read noise" in head
    rows = [line for line in text.splitlines() if line.startswith("read-noise")]
    assert ["1.25" in rows[0], "7.5" in rows[1]] == [True, True]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 5, 5))}, r"'x': expected float32 \[samples, 1, 1, 28, 28\]"),
        ({"x": np.float32(3)}, r"'x': expected .* found float32 \(\)"),
        ({"x": np.full((3, *SHAPE), "a")}, "'x': expected float32"),
        ({"x": np.zeros((3, *SHAPE), complex)}, "found complex128"),
        ({"x": np.full((3, *SHAPE), np.nan)}, "'x' holds NaN or infinity"),
        ({"images": np.uint8(3)}, "images: expected uint8"),
        ({"images": np.zeros(3, np.uint8)}, "images: expected uint8"),
        ({"x": np.zeros((3, *SHAPE)), "labels": np.int64(3)}, "labels: expected whole"),
        ({"x": np.zeros((3, *SHAPE)), "labels": np.array([*"abc"])}, "labels: expected whole"),
        ({"x": np.zeros((3, *SHAPE)), "labels": np.array([1.5, 2, 3])}, "found float64"),
        ({"x": np.zeros((3, *SHAPE)), "labels": np.array([1, 2])}, "3 samples, but 2 labels"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    bundle: Path, tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message):
        simulate(bundle, Study(data=path), SilentProgress())


def test_a_folder_that_cannot_be_made_is_refused_first(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    layer = "/blocks/blocks.0/mlp/mlp.0/MatMul_output_0"
    pictures = Pictures(layer, 0, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written: File exists"):
        simulate(bundle, Study(data=DATA, pictures=pictures), SilentProgress())
    pictures = Pictures("nothing", 0, tmp_path / "new")
    with pytest.raises(UsageError, match="no optical layer 'nothing'"):
        simulate(bundle, Study(data=DATA, pictures=pictures), SilentProgress())
    assert not (tmp_path / "new").exists()


def test_a_device_has_one_value_of_each_kind(bundle: Path, tmp_path: Path) -> None:
    ran = edgevit("simulate", bundle, "--device", "photons=1,2", "--json", cwd=tmp_path)
    assert ran.code == 2
    assert ran.error["message"] == "--device photons: expected one value, found 2"
    assert "--curve photons=1,2" in ran.error["hint"]


def asked(bundle: Path, out: Path, grid: str = "photons=1,10", **more: Any) -> Sweep:
    return Sweep(bundle, parse_axes([grid]), out, **{"data": DATA, "count": 6, **more})


@pytest.mark.parametrize(
    "held",
    [
        b"a,b\n1,2\n",
        b"no line end",
        bytes(range(256)),
        b'{"x": 1}\n{"x": 2}\n',
        b'{"key": "k"}\n\n',
        b'{"key": "k"}\nnotes',
    ],
)
def test_a_file_of_something_else_stays_as_it_is(
    bundle: Path, tmp_path: Path, held: bytes
) -> None:
    path = tmp_path / "precious"
    path.write_bytes(held)
    with pytest.raises(InputError, match=r"line [12]: expected a result of a sweep"):
        sweep(asked(bundle, path), SilentProgress())
    assert path.read_bytes() == held


@pytest.mark.parametrize("cut", [1, 2, 9])
def test_a_line_cut_anywhere_is_taken_away(tmp_path: Path, cut: int) -> None:
    path, row = tmp_path / "r.jsonl", b'{"key": "k", "right": 1}\n'
    path.write_bytes(row + row[:cut])
    assert finished(path) == {"k": {"key": "k", "right": 1}}
    assert path.read_bytes() == row


@pytest.mark.parametrize("change", [lambda p: compiled(p, "512x512"), None])
def test_results_of_other_contents_are_not_resumed_from(
    tmp_path: Path, change: Callable[[Path], Path] | None
) -> None:
    data = tmp_path / "data.npz"
    data.write_bytes(DATA.read_bytes())
    place = tmp_path / "b.edgevit"
    what = asked(compiled(place, "256x256"), tmp_path / "r.jsonl", data=data)
    before = {t["key"] for t in tasks_of(what)}
    assert {t["key"] for t in tasks_of(what)} == before
    if change is None:
        with np.load(DATA) as held:
            np.savez(data, images=held["images"][::-1], labels=held["labels"][::-1])
    else:
        place.rename(tmp_path / "old.edgevit")
        change(place)
    assert before.isdisjoint(t["key"] for t in tasks_of(what))


@pytest.mark.parametrize(
    ("grid", "more", "message"),
    [
        ("photons=10,10.0", {}, "photons: the value 10.0 is given twice"),
        ("photons=10,10", {}, "photons: the value 10 is given twice"),
        ("photons=10", {"seed": -1}, "seed: expected >= 0"),
        ("photons=10", {"subject": Path("nowhere.edgevit")}, "no such bundle or model"),
        (
            "precision=fp32",
            {"subject": FIXTURES / "models" / "fashion_vit_ts.onnx"},
            "targets",
        ),
    ],
)
def test_impossible_sweeps_are_refused(
    bundle: Path, tmp_path: Path, grid: str, more: dict[str, Any], message: str
) -> None:
    subject = more.pop("subject", bundle)
    with pytest.raises((InputError, UsageError), match=message):
        sweep(asked(subject, tmp_path / "r.jsonl", grid, **more), SilentProgress())


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (("", ""), "", ""),
        (("", ""), ":catalogue-1080p-60", ""),
        (("", ""), ":other", "expected one of its set-ups catalogue-1080p-60, found 'other'"),
        (("focal1", "focal"), "", "unknown key 'focal'|absent key 'focal1'"),
        (('"mm"', '"furlong"'), "", "expected a length in m, mm, um, nm"),
    ],
)
def test_a_set_up_of_ones_own(
    bundle: Path, tmp_path: Path, change: tuple[str, str], name: str, message: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(one_of_the_built_in().replace(*change))
    study = Study(setup=f"{path}{name}")
    if message:
        with pytest.raises(UsageError, match=message):
            simulate(bundle, study, SilentProgress())
        return
    mine = simulate(bundle, study, SilentProgress())["cost"]
    built_in = simulate(bundle, Study(setup="catalogue-1080p-60"), SilentProgress())["cost"]
    assert mine == built_in
    # Exposures of 100 ms take longer than the 60 Hz of the modulators.
    long = path.read_text().replace('value = 1000, unit = "us"', 'value = 100, unit = "ms"')
    path.write_text(long.replace("[catalogue-1080p-60", "[mine"))
    slow = simulate(bundle, Study(setup=str(path)), SilentProgress())["cost"]
    frames = 0.1 * slow["frames"]
    assert slow["seconds"] == pytest.approx(frames + slow["mask_seconds"], rel=1e-6)
    assert slow["headline"].startswith("set-up mine;")


def one_of_the_built_in() -> str:
    """Everything about the first set-up in the package's file."""
    import importlib.resources

    file = importlib.resources.files("edgevit.sim4f.devices").joinpath("setups.toml")
    lines = file.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("[")]
    ours = [i for i in starts if lines[i].startswith("[catalogue-1080p-60")]
    end = next((i for i in starts if i > ours[-1]), len(lines))
    return "\n".join(lines[ours[0] : end]) + "\n"


def test_a_set_up_file_that_is_not_there_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.toml cannot be read"):
        simulate(bundle, Study(setup=str(tmp_path / "mine.toml")), SilentProgress())


def test_what_the_light_and_the_mask_do_can_be_asked_for(bundle: Path) -> None:
    """Strong disturbances cost answers, each by itself; weak ones together hardly any."""
    weak = {"photons": "1e4", "background": "100", "speckle": "1e-7", "laser-noise": "1e-3"}
    weak |= {"nonuniformity": "1e-3", "crosstalk": "0.01"}
    asked = Study(
        data=DATA,
        count=30,
        base=weak,
        curves={
            "background": ["1e8"],
            "speckle": ["0.3"],
            "nonuniformity": ["0.9"],
            "fill-factor": ["0.9"],
            "crosstalk": ["0.9"],
        },
    )
    found = simulate(bundle, asked, SilentProgress())
    base, *strong = found["points"]
    assert base["accuracy"] > 0.6
    for point in strong:
        assert point["accuracy"] < base["accuracy"] - 0.2, point["axis"]
    text = text_of_simulation(found)
    assert "laser noise" in text
    said = "not in this table: background, crosstalk, laser-noise, nonuniformity, speckle"
    assert said in text


def test_points_keep_their_keys_when_fields_are_added() -> None:
    """Literal text: results and seeds of earlier sweeps go by it."""
    old = '{"adc_bits":0,"defocus":0.0,"display_bits":0,"mask_bits":0,"photons":9.0,'
    assert studied.Point(photons=9.0).key == old + '"read_noise":0.0,"shift":0.0}'
    more = studied.Point(photons=9.0, fill_factor=0.9, full_well=40.0)
    assert '"fill_factor":0.9' in more.key
    assert '"full_well":40.0' in more.key


@pytest.mark.parametrize(("right", "samples"), [(0, 50), (50, 50), (37, 50), (1, 1)])
def test_a_standard_error_is_half_of_wilsons_interval(right: int, samples: int) -> None:
    """Its ends solve ``(share - p)^2 = p (1 - p) / n``."""
    share = right / samples
    low, high = sorted(np.roots([1 + 1 / samples, -(2 * share + 1 / samples), share**2]).real)
    assert standard_error(right, samples) == pytest.approx((high - low) / 2, rel=1e-6)
    assert standard_error(right, samples) > 0
