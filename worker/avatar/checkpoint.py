"""What a request has computed so far, in files that another process can go on from.

    checkpoint_observe.npz    the observations of all photos
    checkpoint_fit.npz        the fitted body

They come back from a bucket, perhaps cut off, perhaps written by another version, so a file is
used only when everything in it is as it must be for this very request; otherwise it counts as not
there and the stage is computed again.  No pickles: they would be code.

Loading gives the arrays bit by bit as they were saved, so that a resumed avatar is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from worker.avatar.observe.skin import find_skin
from worker.avatar.types import (
    KEYPOINTS,
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

FILES: Final = {
    Stage.OBSERVE: "checkpoint_observe.npz",
    Stage.FIT: "checkpoint_fit.npz",
}
"""The resumable stages and their files."""

_HEADER: Final = "header"
_POSE_SHAPE: Final = (55, 3)
_MAX_HEADER_BYTES: Final = 64 * 1024
_NPY_HEAD_BYTES: Final = 4096

log = logging.getLogger(__name__)
Loaded = TypeVar("Loaded")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class _Camera(_Record):
    focal_px: float = Field(gt=0)
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    known: bool


class _Seen(_Record):
    view: str
    camera: _Camera
    warnings: tuple[str, ...]
    source: str


class _View(_Record):
    view: str
    camera: _Camera
    iou: float = Field(ge=0, le=1)
    keypoint_rmse_px: float = Field(ge=0)


class _Observations(_Record):
    key: str
    seen: tuple[_Seen, ...]


class _Proposal(_Record):
    source: str
    confidence: tuple[tuple[str, float], ...]
    failures: tuple[str, ...]


class _Fit(_Record):
    key: str
    gender: str
    views: tuple[_View, ...]
    iterations: int = Field(ge=0)
    warnings: tuple[str, ...]
    wear: tuple[str, ...]
    proposal: _Proposal


Header = TypeVar("Header", _Observations, _Fit)


def request_key(request: AvatarRequest, fingerprint: str, side_px: int) -> str:
    """Give the digest of all that decides what a request's observations and fit are.

    Args:
        request: its photos are read whole.
        fingerprint: of code, weights and choices.
        side_px: longest side of the photos that are worked on.
    """
    photos = [request.front] if request.side is None else [request.front, request.side]
    facts = {
        "fingerprint": fingerprint,
        "side_px": side_px,
        "photos": [hashlib.sha256(path.read_bytes()).hexdigest() for path in photos],
        "height_m": request.height_m,
        "weight_kg": request.weight_kg,
        "gender": request.gender.value,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The resumable files of one request.

    Args:
        folder: the job's folder.
        key: `request_key` of the request; a file with another one belongs to something else.
        resume: stages whose files may be there.
    """

    def __init__(self, folder: Path, key: str, resume: Sequence[str] = ()) -> None:
        self._folder = folder
        self._key = key
        self._resume = frozenset(resume)

    # ------------------------------------------------------------ observations
    def save_observations(self, observations: Sequence[Observation]) -> tuple[str, ...]:
        """Write the observations; return the file's name, or nothing when the disk refuses."""
        header = _Observations(
            key=self._key,
            seen=tuple(
                _Seen(
                    view=seen.view.value,
                    camera=_camera(seen.intrinsics),
                    warnings=seen.warnings,
                    source=seen.source,
                )
                for seen in observations
            ),
        )
        arrays: dict[str, NDArray[Any]] = {}
        for seen in observations:
            arrays |= {
                f"{seen.view.value}_box": seen.box,
                f"{seen.view.value}_keypoints": seen.keypoints,
                f"{seen.view.value}_mask": seen.mask,
            }
        return self._save(Stage.OBSERVE, header, arrays)

    def load_observations(self, photos: Sequence[Photo]) -> list[Observation] | None:
        """Read the observations of these photos; None: they must be made."""

        def read(archive: zipfile.ZipFile) -> list[Observation]:
            header = self._header(archive, _Observations)
            _require([seen.view for seen in header.seen] == [p.view.value for p in photos], "views")
            return [
                _observation(archive, seen, photo)
                for seen, photo in zip(header.seen, photos, strict=True)
            ]

        return self._load(Stage.OBSERVE, read)

    # ------------------------------------------------------------ the fit
    def save_fit(self, fit: BodyFit) -> tuple[str, ...]:
        """Write the fit; return the file's name, or nothing when the disk refuses."""
        header = _Fit(
            key=self._key,
            gender=fit.gender.value,
            views=tuple(
                _View(
                    view=view.view.value,
                    camera=_camera(view.intrinsics),
                    iou=view.iou,
                    keypoint_rmse_px=view.keypoint_rmse_px,
                )
                for view in fit.views
            ),
            iterations=fit.iterations,
            warnings=fit.warnings,
            wear=fit.wear,
            proposal=_Proposal(
                source=fit.proposal.source,
                confidence=fit.proposal.confidence,
                failures=fit.proposal.failures,
            ),
        )
        arrays: dict[str, NDArray[Any]] = {"betas": fit.betas, "covariance": fit.covariance}
        for view in fit.views:
            arrays |= {
                f"{view.view.value}_pose": view.pose,
                f"{view.view.value}_transl": view.transl,
            }
        return self._save(Stage.FIT, header, arrays)

    def load_fit(
        self, observations: Sequence[Observation], gender: Gender, num_betas: int
    ) -> BodyFit | None:
        """Read the fit to these observations; None: it must be made."""

        def read(archive: zipfile.ZipFile) -> BodyFit:
            header = self._header(archive, _Fit)
            _require(header.gender == gender.value, "gender")
            _require(
                [view.view for view in header.views] == [seen.view.value for seen in observations],
                "views",
            )
            double = np.dtype(np.float64)
            return BodyFit(
                gender=gender,
                betas=_array(archive, "betas", (num_betas,), double),
                covariance=_array(archive, "covariance", (num_betas, num_betas), double),
                views=tuple(
                    FittedView(
                        view=ViewName(view.view),
                        intrinsics=_intrinsics(view.camera),
                        pose=_array(archive, f"{view.view}_pose", _POSE_SHAPE, double),
                        transl=_array(archive, f"{view.view}_transl", (3,), double),
                        iou=view.iou,
                        keypoint_rmse_px=view.keypoint_rmse_px,
                    )
                    for view in header.views
                ),
                iterations=header.iterations,
                warnings=header.warnings,
                wear=header.wear,
                proposal=Proposal(
                    header.proposal.source,
                    header.proposal.confidence,
                    header.proposal.failures,
                ),
            )

        return self._load(Stage.FIT, read)

    # ------------------------------------------------------------ files
    def _save(
        self, stage: Stage, header: BaseModel, arrays: Mapping[str, NDArray[Any]]
    ) -> tuple[str, ...]:
        path = self._folder / FILES[stage]
        partial = path.with_suffix(".part.npz")
        text = np.frombuffer(header.model_dump_json().encode(), dtype=np.uint8)
        try:
            np.savez_compressed(
                partial,
                allow_pickle=False,
                **{_HEADER: text},
                **{name: np.ascontiguousarray(array) for name, array in arrays.items()},
            )
            partial.replace(path)
        except OSError as error:  # it only saves time later; the job does not need it
            log.warning("checkpoint of stage %s was not written: %s", stage.value, error)
            partial.unlink(missing_ok=True)
            return ()
        return (path.name,)

    def _load(self, stage: Stage, read: Callable[[zipfile.ZipFile], Loaded]) -> Loaded | None:
        if stage.value not in self._resume:
            return None
        try:
            with zipfile.ZipFile(self._folder / FILES[stage]) as archive:
                return read(archive)
        except Exception as error:  # noqa: BLE001 - zipfile has no one error for damaged archives
            log.warning("checkpoint of stage %s is not used: %s", stage.value, error)
            return None

    def _header(self, archive: zipfile.ZipFile, kind: type[Header]) -> Header:
        text = _array(archive, _HEADER, None, np.dtype(np.uint8)).tobytes()
        header = kind.model_validate_json(text)
        _require(header.key == self._key, "key")
        return header


def _array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...] | None, dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Read one array, when it is exactly as expected; `shape` None is a line of bounded length."""
    member = archive.getinfo(f"{name}.npy")
    limit = _MAX_HEADER_BYTES if shape is None else math.prod(shape) * dtype.itemsize
    _require(member.file_size <= limit + _NPY_HEAD_BYTES, f"size of {name}")
    with archive.open(member) as file:
        _require(npy.read_magic(file) == (1, 0), f"format of {name}")
        found, fortran_order, found_dtype = npy.read_array_header_1_0(file)
        _require(found_dtype == dtype and not fortran_order, f"type of {name}")
        _require(found == shape if shape is not None else len(found) == 1, f"shape of {name}")
        data = file.read()  # to its end, so that its checksum is compared
    array = np.frombuffer(data, dtype=dtype).reshape(found).copy()
    _require(dtype.kind != "f" or bool(np.isfinite(array).all()), f"numbers of {name}")
    return array


def _observation(archive: zipfile.ZipFile, seen: _Seen, photo: Photo) -> Observation:
    height, width = photo.pixels.shape[:2]
    _require((seen.camera.width, seen.camera.height) == (width, height), "size of the photo")
    single = np.dtype(np.float32)
    keypoints = _array(archive, f"{seen.view}_keypoints", (len(KEYPOINTS), 3), single)
    mask = _array(archive, f"{seen.view}_mask", (height, width), single)
    for values in (keypoints[:, 2], mask):
        _require(bool((values >= 0).all() and (values <= 1).all()), "range of probabilities")
    return Observation(
        view=photo.view,
        intrinsics=_intrinsics(seen.camera),
        box=_array(archive, f"{seen.view}_box", (4,), single),
        keypoints=keypoints,
        mask=mask,
        warnings=seen.warnings,
        source=seen.source,
        skin=find_skin(photo.pixels, keypoints),
    )


def _camera(intrinsics: Intrinsics) -> _Camera:
    return _Camera(
        focal_px=intrinsics.focal_px,
        width=intrinsics.width,
        height=intrinsics.height,
        known=intrinsics.known,
    )


def _intrinsics(camera: _Camera) -> Intrinsics:
    return Intrinsics(camera.focal_px, camera.width, camera.height, camera.known)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"its {what} is not as expected")
