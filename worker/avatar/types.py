"""What flows through the pipeline: frozen records, in the order in which they come to be.

Coordinates.  Images: pixels, x right, y down, the centre of the first pixel at (0.5, 0.5).
Cameras: metres, x right, y down, z forward (OpenCV).  Bodies: metres, y up, +z forward, the
left side at +x (SMPL-X).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
ByteArray = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
Int64Array = NDArray[np.int64]


class Gender(StrEnum):
    """Which body model is fitted."""

    NEUTRAL = "neutral"
    FEMALE = "female"
    MALE = "male"


class ViewName(StrEnum):
    """From where a photo shows the person."""

    FRONT = "front"
    SIDE = "side"


class Stage(StrEnum):
    """The pipeline's stages, in order; progress and timings carry these names."""

    PHOTO = "photo"
    OBSERVE = "observe"
    FIT = "fit"
    MEASURE = "measure"
    EXPORT = "export"


class DisplayPose(StrEnum):
    """The pose of the published body (AVATAR_DISPLAY_POSE)."""

    APOSE = "apose"
    TPOSE = "tpose"
    PIXIE = "pixie"


class Confidence(StrEnum):
    """How far the measurements can be trusted."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


Progress = Callable[[Stage, float], None]
"""Called with a stage and how much of it is done, 0..1."""

KEYPOINTS: tuple[str, ...] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_big_toe",
    "left_small_toe",
    "left_heel",
    "right_big_toe",
    "right_small_toe",
    "right_heel",
)
"""COCO's 17 keypoints, then COCO-WholeBody's six of the feet.  left/right are the person's."""


@dataclass(frozen=True, slots=True)
class AvatarRequest:
    """What the shopper declared and sent."""

    front: Path
    height_m: float
    side: Path | None = None
    weight_kg: float | None = None
    gender: Gender = Gender.NEUTRAL


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded, upright photo."""

    view: ViewName
    pixels: ByteArray
    """(H, W, 3) sRGB."""
    focal_px: float | None
    """From EXIF, in pixels of `pixels`; None when the file does not say."""
    shrunk: float = 1.0
    """How much smaller than usual it was made, to save memory: 0.5 is half the side."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera whose principal point is the image's centre."""

    focal_px: float
    width: int
    height: int
    known: bool
    """True when the focal length was read from the photo, False when it was assumed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of the one person in a photo."""

    view: ViewName
    intrinsics: Intrinsics
    box: Float32Array
    """(4,) x0, y0, x1, y1 of the person, in pixels."""
    keypoints: Float32Array
    """(23, 3) x_px, y_px, confidence 0..1, in the order of `KEYPOINTS`; 0 = not seen."""
    mask: Float32Array
    """(H, W) probability that the pixel shows the person."""
    warnings: tuple[str, ...] = ()
    source: str = ""
    """The observer that made this, for `sources`."""
    skin: Float32Array | None = None
    """(H, W) probability that the pixel shows bare skin; None: nobody looked, or could tell."""


@dataclass(frozen=True, slots=True)
class InitialGuess:
    """Where a fit may start, beside where it would by itself: the better of the two is taken."""

    betas: Float64Array | None
    """(K,) of the fitted body; None: nothing is known of the shape."""
    poses: Mapping[ViewName, Float64Array]
    """By view, (22, 3) axis-angle; row 0 turns the body into the camera's frame."""


@dataclass(frozen=True, slots=True)
class FittedView:
    """Pose and camera of the body in one photo."""

    view: ViewName
    intrinsics: Intrinsics
    pose: Float64Array
    """(55, 3) axis-angle, SMPL-X order; row 0 turns the body into the camera's frame."""
    transl: Float64Array
    """(3,) metres, in the camera's frame."""
    iou: float
    """Intersection over union of the body, in what it is taken to wear, and the observed mask."""
    keypoint_rmse_px: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """Who proposed where a fit may start."""

    source: str = "prior"
    """The estimator's name and digest; prior: none did."""
    confidence: tuple[tuple[str, float], ...] = ()
    """By view, 0..1."""
    failures: tuple[str, ...] = ()
    """Which estimators failed, and why."""


@dataclass(frozen=True, slots=True)
class BodyFit:
    """The shape that explains all views, and how sure it is."""

    gender: Gender
    betas: Float64Array
    """(K,) in standard deviations."""
    covariance: Float64Array
    """(K, K) of `betas`, from the curvature at the solution."""
    views: tuple[FittedView, ...]
    iterations: int
    warnings: tuple[str, ...] = ()
    wear: tuple[str, ...] = ()
    """How top and bottom most likely sit, of `body.garments.KINDS`; empty where nothing is worn."""
    proposal: Proposal = Proposal()


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What the shopper should know about the result."""

    confidence: Confidence
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AvatarResult:
    """What the pipeline leaves behind: files in `folder`, and the numbers in them."""

    folder: Path
    files: tuple[str, ...]
    """Names in `folder` to publish, inspection files included."""
    inspection_files: frozenset[str]
    """Those of `files` that show the person: published under PUBLISH_INSPECTION only."""
    measurements_cm: Mapping[str, float]
    """By the contract's names: chestCm, waistCm, …"""
    quality: QualityReport
    view_iou: Mapping[str, float]
    stage_seconds: Mapping[str, float]
    measurement_intervals_cm: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By the same names: low and high, which should hold the truth nine times in ten."""
    sources: Mapping[str, Any] = field(default_factory=dict)
    """Which observer, estimator, body and measurer made this, with digests."""
