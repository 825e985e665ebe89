"""What can go wrong while weights travel.

    SyncError
     ├─ SyncSettingsError   a MODEL_SYNC_* variable is missing or wrong
     ├─ BucketRefused       the key is wrong, expired or may not do this
     │   └─ ClockWrong      the server does not believe our clock
     ├─ BucketUnreachable   no answer, or an answer that is no S3
     │   ├─ AnswerStrange   something between us and the bucket answers in its place
     │   │   └─ CertificateUntrusted  the server's certificate proves nothing to us
     │   ├─ HostUnknown     its name cannot be resolved
     │   ├─ BucketBusy      it asks us to come back later (503)
     │   ├─ TransferCut     the connection ended before the bytes did
     │   └─ TransferStalled the connection lives and brings nothing
     ├─ NothingThere        a source that was asked for has no file in the bucket
     │   └─ ObjectMissing   a file that the manifest names is not in the bucket
     ├─ UnsafeKey           an object's name would leave the folder or hide another file
     ├─ ObjectDamaged       what arrived is not what was published
     │   └─ ObjectReplaced  the object became another one while it was read
     ├─ Interrupted         asked to stop; what arrived is kept
     ├─ ManifestInvalid     manifest.json cannot be read
     │   └─ ManifestAbsent  none is kept beside the files
     ├─ ManifestUntrusted   its signature is missing or wrong
     │   └─ ManifestOlder   it is older than the one that was trusted last
     ├─ VolumeUnwritable    the folder cannot take the files
     │   ├─ FolderElsewhere      a link leads out of it
     │   ├─ VolumeReadOnly       it is mounted so
     │   └─ VolumeOfAnotherUser  it belongs to a user that we are not
     ├─ KeyFileUnusable     the file that signs is missing or no ed25519 key
     ├─ PickleRefused       a pickle wants more than arrays
     ├─ NotABodyModel       a file lacks what a body of the SMPL family has
     ├─ PlacementBlocked    something else lies where a file should be placed
     ├─ PlacementMissing    a place that cannot be written lacks a file
     ├─ SourceUnusable      the folder to publish is empty, unreadable or changes
     ├─ PublishConflict     someone else published meanwhile
     ├─ AdminUnavailable    the server does not take MinIO's administration calls
     └─ WeightsIncomplete   files are missing or are not what the manifest says

A class's docstring is its default message; `advice` says what to do next; `exit_code` is what
`models-sync` ends with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class SyncError(Exception):
    """The weights could not be brought here."""

    exit_code: ClassVar[int] = 1
    advice: ClassVar[str] = "Run the command again; what arrived whole is kept."

    def __init__(self, message: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.message)


class SyncSettingsError(SyncError):
    """A MODEL_SYNC_* variable is missing or wrong."""

    exit_code = 2
    advice = "Set the variable that is named and run the command again."


class BucketRefused(SyncError):
    """The bucket refused what was asked with this key."""

    exit_code = 3
    advice = (
        "Check MODEL_SYNC_MINIO_ACCESS_KEY and MODEL_SYNC_MINIO_SECRET_KEY, and that the user's "
        "policy allows s3:ListBucket and s3:GetObject on these prefixes; to publish, s3:PutObject "
        "too, and s3:DeleteObject for --mirror."
    )


class ClockWrong(BucketRefused):
    """The server does not believe the clock of this machine."""

    advice = "Set this machine's clock (NTP); signatures are valid for 15 minutes."


class BucketUnreachable(SyncError):
    """The bucket's server did not answer."""

    exit_code = 4
    advice = "Check MODEL_SYNC_MINIO_ENDPOINT and MODEL_SYNC_MINIO_SECURE, then try again."


class AnswerStrange(BucketUnreachable):
    """The answer is not that of an S3 server, or not to what was asked."""

    advice = (
        "Look at what lies between: a proxy that strips Range, a login page, a wrong port. "
        "MODEL_SYNC_MINIO_ENDPOINT must reach the S3 server itself."
    )


class CertificateUntrusted(AnswerStrange):
    """The certificate of the bucket's server is not one that is trusted here."""

    advice = (
        "Name a PEM file with the authority that signed it in SSL_CERT_FILE, and the server in "
        "MODEL_SYNC_MINIO_ENDPOINT as its certificate does. If neither is wrong, somebody else "
        "answers in its place."
    )


class HostUnknown(BucketUnreachable):
    """The name of the bucket's server cannot be resolved."""

    advice = "Check MODEL_SYNC_MINIO_ENDPOINT and this machine's DNS, then run again."


class BucketBusy(BucketUnreachable):
    """The bucket's server asks us to come back later."""

    advice = "Run again later, or lower MODEL_SYNC_CONNECTIONS; what arrived is kept."


class TransferCut(BucketUnreachable):
    """The connection ended before all bytes had come."""

    advice = "Run again: the download goes on where it was cut. Look for a proxy that limits size."


class TransferStalled(BucketUnreachable):
    """The connection lives but brings nothing."""

    advice = (
        "Run again: the download goes on where it stopped. Check the network, or raise "
        "MODEL_SYNC_STALL_S where such pauses are normal."
    )


class NothingThere(SyncError):
    """The bucket holds no file of a source that was asked for."""

    exit_code = 8
    advice = (
        "Check MODEL_SYNC_MINIO_BUCKET and MODEL_SYNC_PREFIX, publish the files, or leave the "
        "source out of MODEL_SYNC_SOURCES."
    )


class ObjectMissing(NothingThere):
    """A file that the manifest names is not in the bucket."""

    advice = "Publish the folder again, so that the manifest and the bucket agree."


class UnsafeKey(SyncError):
    """An object's name cannot be a file here."""

    exit_code = 5
    advice = "Rename the file or object that is named; nothing was sent or fetched."


class ObjectDamaged(SyncError):
    """What arrived is not what the bucket listed."""

    exit_code = 6
    advice = "Run the command again; if it stays, publish the file to the bucket anew."


class ObjectReplaced(ObjectDamaged):
    """The object was replaced in the bucket while it was read."""

    advice = (
        "Run again once whoever publishes has finished; the file that was here before is untouched."
    )


class PartialSpoilt(ObjectDamaged):
    """What an earlier attempt left did not make the file that the bucket listed."""

    advice = "Run again: what was left is gone, and everything is fetched anew."


class Interrupted(SyncError):
    """Asked to stop; what has arrived is kept."""

    exit_code = 143
    advice = "Run again: the download goes on where it stopped."


class ManifestInvalid(SyncError):
    """The bucket's manifest.json cannot be read."""

    exit_code = 9
    advice = "Publish the folder again with this version: make publish-models SRC=dir."


class ManifestUntrusted(SyncError):
    """The manifest's signature is missing or does not match MODEL_SYNC_PUBLIC_KEY."""

    exit_code = 10
    advice = (
        "Nothing was downloaded. Check MODEL_SYNC_PUBLIC_KEY, and publish again with the key "
        "that belongs to it."
    )


class ManifestOlder(ManifestUntrusted):
    """The manifest is signed, and older than the one that was trusted here last."""

    advice = (
        "Nothing was downloaded. Someone may have put an old manifest back: publish again. To go "
        "back to old weights on purpose, set MODEL_SYNC_ALLOW_OLDER=true for one pull."
    )


class VolumeUnwritable(SyncError):
    """The folder cannot take the files."""

    exit_code = 7
    advice = "Free space or correct the owner of MODEL_SYNC_LOCAL_ROOT, then run again."


class VolumeFull(VolumeUnwritable):
    """The volume has too little space for what is missing."""

    advice = (
        "What arrived whole is kept. Free space, enlarge the volume or shorten MODEL_SYNC_SOURCES; "
        "a file that is replaced needs room beside the old one."
    )


class PartialLost(VolumeUnwritable):
    """Another process took or removed the file that was being written."""

    advice = "Run again; what arrived is kept. Pull onto one volume from one place at a time."


class FolderElsewhere(VolumeUnwritable):
    """A folder of the volume is a link that leads out of it."""

    advice = (
        "Make it a folder, or mount there what it leads to: whoever may write to the volume could "
        "otherwise choose which files are written."
    )


class KeyFileUnusable(SyncError):
    """The file with the signing key cannot be used."""

    exit_code = 20
    advice = "Make a key with `models-sync keygen FILE` and name it in MODEL_SYNC_SIGNING_KEY."


class PickleRefused(SyncError):
    """A pickle asks for something that is no array; nothing in it was run."""

    exit_code = 21
    advice = (
        "Get the file again from its publisher. If it is genuine, export its arrays to .npz where "
        "you trust it, and publish that."
    )


class NotABodyModel(SyncError):
    """The file does not hold what a body model of the SMPL family has."""

    exit_code = 22
    advice = "Convert one of SMPLX_{NEUTRAL,MALE,FEMALE}.pkl or .npz as its publisher ships it."


class PlacementBlocked(SyncError):
    """Something else lies where a file should be placed; it was left as it is."""

    exit_code = 23
    advice = "Move what lies there out of the way, then run `models-sync place` again."


class PlacementMissing(SyncError):
    """A file is not in its place, and the place cannot be written."""

    exit_code = 24
    advice = (
        "Build the image with these links, or mount the folder writable, then run "
        "`models-sync place` again."
    )


class VolumeReadOnly(VolumeUnwritable):
    """The folder is read-only."""

    advice = "Mount it writable, or bring the files there where it is."


class VolumeOfAnotherUser(VolumeUnwritable):
    """The folder belongs to another user, and we may not write there."""

    exit_code = 25
    advice = "Give the folder to the worker's user once, as root."


class SourceUnusable(SyncError):
    """The folder to publish holds nothing to publish, or cannot be read as it should."""

    exit_code = 26
    advice = "Lay the files out as docs/howto/models.md shows, and leave them alone meanwhile."


class PublishConflict(SyncError):
    """Someone else published to this bucket meanwhile."""

    exit_code = 27
    advice = "Run the command again: what was uploaded already is not sent twice."


class AdminUnavailable(SyncError):
    """The server does not take MinIO's administration calls from this user."""

    exit_code = 28
    advice = (
        "Use the root user of a server with MinIO's admin API, or hand the policy that "
        "`models-sync policy` prints to your server's own administration."
    )


class WeightsIncomplete(SyncError):
    """Files are missing or are not what the manifest says."""

    exit_code = 29
    advice = "Run `models-sync pull`."


class ManifestAbsent(ManifestInvalid):
    """No manifest is kept beside the files, so nobody knows what they should be."""

    advice = "Run `models-sync pull` once, or hold them against the bucket's: `verify --bucket`."


def exit_codes() -> dict[int, list[type[SyncError]]]:
    """Every exit code of `models-sync`, and the errors that end with it."""

    def family(kind: type[SyncError]) -> Iterator[type[SyncError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from family(child)

    codes: dict[int, list[type[SyncError]]] = {}
    for kind in family(SyncError):
        codes.setdefault(kind.exit_code, []).append(kind)
    return dict(sorted(codes.items()))
