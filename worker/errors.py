"""Every error that a job, an operator or a shopper can meet, in one tree.

    AvatarError
     ├─ SettingsError          the environment is wrong; nothing was started
     ├─ InputError             the person can fix it: never retried, advice is for the shopper
     │   ├─ PayloadInvalid  PhotoUrlForeign  PhotoNotFound
     │   ├─ PhotoTooLarge  PhotoUnreadable  PhotoTruncated  PhotoAnimated  PhotoUnsupported
     │   ├─ PhotoTooSmall  PhotoTooDark
     │   └─ NoPerson  SeveralPeople  FeetNotVisible  HeadNotVisible  LegsNotVisible
     │      PersonTooSmall  NotStanding  WrongView  BodyHidden
     ├─ ModelError             weights missing or wrong: the worker goes not ready
     │   └─ ModelMissing  ModelInvalid  LicensedEstimatorMissing  WeightsUnavailable
     ├─ EngineError            the computation broke: retried
     │   ├─ EngineUnavailable  OutOfMemory  EngineTimeout  EngineCrashed  GpuLost
     │   └─ JobKillsEngine  FitFailed  EstimateFailed  ToolMissing
     ├─ DependencyError        a service did not answer: retried with backoff
     │   └─ StorageUnavailable  ApiUnavailable  QueueUnavailable  DiskFull
     ├─ Cancelled              somebody who may has taken the job back: never retried
     └─ JobAborted             taken from us on purpose: neither failed nor finished
         └─ JobHeldElsewhere   another worker has the lease on data.jobId

A class's docstring is its default message.  `code` is stable and upper-case and is
documented in docs/reference/errors.md; `advice` is one sentence saying what to do next: to
the shopper for an `InputError`, to the operator for all others.  This module imports nothing
of the project, so that every wall may be crossed with it.
"""

from __future__ import annotations

import errno
import re
from typing import ClassVar, Self


class AvatarError(Exception):
    """The avatar could not be built."""

    code: ClassVar[str] = "AVATAR_ERROR"
    retryable: ClassVar[bool] = False
    default_advice: ClassVar[str] = "Look at the worker's log for the cause."

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).upper()

    def __init__(self, message: str | None = None, *, advice: str | None = None) -> None:
        doc = (type(self).__doc__ or "").strip().splitlines()
        self.message = message or (doc[0] if doc else type(self).__name__)
        self.advice = advice or self.default_advice
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.advice))

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def _rebuild(cls: type[AvatarError], message: str, advice: str) -> AvatarError:
    return cls(message, advice=advice)


class SettingsError(AvatarError):
    """The environment of the worker is wrong."""

    default_advice = "Correct the variable that is named and start again."


# ---------------------------------------------------------------- the person can fix it
class InputError(AvatarError):
    """The photos or the data of this job cannot be used."""

    default_advice = "Please try again with another photo."


class PayloadInvalid(InputError):
    """The job's data does not follow the contract."""

    default_advice = "Check the height and the photos, then send them again."


class PhotoUrlForeign(InputError):
    """The photo's URL does not point into this shop's bucket."""

    default_advice = "Please upload the photo again."


class PhotoNotFound(InputError):
    """The photo is not in the bucket."""

    default_advice = "The photo did not arrive. Please upload it again."


class PhotoTooLarge(InputError):
    """The photo is larger than we read."""

    default_advice = "Please send a photo of at most 25 MB and 50 megapixels."


class PhotoUnreadable(InputError):
    """The file is not a picture that can be read."""

    default_advice = "Please send a JPEG, PNG, WebP or HEIC photo."


class PhotoTruncated(InputError):
    """The photo ends in the middle."""

    default_advice = "The upload was cut off. Please upload the photo again."


class PhotoAnimated(InputError):
    """The file holds several pictures."""

    default_advice = "Please send a still photo, not an animation."


class PhotoUnsupported(InputError):
    """The file is a picture of a kind that is not accepted."""

    default_advice = "Please send a JPEG, PNG, WebP or HEIC photo."


class PhotoTooSmall(InputError):
    """The photo has too few pixels."""

    default_advice = "Please send the original photo, at least 480 pixels high."


class PhotoTooDark(InputError):
    """The photo is too dark or has too little contrast to see the outline."""

    default_advice = "Please take the photo in better light."


class NoPerson(InputError):
    """No person was found in the photo."""

    default_advice = "Please stand in front of the camera so that your whole body is visible."


class SeveralPeople(InputError):
    """More than one person is in the photo."""

    default_advice = "Only one person in the picture, please."


class FeetNotVisible(InputError):
    """The feet are outside the picture."""

    default_advice = "Please step back: your feet are not in the picture."


class LegsNotVisible(InputError):
    """The legs are outside the picture."""

    default_advice = "Please step back: your legs are not in the picture."


class HeadNotVisible(InputError):
    """The head is outside the picture."""

    default_advice = "Please step back: your head is not in the picture."


class PersonTooSmall(InputError):
    """The person fills too little of the picture."""

    default_advice = "Please come closer: you should fill most of the picture's height."


class NotStanding(InputError):
    """The person is not standing upright."""

    default_advice = "Please stand upright with straight legs and arms a little away from the body."


class WrongView(InputError):
    """The person does not face the way this photo needs."""

    default_advice = (
        "Please face the camera for the front photo and turn sideways for the side photo."
    )


class BodyHidden(InputError):
    """Clothing or objects hide so much that the body cannot be seen."""

    default_advice = "Please wear fitted clothes and keep your arms and legs visible."


class OutOfRange(InputError):
    """No adult body of ours has this height and these proportions."""

    default_advice = (
        "Check the height, and the weight if you gave one. Children, and people whose bodies are "
        "far from most adults', cannot be measured yet."
    )


# ---------------------------------------------------------------- weights
class ModelError(AvatarError):
    """A model that is needed cannot be used."""

    default_advice = "Run `avatar-worker doctor`; it names the file and how to get it."


class ModelMissing(ModelError):
    """A model file is missing."""


class ModelInvalid(ModelError):
    """A model file is not what it should be."""

    default_advice = "Delete the file that is named and fetch it again."


class LicensedEstimatorMissing(ModelError):
    """REQUIRE_REAL_AVATAR is set, but no licensed estimator is ready."""

    default_advice = (
        "Bring the weights that are named, or set REQUIRE_REAL_AVATAR=false to fit the free body, "
        "which is fitted for real and says so in `sources`."
    )


class WeightsUnavailable(ModelError):
    """Licensed weights could not be brought to the volume."""

    default_advice = "It is tried again; `models-sync plan` shows the same error by hand."


# ---------------------------------------------------------------- the computation
class EngineError(AvatarError):
    """The computation broke."""

    retryable = True
    default_advice = "The job is tried again; if it keeps failing, look at the worker's log."


class EngineUnavailable(EngineError):
    """There is no process that could compute."""

    default_advice = "GET /ready says why; the job is tried again, here or by another worker."


class OutOfMemory(EngineError):
    """The device ran out of memory."""


class EngineTimeout(EngineError):
    """The job took longer than PROCESSING_TIMEOUT."""


class EngineCrashed(EngineError):
    """The process that computes ended unexpectedly."""


class GpuLost(EngineError):
    """The GPU met an error that its process cannot recover from."""

    default_advice = (
        "The job is tried again in a fresh process; if it happens again, restart the pod and look "
        "at the GPU with nvidia-smi."
    )


class JobKillsEngine(EngineError):
    """This job has killed the process that computes more than once."""

    retryable = False
    default_advice = "Look at the photos and at the worker's log before the job is run again."


class FitFailed(EngineError):
    """The fit did not converge to a body."""


class EstimateFailed(EngineError):
    """A licensed estimator gave no body for this photo."""


class ToolMissing(EngineError):
    """An external program that was asked for is not there."""

    retryable = False
    default_advice = "Install the program that is named, or unset the variable that asks for it."


# ---------------------------------------------------------------- other services
class DependencyError(AvatarError):
    """A service that the worker needs did not answer."""

    retryable = True
    default_advice = "The job is tried again; check that the service is up and reachable."


class StorageUnavailable(DependencyError):
    """MinIO did not answer."""


class ApiUnavailable(DependencyError):
    """The API did not answer."""


class QueueUnavailable(DependencyError):
    """Redis did not answer."""


class DiskFull(DependencyError):
    """The disk on which the job's folder lies is full."""

    default_advice = "Free space where TMPDIR points to, or give the worker a larger disk."

    @classmethod
    def behind(cls, error: BaseException) -> Self | None:
        """Return this error when a full disk is what `error` comes from, else None."""
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, OSError) and link.errno in {errno.ENOSPC, errno.EDQUOT}:
                return cls()
            link = link.__cause__ or link.__context__
        return None


class Cancelled(AvatarError):
    """The job was cancelled."""

    default_advice = "Nothing to do: the job was taken back on request."


class JobAborted(AvatarError):
    """The job was taken away from this worker."""

    retryable = True
    default_advice = "Nothing to do: the job is back in the queue."


class JobHeldElsewhere(JobAborted):
    """Another worker holds the lease on this job's id."""
