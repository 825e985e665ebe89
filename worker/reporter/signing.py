"""Standard Webhooks signatures, so that the API can check that a report is the worker's.

Specification: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md,
"Signature scheme": HMAC-SHA256 over `{id}.{timestamp}.{payload}` with the base64-decoded secret,
sent as `v1,<base64>`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time

from pydantic import SecretStr


class Signer:
    """Signs request bodies with API_SIGNING_SECRET (`whsec_` and base64)."""

    def __init__(self, secret: SecretStr) -> None:
        self._key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"))

    def headers(
        self, message_id: str, body: bytes, *, timestamp_s: int | None = None
    ) -> dict[str, str]:
        """Return the three headers that belong to `body`.

        Args:
            message_id: the same for every attempt at delivering one message.
            body: exactly the bytes that are sent.
            timestamp_s: seconds since 1970; now when not given.
        """
        timestamp = str(int(time.time()) if timestamp_s is None else timestamp_s)
        signed = b".".join((message_id.encode(), timestamp.encode(), body))
        digest = hmac.new(self._key, signed, hashlib.sha256).digest()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
