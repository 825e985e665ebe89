"""Checkpoints come back bit by bit as they were, or not at all."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.avatar.checkpoint import FILES, Checkpoints, request_key
from worker.avatar.fingerprint import fingerprint, source_digest
from worker.avatar.types import (
    AvatarRequest,
    BodyFit,
    FittedView,
    Gender,
    Intrinsics,
    Observation,
    Photo,
    Proposal,
    Stage,
    ViewName,
)

HEIGHT, WIDTH, BETAS = 40, 30, 7
RESUME = ("observe", "fit")
random = np.random.default_rng(20)


def single(*shape: int) -> Any:
    return random.random(shape, dtype=np.float32)


def photo(view: ViewName) -> Photo:
    return Photo(view, np.zeros((HEIGHT, WIDTH, 3), np.uint8), focal_px=None)


def observation(view: ViewName) -> Observation:
    return Observation(
        view=view,
        intrinsics=Intrinsics(1234.5678901234567, WIDTH, HEIGHT, known=True),
        box=100 * single(4),
        keypoints=single(23, 3),
        mask=single(HEIGHT, WIDTH),
        warnings=("It is dark.", "Ärmel weit"),
        source="blazepose-full@e9a5c5cb",
    )


def fitted(view: ViewName) -> FittedView:
    return FittedView(
        view=view,
        intrinsics=Intrinsics(1 / 3, WIDTH, HEIGHT, known=False),
        pose=random.normal(size=(55, 3)),
        transl=random.normal(size=3),
        iou=0.1 + 0.2,
        keypoint_rmse_px=1e-17 + 3.3,
    )


VIEWS = (ViewName.FRONT, ViewName.SIDE)
PHOTOS = [photo(view) for view in VIEWS]
OBSERVATIONS = [observation(view) for view in VIEWS]
FIT = BodyFit(
    gender=Gender.FEMALE,
    betas=random.normal(size=BETAS),
    covariance=np.asfortranarray(random.normal(size=(BETAS, BETAS))),
    views=tuple(fitted(view) for view in VIEWS),
    iterations=18,
    warnings=("w",),
    proposal=Proposal("pixie@12345678", (("front", 0.5),), ("sam3d, front: nothing",)),
)


def assert_same(one: object, other: object) -> None:
    """Every field, also those that are added one day."""
    assert type(one) is type(other)
    if is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, np.ndarray):
        assert isinstance(other, np.ndarray)
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    elif isinstance(one, list | tuple):
        assert isinstance(other, list | tuple)
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path, "key", RESUME)
    assert kept.save_observations(OBSERVATIONS) == (FILES[Stage.OBSERVE],)
    assert kept.save_fit(FIT) == (FILES[Stage.FIT],)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES.values())
    return kept


def load_fit(kept: Checkpoints, gender: Gender = Gender.FEMALE, betas: int = BETAS) -> Any:
    return kept.load_fit(OBSERVATIONS, gender, betas)


def test_what_was_saved_comes_back_bit_by_bit(saved: Checkpoints) -> None:
    observations = saved.load_observations(PHOTOS)
    assert observations is not None
    assert_same(observations, OBSERVATIONS)
    assert_same(load_fit(saved), FIT)
    observations[0].mask[0, 0] = 1  # it can be worked on, as a fresh one can


def test_a_stage_that_is_not_to_be_resumed_is_not_looked_at(
    saved: Checkpoints, tmp_path: Path
) -> None:
    only_fit = Checkpoints(tmp_path, "key", ("fit",))
    assert only_fit.load_observations(PHOTOS) is None
    assert load_fit(only_fit) is not None


def test_what_belongs_to_another_request_is_not_used(saved: Checkpoints, tmp_path: Path) -> None:
    foreign = Checkpoints(tmp_path, "another key", RESUME)
    assert foreign.load_observations(PHOTOS) is None
    assert load_fit(foreign) is None
    assert saved.load_observations(PHOTOS[:1]) is None
    assert saved.load_observations([replace(p, pixels=p.pixels[1:]) for p in PHOTOS]) is None
    assert load_fit(saved, gender=Gender.MALE) is None
    assert load_fit(saved, betas=BETAS + 1) is None
    assert saved.load_fit(OBSERVATIONS[:1], Gender.FEMALE, BETAS) is None


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    change(arrays)
    with path.open("wb") as file:
        np.savez(file, **arrays)


def with_header(arrays: dict[str, Any], **changes: object) -> None:
    header = json.loads(arrays["header"].tobytes()) | changes
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)


def spoil(name: str, index: Any, value: float) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][index] = value

    return change


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a pickle": lambda a: a.update(betas=np.array([{"code": 1}], dtype=object)),
    "another type": lambda a: a.update(betas=a["betas"].astype(np.float32)),
    "another shape": lambda a: a.update(betas=a["betas"][:-1]),
    "another order": lambda a: a.update(covariance=np.asfortranarray(a["covariance"])),
    "an array that is missing": lambda a: a.pop("front_pose"),
    "a number that is none": spoil("betas", 0, np.nan),
    "an endless number": spoil("side_transl", 0, np.inf),
    "a header of another kind": lambda a: with_header(a, seen=[]),
    "a gender that is none": lambda a: with_header(a, gender="other"),
    "a header that is no JSON": lambda a: a.update(header=np.zeros(5, np.uint8)),
    "a header that is an image": lambda a: a.update(header=np.zeros((5, 5), np.uint8)),
    "a header without end": lambda a: a.update(header=np.zeros(10_000_000, np.uint8)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_not_as_it_must_be_is_not_used(
    saved: Checkpoints, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    rewritten(tmp_path / FILES[Stage.FIT], lambda _arrays: None)
    assert load_fit(saved) is not None
    rewritten(tmp_path / FILES[Stage.FIT], change)
    assert load_fit(saved) is None


@pytest.mark.parametrize("name", ["front_mask", "side_keypoints"])
def test_probabilities_beyond_one_are_not_used(
    saved: Checkpoints, tmp_path: Path, name: str
) -> None:
    rewritten(tmp_path / FILES[Stage.OBSERVE], spoil(name, (0, 2), 1.5))
    assert saved.load_observations(PHOTOS) is None


@pytest.mark.parametrize("stage", FILES, ids=lambda stage: stage.value)
def test_a_damaged_file_is_never_half_used(
    saved: Checkpoints, tmp_path: Path, stage: Stage
) -> None:
    """Cut off anywhere, or with a byte changed anywhere: as it was, or not at all."""
    path = tmp_path / FILES[stage]
    whole = path.read_bytes()

    def check() -> None:
        if stage is Stage.FIT:
            if (fit := load_fit(saved)) is not None:
                assert_same(fit, FIT)
        elif (observations := saved.load_observations(PHOTOS)) is not None:
            assert_same(observations, OBSERVATIONS)

    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert saved.load_observations(PHOTOS) is None or stage is Stage.FIT
        assert load_fit(saved) is None or stage is Stage.OBSERVE
    directory = range(len(whole) - 700, len(whole))
    for place in (*range(0, directory.start, 41), *directory):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        check()


def test_a_file_that_unfolds_to_gigabytes_is_refused_before_it_is_unfolded(
    saved: Checkpoints, tmp_path: Path
) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (10**9,)}
    )
    with (
        zipfile.ZipFile(tmp_path / FILES[Stage.FIT], "a", zipfile.ZIP_DEFLATED) as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("betas.npy", head.getvalue() + bytes(50_000_000))
    assert load_fit(saved) is None


def test_a_disk_that_is_full_costs_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "gone", "key")
    assert kept.save_fit(FIT) == ()


def test_the_key_changes_with_everything_that_decides_the_outcome(tmp_path: Path) -> None:
    front, side = tmp_path / "front", tmp_path / "side"
    front.write_bytes(b"a")
    side.write_bytes(b"b")
    request = AvatarRequest(front=front, side=side, height_m=1.7, weight_kg=60.0)
    variants = [
        request,
        replace(request, side=None),
        replace(request, front=side),
        replace(request, height_m=1.71),
        replace(request, weight_kg=None),
        replace(request, gender=Gender.MALE),
    ]
    keys = [request_key(variant, "f", 1600) for variant in variants]
    keys += [request_key(request, "g", 1600), request_key(request, "f", 800)]
    assert len(set(keys)) == len(keys)
    assert request_key(request, "f", 1600) == keys[0]


def test_the_fingerprint_is_that_of_code_weights_and_choices(tmp_path: Path) -> None:
    one = fingerprint(["b", "a"], {"pose": "apose"})
    assert one == fingerprint(["a", "b"], {"pose": "apose"})
    assert one != fingerprint(["a"], {"pose": "apose"})
    assert one != fingerprint(["a", "b"], {"pose": "tpose"})
    assert one != fingerprint(["a", "b"], {"pose": "apose"}, [tmp_path])
    (tmp_path / "a.py").write_text("x = 1")
    before = source_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("no code")
    assert source_digest(tmp_path) == before
    (tmp_path / "network.yaml").write_text("layers: 3")
    configured = source_digest(tmp_path)
    assert configured != before
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert source_digest(tmp_path) not in {before, configured}
