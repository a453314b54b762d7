"""What a server elsewhere refuses with, as a replica would: nothing of its inside or of our account there is shown."""

import re

import msgspec
import orjson

from tokenyard.core.model_files.sources import ServerSource
from tokenyard.gateway.endpoints.invalid_body import Json

MAX_RETRY_AFTER_S = 60.0
_REFUSED = frozenset({400, 413, 422})
# Words of an account, of keys and of limits that are ours and not the tenant's.
_OURS = re.compile(
    r"organi[sz]ation|account|billing|quota|credit|api[ _-]?key|\b(org|sk|proj|key)[-_]|deployment|dashboard"
    r"|upgrade|project|\btiers?\b|@|www\.|\.(com|ai|io|net|org|dev)\b",
    re.IGNORECASE,
)


def status_told(status: int) -> int:
    """Return the status that a replica would answer with.

    A request can be wrong (4xx), and a server fail at one (500). Anything else is between it and us: its limits, our
    key or account there, what stands in front of it. The model is not to be had then for a while.
    """
    if status in _REFUSED or status == 500:
        return status
    return 200 if status == 200 else 503


def private_words(server: ServerSource) -> tuple[str, ...]:
    """Return what must not be shown: the model's name there, and the server's."""
    return server.model, server.address.partition(":")[0]


def error_told(told: Json, private: tuple[str, ...], model: str) -> bytes:
    """Return an error's JSON with OpenAI's four fields; `private` begins with the name of the model there."""
    said = told.get("error")
    error: Json = (
        said if isinstance(said, dict) else {"message": said if isinstance(said, str) else told.get("message")}
    )
    message, kind, param, code = (error.get(name) for name in ("message", "type", "param", "code"))
    shown = message if isinstance(message, str) else ""
    name, *others = private
    shown = shown.replace(name, model)
    if _OURS.search(shown) or any(word in shown for word in others):
        shown = ""
    return orjson.dumps(
        {
            "error": {
                "message": shown,
                "type": kind if isinstance(kind, str) else None,
                "param": param if isinstance(param, str) else None,
                "code": code if isinstance(code, int | str) and not isinstance(code, bool) else None,
            }
        }
    )


def refusal_told(body: bytes, private: tuple[str, ...], model: str) -> bytes:
    """Return the body of a refusal."""
    try:
        told = msgspec.json.decode(body, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        told = {}
    return error_told(told, private, model)
