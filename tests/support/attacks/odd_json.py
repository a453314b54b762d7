"""Bodies that are no JSON, or JSON at which readers break, differ, or take long."""

import json
from collections.abc import Iterator

DEPTH = 100_000
DIGITS = 100_000
_NUMBERS = {
    "beyond a double": b"1e400",
    "beyond a double, negative": b"-1e400",
    "very many digits": b"9" * DIGITS,
    "very many digits of an exponent": b"1e" + b"9" * DIGITS,
    "hexadecimal": b"0x10",
    "a leading zero": b"01",
    "a plus": b"+1",
    "not a number": b"NaN",
    "infinite": b"Infinity",
    "only a minus": b"-",
    "no fraction": b"1.",
}
_TEXTS = {
    "a byte that is none of UTF-8": b"\xff",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "half a surrogate pair in UTF-8": b"\xed\xa0\x80",
    "a character cut short": b"\xf0\x9f\x98",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "half a surrogate pair": rb"\ud800",
    "the second half of a surrogate pair": rb"\udc00",
    "a surrogate pair the wrong way round": rb"\udc00\ud800",
    "an unknown escape": rb"\x41",
    "a cut escape": rb"\u00",
    "a line feed": b"\n",
    "a NUL": b"\x00",
}
_WHOLE = {
    "nothing": b"",
    "white space": b" " * 1_000_000,
    "null": b"null",
    "an array": b"[]",
    "a text": b'"x"',
    "a number of very many digits": b"9" * DIGITS,
    "cut": b'{"model":',
    "two objects": b"{}{}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "a comment": b"{/**/}",
    "a comma too many": b'{"model":"a",}',
    "deep arrays": b"[" * DEPTH,
    "deep objects": b'{"a":' * DEPTH,
    "deep and closed": b'{"model":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "the same field again and again": b"{" + b'"model":"a",' * 40_000 + b'"none":1}',
    "very many unknown fields": b"{" + b",".join(b'"%d":1' % number for number in range(40_000)) + b"}",
    "a very long name": b'{"' + b"a" * 1_000_000 + b'":1}',
}


def odd_bodies(valid: dict[str, object], number: str, text: str) -> Iterator[tuple[str, bytes]]:
    """Yield bodies to refuse, each with its name: odd as a whole, or in one of two fields of one that is `valid`."""
    yield from _WHOLE.items()
    rest = json.dumps(valid)[1:-1].encode()
    for name, written in _NUMBERS.items():
        yield f"a number: {name}", b'{%b,"%b":%b}' % (rest, number.encode(), written)
    for name, written in _TEXTS.items():
        yield f"a text: {name}", b'{%b,"%b":"%b"}' % (rest, text.encode(), written)
        yield f"a name: {name}", b'{%b,"%b":1}' % (rest, written)
