"""The benchmark of the fit: what it reads, what it keeps, and how its figures come about."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.cases import Case, MalformedCase, load_cases
from tests.benchmarks.figures import Row, mean_girths_cm, setup_figures
from tests.benchmarks.judge import Judge, Outcome
from tests.benchmarks.observing import Refused, SeenCases
from tests.benchmarks.run import run
from tests.benchmarks.setups import Setup
from worker.avatar.measure.intervals import INFLATION, MODEL_ERROR_CM, NINETY_PERCENT
from worker.avatar.types import Intrinsics, Observation, Photo, ViewName
from worker.errors import NotStanding

COMMITTED = Path(__file__).parents[1] / "data/cases"


@pytest.fixture
def man(tmp_path: Path) -> Path:
    """A copy of the committed man, to spoil."""
    shutil.copytree(COMMITTED / "male-00", tmp_path / "set/male-00")
    return tmp_path / "set/male-00"


def _edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def _read(case: Case) -> None:
    """Everything that a fit needs of a case."""
    assert case.request
    assert case.gender
    assert case.truth
    case.vertices()
    case.observation(ViewName.FRONT)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda man: (man / "truth.json").unlink(), "truth.json is missing"),
        (lambda man: (man / "request.json").write_text("{"), "request.json is no JSON"),
        (lambda man: (man / "request.json").write_text("[1]"), "request.json is no JSON object"),
        (
            lambda man: _edited(man / "request.json", lambda r: r.update(heightCm="tall")),
            "heightCm of request.json is no number above 0: 'tall'",
        ),
        (
            lambda man: _edited(man / "truth.json", lambda t: t.update(measurementsCm={})),
            "truth.json holds no measurementsCm",
        ),
        (
            lambda man: _edited(man / "truth.json", lambda t: t.update(gender="man")),
            "'man' is none of neutral, female, male",
        ),
        (lambda man: (man / "truth.npz").unlink(), "truth.npz is missing, but truth.json names"),
        (
            lambda man: (man / "front_mask.png").unlink(),
            "neither a front photo nor front_mask.png",
        ),
        (
            lambda man: Image.new("L", (10, 10)).save(man / "front_mask.png"),
            "the front mask is not 768 × 1024 as camera.json says",
        ),
        (
            lambda man: Image.new("L", (768, 1024)).save(man / "front_mask.png"),
            "nobody is in the front mask",
        ),
        (
            lambda man: _edited(man / "front_keypoints.json", lambda k: k["names"].reverse()),
            "front keypoints are not named as KEYPOINTS",
        ),
        (
            lambda man: _edited(man / "front_keypoints.json", lambda k: k["xyc"].pop()),
            "front keypoints are not rows of x, y, c",
        ),
        (
            lambda man: _edited(man / "camera.json", lambda c: c.pop("front")),
            "camera.json says nothing of front",
        ),
    ],
)
def test_a_malformed_case_is_named_with_its_folder(
    man: Path, spoil: Callable[[Path], object], named: str
) -> None:
    spoil(man)
    case = Case(man)
    with pytest.raises(MalformedCase, match=re.escape(named)) as error:
        _read(case)
    assert str(man) in str(error.value)


def test_a_set_without_cases_is_malformed(tmp_path: Path) -> None:
    with pytest.raises(MalformedCase, match=r"no folder in it has a request\.json"):
        load_cases(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("request.json", '{"heightCm": -1}', "heightCm of request.json is no number above 0: -1"),
        ("truth.json", "{}", "truth.json holds no measurementsCm"),
        ("front_mask.png", None, "neither a front photo nor front_mask.png"),
    ],
)
def test_a_set_is_read_before_anything_is_fitted(
    man: Path, name: str, content: str | None, named: str
) -> None:
    (man / name).unlink()
    if content is not None:
        (man / name).write_text(content)
    with pytest.raises(MalformedCase, match=re.escape(named)):
        load_cases(man.parent)


class _Eyes:
    """An observer that counts how often it looks."""

    def __init__(self) -> None:
        self.looks = 0

    def observe(self, photo: Photo) -> Observation:
        """See a square, from the front only."""
        self.looks += 1
        if photo.view is ViewName.SIDE:
            raise NotStanding
        height, width = photo.pixels.shape[:2]
        mask = np.zeros((height, width), dtype=np.float32)
        mask[10:-10, 20:-20] = 0.75
        return Observation(
            photo.view,
            Intrinsics(700.0, width, height, known=False),
            np.array([20, 10, width - 20, height - 10], dtype=np.float32),
            np.full((23, 3), 0.5, dtype=np.float32),
            mask,
            ("a warning",),
            "eyes",
        )


@pytest.fixture
def eyes(man: Path, monkeypatch: pytest.MonkeyPatch) -> _Eyes:
    """Photos beside the man's masks, and who looks at them."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 450, 3), dtype=np.uint8)
    for view in ViewName:
        Image.fromarray(noise).save(man / f"{view.value}.jpg")
    looking = _Eyes()
    monkeypatch.setattr("tests.benchmarks.observing.Observer.load", lambda *_args, **_more: looking)
    return looking


def test_photos_are_seen_once_and_as_they_were(man: Path, eyes: _Eyes) -> None:
    first = SeenCases().observation(Case(man), ViewName.FRONT)
    again = SeenCases().observation(Case(man), ViewName.FRONT)
    assert eyes.looks == 1
    assert np.array_equal(first.mask, again.mask)
    assert (again.intrinsics, again.warnings, again.source) == (
        Intrinsics(700.0, 450, 600, known=False),
        ("a warning",),
        "eyes",
    )
    Image.new("RGB", (450, 600), (90, 200, 40)).save(man / "front.jpg")
    with pytest.raises(Refused, match="PHOTO_TOO_DARK"):
        SeenCases().observation(Case(man), ViewName.FRONT)


def test_a_refused_photo_stays_refused(man: Path, eyes: _Eyes) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match="NOT_STANDING"):
            SeenCases().observation(Case(man), ViewName.SIDE)
    assert eyes.looks == 1


def test_masks_are_taken_instead_of_photos_when_asked(man: Path, eyes: _Eyes) -> None:
    seen = SeenCases(direct=True).observation(Case(man), ViewName.FRONT)
    assert eyes.looks == 0
    assert seen.source == "synthetic"


def _row(off: float, *, gender: str = "male", half: float = 1.0, refused: str | None = None) -> Row:
    if refused:
        return Row("set", "x", gender, Outcome(refused=refused))
    keys = ("chestCm", "waistCm", "hipCm", "insideLegCm")
    return Row(
        "set",
        "x",
        gender,
        Outcome(
            off_cm=dict.fromkeys(keys, off),
            intervals_cm=dict.fromkeys(keys, (90 + off - half, 90 + off + half)),
            truth_cm=dict.fromkeys(keys, 90.0),
            vertex_mm=5.0,
            seconds=abs(off),
            iou=0.9,
        ),
    )


def test_figures_are_means_over_those_who_came_out() -> None:
    rows = [_row(1.0), _row(-3.0, gender="female"), _row(0, refused="NO_PERSON"), _row(2.0)]
    guesses = [_row(5.0), _row(5.0), _row(500.0), _row(5.0)]
    figures = setup_figures("front+side/everyday", rows, {"height": guesses})
    assert (figures["n"], figures["refused"]) == (3, {"NO_PERSON": 1})
    assert figures["mae_cm"]["inseam"] == 2.0
    assert figures["bias_cm"]["chest"] == 0.0
    assert figures["standard_error_cm"]["waist"] == pytest.approx(0.47, abs=0.01)
    assert figures["seconds_median"] == 2.0
    assert figures["by_gender"]["female"]["mae_cm"]["hip"] == 3.0
    assert figures["coverage90"] == pytest.approx(1 / 3, abs=0.001)
    assert figures["half_width_cm"]["hip"] == 1.0
    # The refused case is left out of what it is held against, too.
    assert figures["baselines"]["height"]["mae_cm"]["chest"] == 5.0
    assert mean_girths_cm(figures) == 2.0
    assert figures["target"] == {
        "girths_cm": 2.3,
        "girths_mean_cm": 2.0,
        "girths_reached": True,
        "inseam_cm": 0.9,
        "inseam_reached": False,
    }


def test_a_target_is_missed_by_one_bad_girth() -> None:
    row = _row(1.0)
    off = {**row.outcome.off_cm, "chestCm": 3.5}
    bad = Row("set", "x", "male", Outcome(off_cm=off, truth_cm=row.outcome.truth_cm, seconds=1.0))
    figures = setup_figures("front+side/everyday", [bad], {})
    assert figures["target"]["girths_mean_cm"] < 2.3
    assert figures["target"]["girths_reached"] is False
    assert figures["coverage90"] is None


@pytest.fixture(scope="module")
def judge() -> Judge:
    """All bodies."""
    return Judge()


def test_intervals_are_calibrated_on_what_they_are_made_of(man: Path, judge: Judge) -> None:
    setup = Setup("front+weight", (ViewName.FRONT,), weight=True)
    whole, alone = judge.fit(Case(man), setup), judge.off_and_believed_cm(Case(man), setup)
    assert alone is not None
    off_cm, believed_cm = alone
    assert off_cm == whole.off_cm
    assert whole.intervals_cm is not None
    for key, (low, high) in whole.intervals_cm.items():
        # Nobody wears anything in this case: less is left of the model's error.
        most = np.hypot(INFLATION[key] * believed_cm[key], MODEL_ERROR_CM[key])
        least = INFLATION[key] * believed_cm[key]
        sigma = (high - low) / 2 / NINETY_PERCENT
        assert least - 1e-9 <= sigma <= most + 1e-9, key


def test_the_report_has_the_shape_that_is_documented(man: Path, judge: Judge) -> None:
    setup = Setup("front+weight", (ViewName.FRONT,), weight=True)
    report = run([man.parent], [setup], judge, None, quiet=True)
    assert list(report["setups"]) == ["front+weight/set (direct)"]
    one = report["setups"]["front+weight/set (direct)"]
    assert {"mae_cm", "bias_cm", "standard_error_cm", "coverage90", "n"} <= set(one)
    assert {"chest", "waist", "hip", "inseam", "neck"} <= set(one["mae_cm"])
    assert {"height", "height+weight", "floor"} == set(one["baselines"])
    assert one["n"] == 1
    assert one["baselines"]["floor"]["mae_cm"]["chest"] < 1.5
    assert one["mae_cm"]["chest"] < one["baselines"]["height"]["mae_cm"]["chest"]
    assert [row["case"] for row in report["cases"]["front+weight/set (direct)"]] == ["male-00"]
    json.dumps(report)


def test_a_tape_alone_is_enough_truth(man: Path, judge: Judge) -> None:
    _edited(
        man / "truth.json",
        lambda t: (
            t.pop("verticesFile"),
            t.pop("gender"),
            t.update(measurementsCm={"chestCm": 99.0}),
        ),
    )
    _edited(man / "request.json", lambda r: (r.pop("weightKg"), r.pop("gender")))
    setup = Setup("front", (ViewName.FRONT,))
    report = run([man.parent], [setup], judge, None, quiet=True)
    one = report["setups"]["front/set (direct)"]
    assert set(one["mae_cm"]) == {"chest"}
    assert one["baselines"]["floor"] is None
    assert one["baselines"]["height+weight"] is None
    assert one["baselines"]["height"]["n"] == 1
    assert one["vertex_mm"] is None
