"""How BlazePose's keypoints lie beside the body's own, and err (`blazepose.npz` of the fit).

    python -m recipes.keypoints.learn FOLDER [FOLDER ...]

Each folder holds cases of photos, whose true keypoints are known (docs/reference/bench-cases.md);
the shipped file is of the development split's everyday and tight people and of those that
`recipes.cases.generate` draws with seeds 611 (everyday) and 640 (tight): 180 people.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tests.benchmarks.cases import load_cases
from tests.benchmarks.observing import Refused, SeenCases
from worker.avatar.fit import priors
from worker.avatar.fit.definitions import NOISE_PATH
from worker.avatar.fit.evidence import SEEN_CONFIDENCE, person_height_px
from worker.avatar.fit.mirror import looks_left, mirrored, mirrored_keypoints
from worker.avatar.types import Float64Array, Observation, ViewName

_FARTHEST_SIGMAS = 3.0
"""One keypoint that is somewhere else altogether must not set how all others err."""
_NEVER_SEEN_PX = 25.0
_LEAST_SEEN = 8
_LEAST_VARIANCE = 0.5
"""Square pixels along any direction: pairs of keypoints are not all seen in the same photos."""


def main() -> None:
    """Observe, compare, and write beside the fit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    errors = {view: _errors(folders, view) for view in ViewName}
    arrays = {}
    for view, found in errors.items():
        offset, covariance = _moments(found)
        arrays[f"{view.value}_offset"] = offset.reshape(-1, 2).astype(np.float32)
        arrays[f"{view.value}_covariance"] = covariance.astype(np.float32)
    np.savez_compressed(NOISE_PATH, **arrays)


def _errors(folders: list[Path], view: ViewName) -> Float64Array:
    """(n, 46) working pixels, NaN where a keypoint was not seen."""
    observer, found = SeenCases(), []
    for case in (case for folder in folders for case in load_cases(folder)):
        with np.load(case.folder / "photos_truth.npz") as truth:
            true = truth[f"{view.value}_keypoints"].astype(np.float64)
        try:
            seen = observer.observation(case, view)
        except Refused:
            continue
        if looks_left(seen):
            seen, true = mirrored(seen), mirrored_keypoints(true, seen.intrinsics.width)
        found.append(_error(seen, true))
        if view is ViewName.FRONT:
            # People have no left and right from the front: the mirror doubles what is known.
            true = mirrored_keypoints(true, seen.intrinsics.width)
            found.append(_error(mirrored(seen), true))
    return np.stack(found)


def _error(seen: Observation, true: Float64Array) -> Float64Array:
    there = seen.keypoints[:, 2] > SEEN_CONFIDENCE
    places = seen.keypoints[:, :2].astype(np.float64)
    scale = priors.PERSON_HEIGHT_PX / person_height_px(seen, places[there])
    error = (places - true) * scale
    error[~there] = np.nan
    return np.asarray(error.ravel())


def _moments(errors: Float64Array) -> tuple[Float64Array, Float64Array]:
    seen = ~np.isnan(errors)
    count = seen.sum(axis=0)
    offset = np.where(seen, errors, 0.0).sum(axis=0) / np.maximum(count, 1)
    apart = np.where(seen, errors - offset, 0.0)
    spread = np.sqrt((apart**2).sum(axis=0) / np.maximum(count, 1))
    apart = np.clip(apart, -_FARTHEST_SIGMAS * spread, _FARTHEST_SIGMAS * spread)
    covariance = apart.T @ apart / np.maximum(seen.T.astype(np.float64) @ seen, 1)
    unknown = count < _LEAST_SEEN
    offset[unknown] = 0.0
    covariance[unknown] = covariance[:, unknown] = 0.0
    covariance[unknown, unknown] = _NEVER_SEEN_PX**2
    values, vectors = np.linalg.eigh(covariance)
    return offset, (vectors * np.maximum(values, _LEAST_VARIANCE)) @ vectors.T


if __name__ == "__main__":
    main()
