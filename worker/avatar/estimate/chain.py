"""The declared order of estimators, and who takes over when one fails on a job."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from worker.avatar.estimate.protocol import BodyEstimate, Estimator
from worker.avatar.types import Observation, Photo, Proposal, ViewName
from worker.errors import AvatarError, EstimateFailed

PRIOR: Final = "prior"
"""What `sources` names when no estimator proposed anything: height, weight and the keypoints."""

log = logging.getLogger(__name__)

_OF_THE_DEVICE: Final = re.compile(
    r"CUDA|CUBLAS|CUDNN|CUSOLVER|Accelerator|OutOfMemory|device-side|memory", re.IGNORECASE
)
"""In a `RuntimeError`: lost or full devices are for the engine to judge, which may have to end."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """What the chain came to."""

    estimates: Mapping[ViewName, BodyEstimate]
    """Empty when the prior starts the fit."""
    source: str
    """The estimator's, or `prior`."""
    failures: tuple[str, ...] = ()
    """Which estimators failed on this job, and why."""

    def told(self) -> Proposal:
        """What a fit remembers of it."""
        confidence = [(view.value, round(e.confidence, 3)) for view, e in self.estimates.items()]
        return Proposal(self.source, tuple(confidence), self.failures)


@dataclass(frozen=True, slots=True)
class EstimatorChain:
    """Estimators in their declared order; the prior is the last of every order."""

    estimators: tuple[Estimator, ...] = ()
    required: bool = False
    """REQUIRE_REAL_AVATAR: a job that all of them fail on fails; the prior does not take over."""

    def propose(self, photos: Sequence[Photo], observations: Sequence[Observation]) -> Proposed:
        """Ask the first estimator; the next one where it fails on the front photo.

        A side photo that it fails on is left to the fit alone.

        Raises:
            EstimateFailed: all failed, and one is required.
        """
        failures: list[str] = []
        for estimator in self.estimators:
            estimates: dict[ViewName, BodyEstimate] = {}
            for photo, seen in zip(photos, observations, strict=True):
                try:
                    estimates[photo.view] = _ask(estimator, photo, seen)
                except EstimateFailed as error:
                    failures.append(f"{estimator.source}, {photo.view.value}: {error.message}")
                    log.warning("estimator failed: %s", failures[-1])
                    if photo.view is ViewName.FRONT:
                        break
            if ViewName.FRONT in estimates:
                return Proposed(estimates, estimator.source, tuple(failures))
        if self.required:
            raise EstimateFailed("; ".join(failures) or None)
        return Proposed({}, PRIOR, tuple(failures))


def _ask(estimator: Estimator, photo: Photo, seen: Observation) -> BodyEstimate:
    try:
        return estimator.estimate(photo, seen)
    except (AvatarError, MemoryError):
        raise
    except Exception as error:
        # Vendors' code, OpenCV and TorchScript raise anything on input that they cannot deal with.
        if isinstance(error, RuntimeError) and _OF_THE_DEVICE.search(
            f"{type(error).__name__} {error}"
        ):
            raise
        log.warning("estimator %s broke", estimator.source, exc_info=error)
        raise EstimateFailed(f"{type(error).__name__}: {error}") from error
