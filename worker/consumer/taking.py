"""What lets a job be taken in one step, as Node's worker does it, and less than one when busy.

The package's scripts give the next job together with the completion of the last when they are
asked to; these add whether it is cancelled, so that no further question is needed before it runs.
Jobs that end at one moment are written together: what a write costs is mostly the sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import NoScriptError

from worker.consumer.cancellation import cancel_key

CANCELLED: Final = "worker:cancelled"
"""The field of a job that was taken, as if BullMQ had it: why it is cancelled."""

_WITH_CANCELLATION: Final = """
local function take()
%s
end
local reply = take()
local fields = type(reply) == 'table' and reply[1]
if type(fields) == 'table' then
  for index = 1, #fields, 2 do
    if fields[index] == 'data' then
      local good, data = pcall(cjson.decode, fields[index + 1])
      local job_id = good and type(data) == 'table' and data['jobId']
      local reason = type(job_id) == 'string' and redis.pcall('GET', '%s' .. job_id)
      if type(reason) == 'string' then
        fields[#fields + 1] = '%s'
        fields[#fields + 1] = reason
      end
      break
    end
  end
end
return reply
"""


def with_cancellation(script: str, prefix: str, queue: str) -> str:
    """Return `script`, which takes a job, giving the job the field CANCELLED when it is."""
    key = cancel_key(prefix, queue, "").replace("\\", "\\\\").replace("'", "\\'")
    return _WITH_CANCELLATION % (script, key, CANCELLED)


class Together:
    """Runs scripts that are asked for at one moment in one round trip.

    While one round trip is under way, those that are asked for gather for the next.

    Args:
        client: redis.asyncio client; not closed here.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked: list[tuple[Any, Sequence[Any], Sequence[Any], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, script: Any, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        """Run a registered script and return its answer.

        Raises:
            RedisError, OSError: as the client raises them; all that were sent together fail alike
                when Redis does not answer.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((script, keys, args, answer))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="settle jobs")
        return await answer

    async def _send(self) -> None:
        while self._asked:
            batch, self._asked = self._asked, []
            try:
                answers = await self._round_trip([asked[:3] for asked in batch])
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                answers = [error] * len(batch)
            for (*_, future), answer in zip(batch, answers, strict=True):
                if future.done():  # whoever asked was cancelled
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _round_trip(self, batch: list[tuple[Any, Sequence[Any], Sequence[Any]]]) -> list[Any]:
        if len(batch) > 1:
            async with self._client.pipeline(transaction=False) as pipe:
                for script, keys, args in batch:
                    pipe.evalsha(script.sha, len(keys), *keys, *args)
                answers: list[Any] = await pipe.execute(raise_on_error=False)
        else:
            answers = [NoScriptError()]
        for index, (script, keys, args) in enumerate(batch):
            if isinstance(answers[index], NoScriptError):
                try:
                    answers[index] = await script(keys=keys, args=args)  # loads it when it must
                except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                    answers[index] = error
        return answers
