"""Where a photo shows bare skin: by the colours of the person's own face.

The face is found by the keypoints of eyes, ears and nose.  What it looks like under this light is
learned as two numbers of colour and one of brightness, the median and a robust spread of each.
Elsewhere skin has the same colour and, lit otherwise, another brightness; so colour decides and
brightness hardly.  Logarithms of ratios of linear light do not change when the light dims.

A beige shirt looks the same, and so do beige trousers.  That is why nobody should conclude from
this map that a trunk or a leg is bare; arms and neck are what it is for.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter

from worker.avatar.types import KEYPOINTS, BoolArray, ByteArray, Float32Array

_LEAST_SPREAD = (0.10, 0.10, 0.55)
"""Of the two logarithms of colour ratios and of the brightness's: light and shade on one skin."""
_MOST_SPREAD = (0.22, 0.22, 0.9)
_DARKEST = 4e-3
"""Linear light below which a pixel has no colour.  Where half of the face's pixels are as dark in
red, green or blue, they show black hair before it, or a face against the light: 0.69 and more in
profiles behind hair, 0.44 and less of the darkest skins in the worst light rendered."""
_OTHER_DENSITY = 0.03
"""How often other things look like this, against the middle of the skin's distribution."""
_OF_ONE_COLOUR = 0.9
"""Share of a photo within two spreads of the face's colour beyond which its colours tell nothing:
black-and-white and brown-toned photos have 0.97 and more.  Of 447 photos in colour none has more
than 0.64, all but six of them rendered."""
_SMALLEST_FACE_PX = 6.0
_FEWEST_PIXELS = 40
_LEAST_CONFIDENCE = 0.4


def find_skin(pixels: ByteArray, keypoints: Float32Array) -> Float32Array | None:
    """Return the probability (H, W) that a pixel shows the person's skin, in steps of 1/255.

    Args:
        pixels: (H, W, 3) sRGB.
        keypoints: (23, 3) x, y, confidence in the order of `KEYPOINTS`.

    Returns:
        The map, or None where the face cannot be seen well enough to learn from it, is too dark to
        have a colour, or has that of nearly all of the photo, as in black and white.
    """
    face = _face(keypoints, pixels.shape[:2])
    if face is None or int(face.sum()) < _FEWEST_PIXELS:
        return None
    log = _log_light(pixels)
    if float((log[face] <= math.log(_DARKEST)).any(axis=1).mean()) > 0.5:
        return None
    features = _features(log)
    seen = features[face]
    middle = np.median(seen, axis=0)
    spread = 1.4826 * np.median(np.abs(seen - middle), axis=0)
    spread = np.clip(1.5 * spread, _LEAST_SPREAD, _MOST_SPREAD)
    away = ((features - middle) / spread) ** 2
    of_colour = away[..., 0] + away[..., 1]
    if float((of_colour < 4.0).mean()) > _OF_ONE_COLOUR:
        return None
    like = np.exp(-0.5 * (of_colour + away[..., 2]))
    probability = uniform_filter(like / (like + _OTHER_DENSITY), 3, mode="nearest")
    return (np.round(probability * 255.0) / 255.0).astype(np.float32)


def _log_light(pixels: ByteArray) -> Float32Array:
    """(H, W, 3): logarithms of linear light, of `_DARKEST` and brighter."""
    value = np.arange(256) / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.log(np.maximum(linear, _DARKEST)).astype(np.float32)[pixels]


def _features(log: Float32Array) -> Float32Array:
    """(H, W, 3): logarithms of red over green, of blue over green, and of the brightness."""
    red, green, blue = log[..., 0], log[..., 1], log[..., 2]
    return np.stack((red - green, blue - green, (red + green + blue) / 3.0), axis=-1)


def _face(keypoints: Float32Array, shape: tuple[int, ...]) -> BoolArray | None:
    """(H, W) a disc on the cheeks and the nose, without hair and background."""
    at = {name: keypoints[KEYPOINTS.index(name)] for name in KEYPOINTS[:5]}
    seen = {name: place for name, place in at.items() if place[2] > _LEAST_CONFIDENCE}
    eyes = [seen[name][:2] for name in ("left_eye", "right_eye") if name in seen]
    ears = [seen[name][:2] for name in ("left_ear", "right_ear") if name in seen]
    if "nose" not in seen or not eyes:
        return None
    nose, eye = seen["nose"][:2], np.mean(eyes, axis=0)
    sizes = [np.linalg.norm(nose - place) for place in (*eyes, *ears)]
    size = float(max(sizes))
    if size < _SMALLEST_FACE_PX:
        return None
    # In profile the cheek lies between nose and ear, from the front it is around the nose.
    middle = nose
    if ears:
        middle = 0.65 * nose + 0.35 * np.mean(ears, axis=0)
    middle = middle + 0.35 * (nose - eye) * np.array([0.0, 1.0])
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    away = np.hypot(columns + 0.5 - middle[0], rows + 0.5 - middle[1])
    disc: BoolArray = away < 0.42 * size
    return disc
