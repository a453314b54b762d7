"""What the parser leaves open, of all that may tell another reader where a request ends, or to whom it goes."""

from collections.abc import Sequence

from tokenyard.core.errors import InvalidRequest


def wrong_framing(version: str, headers: Sequence[tuple[bytes, bytes]]) -> InvalidRequest | None:
    """Return what is wrong with a request of this HTTP version, the names of whose headers are in lower case."""
    names = [name for name, _ in headers]
    if version == "1.1":
        if names.count(b"host") != 1:
            return InvalidRequest("An HTTP/1.1 request must have one Host header.")
    elif version != "1.0" or b"transfer-encoding" in names or names.count(b"host") > 1:
        return InvalidRequest("Please send HTTP/1.1 requests.")
    return None
