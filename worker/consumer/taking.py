"""What lets a job be taken in one step, as Node's worker does it.

The package's scripts give the next job together with the completion of the last when they are
asked to; these add whether it is cancelled, so that no further question is needed before it runs.
"""

from __future__ import annotations

from typing import Final

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
