"""How many values a body may hold: reading them holds up the event loop, where the length of a text hardly counts."""

from tokenyard.core.errors import InvalidRequest

FREE_BYTES = 128 * 1024
MAX_MARKS, MAX_ELEMENTS = 100_000, 1_100_000


def check_values(raw: bytes) -> None:
    """Refuse a body of very many values; one of up to `FREE_BYTES` cannot hold enough to matter."""
    if len(raw) > FREE_BYTES and (marks(raw) > MAX_MARKS or elements(raw) > MAX_ELEMENTS):
        raise InvalidRequest(
            "The JSON body of your request holds too many values. Please send fewer messages, parts or fields.",
            code="too_many_values",
        )


def marks(raw: bytes) -> int:
    """Return the number of quotes around texts, and of objects and arrays, at the speed of copying `raw`.

    What stands inside of texts does not count, nor do numbers, which cost little.
    """
    raw = _without_escapes(raw)
    quotes = raw.count(b'"')
    if quotes > MAX_MARKS:
        return quotes
    outside = _outside_texts(raw)
    return quotes + outside.count(b"{") + outside.count(b"[")


def elements(raw: bytes) -> int:
    """Return the number of commas, objects and arrays outside of texts, which bounds how many values there are."""
    outside = _outside_texts(_without_escapes(raw))
    return outside.count(b",") + outside.count(b"{") + outside.count(b"[")


def _without_escapes(raw: bytes) -> bytes:
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _outside_texts(raw: bytes) -> bytes:
    return b"".join(raw.split(b'"')[::2])
