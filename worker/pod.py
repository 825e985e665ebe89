"""RunPod's side of the worker: a pod that cannot compute is stopped, so that it is not billed.

RunPod starts a container that exits again, for ever and billed.  So the worker stays up and says
why it does not work; and when nobody has come for `after_s`, it asks RunPod's API to stop the pod
(POST /v1/pods/{podId}/stop).  A stopped pod keeps its volume and is started again by hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx
from pydantic import SecretStr

from worker.errors import AvatarError
from worker.observability.logs import get_logger

log = get_logger("worker.pod")

RUNPOD_API: Final = "https://rest.runpod.io/v1"
LOOK_EVERY_S: Final = 5.0
ASK_AGAIN_S: Final = 60.0
ANSWER_S: Final = 20.0
NO_KEY: Final = (
    "RUNPOD_API_KEY is not set, so the pod cannot stop itself: it is billed until you stop it."
)


class PodStopper:
    """Stops this pod when it has been unfit for long.

    Args:
        pod_id: RUNPOD_POD_ID; None off RunPod.
        api_key: RUNPOD_API_KEY; None when the pod may not stop itself.
        after_s: how long it may be unfit.
        api: where RunPod's API is; tests give their own.
    """

    def __init__(
        self,
        pod_id: str | None,
        api_key: SecretStr | None,
        *,
        after_s: float,
        api: str = RUNPOD_API,
    ) -> None:
        self._pod_id = pod_id
        self._key = api_key
        self._after_s = after_s
        self._api = api

    async def watch(
        self, unfit: Callable[[], AvatarError | None], *, every_s: float = LOOK_EVERY_S
    ) -> None:
        """Look until the pod was asked to stop, and RunPod agreed; for ever while it is fit.

        Without a key it says once that nobody will stop the pod.

        Args:
            unfit: why the pod cannot do its work; None while it can, or may yet.
            every_s: pause between looks.
        """
        if self._pod_id is None:
            return
        stop_url = f"{self._api}/pods/{self._pod_id}/stop"
        since: float | None = None
        while True:
            reason = unfit()
            now = time.monotonic()
            if reason is None:
                since = None
            elif self._key is None:
                log.warning("pod.unfit", why=reason.message, advice=NO_KEY)
                return
            elif since is None:
                since = now
                log.warning(
                    "pod.unfit", why=reason.message, stops_in_minutes=round(self._after_s / 60, 1)
                )
            elif now - since >= self._after_s:
                if await _ask_to_stop(stop_url, self._key, reason):
                    return
                since = now - self._after_s + ASK_AGAIN_S
            await asyncio.sleep(every_s)


async def _ask_to_stop(url: str, key: SecretStr, reason: AvatarError) -> bool:
    headers = {"authorization": f"Bearer {key.get_secret_value()}"}
    try:
        async with httpx.AsyncClient(timeout=ANSWER_S, headers=headers) as client:
            answer = await client.post(url)
    except httpx.HTTPError as error:
        log.error("pod.not_stopped", why=str(error) or type(error).__name__)  # noqa: TRY400 - the trace would not help
        return False
    if not answer.is_success:
        log.error("pod.not_stopped", why=f"RunPod answered {answer.status_code}")
        return False
    log.error("pod.stopped", why=reason.message, advice=reason.advice)
    return True
