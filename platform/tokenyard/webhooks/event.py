"""An event as it is sent: OpenAI's shape, signed as Standard Webhooks says (https://www.standardwebhooks.com)."""

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

_PREFIX = "whsec_"
_SECRET_BYTES = 24
_SHOWN = 4


class WebhookMessage(msgspec.Struct, frozen=True):
    """What an endpoint gets; `created_at` is in unix seconds."""

    id: str
    type: str
    created_at: int
    data: Mapping[str, object]
    object: Literal["event"] = "event"

    def body(self) -> bytes:
        return msgspec.json.encode(self)


def new_signing_secret() -> str:
    return _PREFIX + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def hint_of(secret: str) -> str:
    """Return how a secret is shown once it was given out."""
    return f"{_PREFIX}...{secret[-_SHOWN:]}"


def signed_headers(message: str, body: bytes, secrets: Iterable[str], *, at_s: int) -> dict[str, str]:
    """Return the headers of one attempt at `at_s` unix seconds; `message` is its id, the same in every attempt."""
    content = b".".join((message.encode(), str(at_s).encode(), body))
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(_signature(secret, content) for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
