"""How BlazePose's keypoints lie beside the body's own, and err (`blazepose.npz` of the fit).

    python -m recipes.keypoints.learn FOLDER [FOLDER ...]

Each folder holds cases of photos, whose true keypoints are known (docs/reference/bench-cases.md);
the shipped file is of the development split's everyday and tight people and of those that
`recipes.cases.generate` draws with seeds 611 (everyday) and 640 (tight): 180 people.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.cases import load_cases
from tests.benchmarks.observing import Refused, SeenCases
from worker.avatar.fit import priors
from worker.avatar.fit.definitions import NOISE_PATH
from worker.avatar.fit.evidence import SEEN_CONFIDENCE, person_height_px
from worker.avatar.fit.mirror import looks_left, mirrored, mirrored_keypoints
from worker.avatar.types import BoolArray, Float64Array, Observation, ViewName

_FARTHEST_SIGMAS = 3.0
"""One keypoint that is somewhere else altogether must not set how all others err."""
_NEVER_SEEN_PX = 25.0
_LEAST_SEEN = 8
_LEAST_SEEN_FOR_A_SLOPE = 32
_LEAST_VARIANCE = 0.5
"""Square pixels along any direction: pairs of keypoints are not all seen in the same photos."""
_WAYS = 12
"""Principal components of where keypoints are that errors may go with; 8 and 20 were no better on
people left out (docs/decisions/0025)."""
_RIDGE = 10.0
"""Photos' worth of no slope at all."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Photos (n,) from one side."""

    errors: Float64Array
    """(n, 46) working pixels, NaN where a keypoint was not seen."""
    places: Float64Array
    """(n, 46) where keypoints truly were, from their middle."""
    people: int


def main() -> None:
    """Observe, compare, and write beside the fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    arrays = {}
    for view in ViewName:
        for name, array in _moments(_photos(folders, view)).items():
            arrays[f"{view.value}_{name}"] = array.astype(np.float32)
    np.savez_compressed(NOISE_PATH, **arrays)


def _photos(folders: list[Path], view: ViewName) -> _Seen:
    observer, found, people = SeenCases(), [], 0
    for case in (case for folder in folders for case in load_cases(folder)):
        with np.load(case.folder / "photos_truth.npz") as truth:
            true = truth[f"{view.value}_keypoints"].astype(np.float64)
        try:
            seen = observer.observation(case, view)
        except Refused:
            continue
        people += 1
        if looks_left(seen):
            seen, true = mirrored(seen), mirrored_keypoints(true, seen.intrinsics.width)
        found.append(_compared(seen, true))
        if view is ViewName.FRONT:
            # People have no left and right from the front: the mirror doubles what is known.
            true = mirrored_keypoints(true, seen.intrinsics.width)
            found.append(_compared(mirrored(seen), true))
    errors, places = (np.stack(each) for each in zip(*found, strict=True))
    return _Seen(errors, places, people)


def _compared(seen: Observation, true: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Error (46,) and true place (46,) of each keypoint."""
    there = seen.keypoints[:, 2] > SEEN_CONFIDENCE
    places = seen.keypoints[:, :2].astype(np.float64)
    scale = priors.PERSON_HEIGHT_PX / person_height_px(seen, places[there])
    error = (places - true) * scale
    error[~there] = np.nan
    return np.asarray(error.ravel()), np.asarray(((true - true.mean(axis=0)) * scale).ravel())


def _moments(photos: _Seen) -> dict[str, Float64Array]:
    seen = ~np.isnan(photos.errors)
    count = seen.sum(axis=0)
    offset = np.where(seen, photos.errors, 0.0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(seen, photos.errors - offset, 0.0)
    spread = np.sqrt((apart**2).sum(axis=0) / np.maximum(count, 1))
    apart = np.clip(apart, -_FARTHEST_SIGMAS * spread, _FARTHEST_SIGMAS * spread)
    usual = photos.places.mean(axis=0)
    slope = _slope(apart, seen, photos.places - usual)
    apart = np.where(seen, apart - (photos.places - usual) @ slope.T, 0.0)
    covariance = apart.T @ apart / np.maximum(seen.T.astype(np.float64) @ seen, 1)
    covariance *= photos.people / (photos.people - _WAYS)
    unknown = count < _LEAST_SEEN
    offset[unknown] = 0.0
    covariance[unknown] = covariance[:, unknown] = 0.0
    covariance[unknown, unknown] = _NEVER_SEEN_PX**2
    values, vectors = np.linalg.eigh(covariance)
    return {
        "offset": offset.reshape(-1, 2),
        "covariance": (vectors * np.maximum(values, _LEAST_VARIANCE)) @ vectors.T,
        "slope": slope,
        "usual": usual,
    }


def _slope(errors: Float64Array, seen: BoolArray, places: Float64Array) -> Float64Array:
    """(46, 46) ridge regression of errors (n, 46), each where it is seen, on places (n, 46).

    Places are taken from the middle of all keypoints, so that a photo of the same person farther to
    one side has the same errors.
    """
    _, sizes, ways = np.linalg.svd(places, full_matrices=False)
    ways = ways[:_WAYS] * (np.sqrt(len(places)) / sizes[:_WAYS, None])
    along = places @ ways.T
    slope = np.zeros((errors.shape[1], len(ways)))
    for keypoint, where in enumerate(seen.T):
        if where.sum() >= _LEAST_SEEN_FOR_A_SLOPE:
            some = along[where]
            slope[keypoint] = np.linalg.solve(
                some.T @ some + _RIDGE * np.eye(len(ways)), some.T @ errors[where, keypoint]
            )
    return np.asarray(slope @ ways)


if __name__ == "__main__":
    main()
