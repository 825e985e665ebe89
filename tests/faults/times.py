"""The times that the worker runs with under test: production's, most of them divided by 15.

A fault that outlasts the lock must be waited out, so shorter locks are what makes the matrix
run in minutes.  The order of the times among each other is production's.
"""

from __future__ import annotations

from typing import Any, Final

LOCK_S: Final = 4.0
STALLED_INTERVAL_S: Final = 1.0
SHORTER_S: Final = 1.0
"""An outage that ends before the lock does."""
LONGER_S: Final = LOCK_S + 2 * STALLED_INTERVAL_S
"""An outage after which every lock and lease is lost."""
API_TIMEOUT_S: Final = 1.5
RETRY_AFTER_S: Final = 2

CONSTANTS: Final[dict[str, Any]] = {
    "worker.consumer:LOCK_MS": int(LOCK_S * 1000),
    "worker.consumer:STALLED_INTERVAL_MS": int(STALLED_INTERVAL_S * 1000),
    "worker.consumer:RUN_RETRY_DELAY_MS": 200,
    "worker.consumer:BACKOFF": {"type": "exponential", "delay": 300},
    "worker.consumer:HELD_DELAY_MS": 700,
    "worker.consumer:TICK_S": 0.25,
    "worker.consumer:RENEW_TIMEOUT_S": 1.0,
    "worker.consumer:RENEW_AGAIN_S": 0.3,
    "worker.consumer:PULSE_TIMEOUT_S": 1.0,
    "worker.consumer:LEASE_MS": 3_000,
    "worker.consumer:RENEW_EVERY_S": 0.5,
    "worker.consumer:SOCKET_TIMEOUT_S": 2.0,
    "worker.consumer:CONNECT_TIMEOUT_S": 1.0,
    "worker.consumer:HEALTH_CHECK_S": 2,
    "worker.reporter:TIMEOUT": API_TIMEOUT_S,
    "worker.reporter:REQUEST_DEADLINE_S": API_TIMEOUT_S,
    "worker.reporter:DELIVERY_WAIT_S": 1.0,
    "worker.reporter:CLAIM_S": 2 * API_TIMEOUT_S + 1.0,
    "worker.reporter:POLL_S": 0.3,
    "worker.reporter:CHECK_AFTER_S": LOCK_S + 2.0,
    "worker.reporter:_slowly": [1.0, 1.5],
    "worker.storage:CLEAN_LATER_S": LOCK_S + 2.0,
    "worker.storage:CONNECT_TIMEOUT_S": 1.0,
    "worker.storage:READ_TIMEOUT_S": 3.0,
}
