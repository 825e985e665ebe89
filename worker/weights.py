"""The operator's weights at start: brought to the volume, verified, put in their places.

`models_sync` does the work, in a thread; this is when it is done, what is said meanwhile, and what
happens when it fails: the worker stays up, says why on `/ready`, and tries again.  Weights that an
image holds are verified instead of brought.  Whatever is enabled and lacks its files is named.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from worker.engine_config import PIXIE_WEIGHTS, licensed_enabled
from worker.errors import LicensedEstimatorMissing, WeightsUnavailable
from worker.observability.logs import get_logger

if TYPE_CHECKING:
    from models_sync.progress import Progress
    from models_sync.settings import SyncSettings as PullSettings
    from models_sync.settings import VolumeSettings
    from worker.settings import Settings

log = get_logger("worker.weights")

RETRY_S: Final = (10.0, 30.0, 120.0)
"""Pauses between attempts; the last one repeats."""
LOG_EVERY_S: Final = 10.0
STOP_S: Final = 2.0
GB: Final = 1e9


class Weights:
    """Brings the weights to the volume, once, for as long as it takes.

    Args:
        settings: the environment; nothing is done unless MODEL_SYNC_ENABLED.
        on_change: called when `is_complete` has changed.
    """

    def __init__(self, settings: Settings, *, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._cancel = threading.Event()
        self._logged_at = -math.inf
        self.progress: Progress | None = None
        self.trouble: WeightsUnavailable | None = None
        self.lacking: str | None = None
        """Which files something that is enabled lacks, and how to get them; told as a warning."""
        self.is_complete = not (settings.sync.enabled or settings.sync.embedded)
        """Whether all that was asked for is there and verified."""

    async def bring(self) -> None:
        """Pull, or verify what the image holds, and place, until it is done; then look for gaps."""
        await self._complete()
        if not self._settings.pipeline.require_real_avatar:  # whose refusal names them
            self.lacking = await _in_thread(lambda: missing_weights(self._settings))
            if self.lacking:
                log.warning("weights.lacking", why=self.lacking)

    async def _complete(self) -> None:
        attempt = 0
        while not self.is_complete:
            self.trouble = await self._try()
            if self.trouble is None:
                self.is_complete = True
                self._on_change()
                return
            log.error("weights.failed", why=self.trouble.message, advice=self.trouble.advice)
            await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    def stop(self) -> None:
        """End a pull that is running; what it has fetched is gone on with by the next."""
        self._cancel.set()

    async def _try(self) -> WeightsUnavailable | None:
        # Only here: a worker that syncs nothing does not load it.
        from models_sync.errors import Interrupted, SyncError  # noqa: PLC0415 - see above
        from models_sync.place import place  # noqa: PLC0415 - see above

        loop = asyncio.get_running_loop()

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(self._note, progress)

        try:
            if self._settings.sync.enabled:
                pulling = _pull_settings(self._settings)
                await _in_thread(lambda: _pull(pulling, tell, self._cancel))
            else:
                held = _volume_settings(self._settings)
                if wrong := await _in_thread(lambda: _verify(held, tell, self._cancel)):
                    return WeightsUnavailable(wrong, advice="Build the image again, or pull it.")
            volume = _volume_settings(self._settings)
            placed = await _in_thread(lambda: place(volume))
        except Interrupted:
            return WeightsUnavailable("The sync was stopped.")
        except SyncError as error:
            return WeightsUnavailable(
                f"{type(error).__name__}: {error.message}", advice=error.advice
            )
        except Exception as error:
            # It must not end the worker, which says why it takes no job instead.
            log.exception("weights.crashed")
            return WeightsUnavailable(f"{type(error).__name__}: {error}")
        for sentence in placed.skipped:
            log.warning("weights.not_placed", why=sentence)
        return None

    def _note(self, progress: Progress) -> None:
        self.progress = progress
        if progress.phase != "planning":
            self.trouble = None  # of the attempt before: this one has got further
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= LOG_EVERY_S:
            self._logged_at = now
            log.info("weights.progress", text=describe(progress))

    def to_wire(self) -> dict[str, Any] | None:
        """How far it is, for the status page; None when there is nothing to tell."""
        if self.is_complete or self.progress is None:
            return None
        return {
            "phase": str(self.progress.phase),
            "doneBytes": self.progress.done_bytes,
            "totalBytes": self.progress.total_bytes,
            "bytesPerSecond": round(self.progress.rate),
            "secondsLeft": self.progress.eta_s,
            "text": describe(self.progress),
        }


def describe(progress: Progress | None) -> str:
    """Say how far a pull is: `syncing 12.4/31.0 GB, 4 min left`."""
    if progress is None or not progress.total_bytes:
        return "looking which weights are missing"
    verb = {"waiting": "waiting for another pod that syncs", "checking": "verifying"}.get(
        str(progress.phase), "syncing"
    )
    text = f"{verb} {progress.done_bytes / GB:.1f}/{progress.total_bytes / GB:.1f} GB"
    if progress.eta_s is None:
        return text
    if progress.eta_s < 90:
        return f"{text}, {math.ceil(progress.eta_s)} s left"
    return f"{text}, {math.ceil(progress.eta_s / 60)} min left"


def weights_in_use(settings: Settings) -> tuple[str, ...]:
    """Name the sources whose files something that is enabled cannot do without."""
    enabled = licensed_enabled(settings)
    if settings.pipeline.require_real_avatar and not enabled:
        return settings.sync.sources
    if "sam3d_body" not in enabled:
        return ()
    return ("sam3d", "sam2") if settings.models.sam3d_use_mask else ("sam3d",)


def missing_weights(settings: Settings) -> str | None:
    """Say which files something that is enabled lacks, and how to get them; None: it has all.

    Reads names, sizes and times.
    """
    wanted = weights_in_use(settings)
    if not wanted:
        return None
    from models_sync.errors import SyncError  # noqa: PLC0415 - see `Weights._try`
    from models_sync.verify import how_to_get, verify_quick  # noqa: PLC0415 - same

    try:
        volume = _volume_settings(settings)
        missing = verify_quick(volume, wanted)
    except SyncError as error:
        return f"{type(error).__name__}: {error.message}"
    missing = [file for file in missing if not _lies_elsewhere(file.path, settings, volume)]
    return how_to_get(missing, volume.local_root) if missing else None


def refusal(settings: Settings) -> LicensedEstimatorMissing | None:
    """Say why REQUIRE_REAL_AVATAR cannot be met, naming the files that are missing too.

    None when a licensed estimator is enabled: whether it is as it should be, its loading tells.
    """
    if licensed_enabled(settings):
        return None
    from models_sync.errors import SyncError  # noqa: PLC0415 - see `Weights._try`
    from models_sync.verify import how_to_get, verify_quick  # noqa: PLC0415 - same

    try:
        volume = _volume_settings(settings)
        missing = verify_quick(volume, volume.source_names())
    except SyncError as error:
        return LicensedEstimatorMissing(
            f"{LicensedEstimatorMissing().message} {type(error).__name__}: {error.message}",
            advice=error.advice,
        )
    if not missing:
        return LicensedEstimatorMissing(
            f"{LicensedEstimatorMissing().message} {_why_none(settings)}.",
        )
    return LicensedEstimatorMissing(
        f"{LicensedEstimatorMissing().message} {how_to_get(missing, volume.local_root)}"
    )


def _why_none(settings: Settings) -> str:
    """Say, for each in the declared order, why it is not enabled; none of them is."""
    why = {
        "sam3d_body": "SAM3DBODY_ENABLED is false",
        "pixie": f"{settings.models.pixie_dir / PIXIE_WEIGHTS} is missing",
    }
    order = settings.models.estimators
    said = "; ".join(f"{name}: {why[name]}" for name in order)
    return f"AVATAR_ESTIMATORS names {said or 'none'}"


def _lies_elsewhere(path: str, settings: Settings, volume: VolumeSettings) -> bool:
    """Whether a variable names another place than the volume's, and the file is there."""
    models = settings.models
    source, _, name = path.partition("/")
    places = {
        "smplx": models.smplx_dir / name,
        "pixie": models.pixie_dir / "data" / name,
        "sam2": models.sam3d_segmentor / name,
        "sam3d/model.ckpt": models.sam3d_checkpoint,
        "sam3d/model_config.yaml": models.sam3d_checkpoint.with_name("model_config.yaml"),
        "sam3d/assets/mhr_model.pt": models.sam3d_mhr,
    }
    file = places.get(path) or places.get(source) or volume.local_root / path
    return file != volume.local_root / path and file.is_file()


def _verify(
    held: VolumeSettings, tell: Callable[[Progress], None], cancel: threading.Event
) -> str | None:
    """Hash what the image holds against the manifest that came with it; say what is wrong."""
    from models_sync.verify import verify_full  # noqa: PLC0415 - see `Weights._try`

    found = verify_full(held, None, tell, cancel)
    if found.bad:
        names = "".join(f"\n  {file}" for file in found.bad)
        return f"{len(found.bad)} of the image's files are not what was published:{names}"
    log.info("weights.complete", verified=f"{len(found.good)} files that the image holds")
    return None


def _pull(pulling: PullSettings, tell: Callable[[Progress], None], cancel: threading.Event) -> None:
    """Pull; a bucket that is down is no reason to stop where everything is there already."""
    from models_sync.errors import BucketUnreachable  # noqa: PLC0415 - see `Weights._try`
    from models_sync.transfer import pull  # noqa: PLC0415 - same
    from models_sync.verify import verify_quick  # noqa: PLC0415 - same

    try:
        report = pull(pulling, tell, cancel)
    except BucketUnreachable as error:
        if verify_quick(pulling, pulling.source_names()):
            raise
        log.warning("weights.not_compared", why=error.message, instead="what was verified before")
    else:
        log.info("weights.complete", verified=str(report.trust), seconds=round(report.seconds, 1))


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run blocking work in a daemon thread: the end of the process must not wait for it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="weights", daemon=True).start()
    return await done


def _pull_settings(settings: Settings) -> PullSettings:
    """Hand the same variables on; `models_sync` does not know ours."""
    from models_sync.settings import SyncSettings  # noqa: PLC0415 - see `Weights._try`

    sync = settings.sync
    bucket: dict[str, Any] = {
        "minio_endpoint": sync.endpoint,
        "minio_secure": sync.secure,
        "minio_bucket": sync.bucket,
        "minio_access_key": sync.access_key,
        "minio_secret_key": sync.secret_key and sync.secret_key.get_secret_value(),
    }
    return SyncSettings.load(**_volume(settings), **bucket)


def _volume_settings(settings: Settings) -> VolumeSettings:
    from models_sync.settings import VolumeSettings  # noqa: PLC0415 - see `Weights._try`

    return VolumeSettings.load(**_volume(settings))


def _volume(settings: Settings) -> dict[str, Any]:
    sync, models = settings.sync, settings.models
    return {
        "prefix": sync.prefix or "",
        "sources": ",".join(sync.sources),
        "local_root": sync.local_root,
        "public_key": sync.public_key,
        "pixie_model_dir": models.pixie_dir,
        "segmentor_path": models.sam3d_segmentor,
    }
