"""Requests over which two readers of HTTP may differ about where one ends and the next begins.

Each ends in a request of its own, to `SMUGGLED`, which nobody may ever serve.
"""

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
_POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
_GET = b"GET /health HTTP/1.1\r\nhost: a\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"
_LAST = b"0\r\n\r\n"


def _lengths(*values: bytes) -> bytes:
    return _POST + b"".join(b"content-length: %b\r\n" % value for value in values) + b"\r\nhello"


def _codings(*values: bytes) -> bytes:
    return _POST + b"".join(b"transfer-encoding: %b\r\n" % value for value in values) + b"\r\n" + _LAST


def _chunks(data: bytes) -> bytes:
    return _POST + _CHUNKED + b"\r\n" + data


def _headers(lines: bytes) -> bytes:
    return _GET + lines + b"\r\n"


_SHAPES = {
    # What says how long the body is.
    "length before chunks": _POST + b"content-length: 5\r\n" + _CHUNKED + b"\r\n" + _LAST,
    "chunks before length": _POST + _CHUNKED + b"content-length: 5\r\n\r\n" + _LAST,
    "two lengths": _lengths(b"5", b"0"),
    "the same length twice": _lengths(b"5", b"5"),
    "a list of lengths": _lengths(b"5, 5"),
    "a length with a sign": _lengths(b"+5"),
    "a negative length": _lengths(b"-5"),
    "a hexadecimal length": _lengths(b"0x5"),
    "a length in two parts": _lengths(b"0 5"),
    "a length with an underscore": _lengths(b"0_5"),
    "a length of nothing": _lengths(b""),
    "a length beyond 64 bits": _lengths(b"18446744073709551621"),
    # What says that the body comes in chunks.
    "an unknown coding": _codings(b"xchunked"),
    "no coding": _codings(b"identity"),
    "chunks that are not the last coding": _codings(b"chunked, identity"),
    "another coding in a second line": _codings(b"chunked", b"identity"),
    "a coding in quotes": _codings(b'"chunked"'),
    "a coding behind a vertical tab": _codings(b"\x0bchunked"),
    "a coding with a parameter": _codings(b"chunked;q=1"),
    "chunks in HTTP/1.0": _codings(b"chunked").replace(b"HTTP/1.1", b"HTTP/1.0"),
    # Lines of headers.
    "a space before the colon of a length": _POST + b"content-length : 5\r\n\r\nhello",
    "a space before the colon of a coding": _POST + b"transfer-encoding : chunked\r\n\r\n" + _LAST,
    "a folded coding": _POST + b"transfer-encoding:\r\n chunked\r\n\r\n" + _LAST,
    "a folded header": _headers(b"x: a\r\n b\r\n"),
    "a folded first header": _GET.replace(b"host", b" host") + b"host: a\r\n\r\n",
    "bare line feeds": (_GET + b"\r\n").replace(b"\r\n", b"\n"),
    "a bare line feed between headers": _headers(b"x: a\nlength: b\r\n"),
    "a bare line feed at the end of the headers": _GET + b"\n",
    "a bare carriage return": _headers(b"x: a\rtransfer-encoding: chunked\r\n"),
    "a NUL in a name": _headers(b"x\x00y: a\r\n"),
    "a NUL in a value": _headers(b"x: a\x00b\r\n"),
    "a header without a name": _headers(b": a\r\n"),
    "a header without a colon": _headers(b"x\r\n"),
    "a space in a name": _headers(b"x y: a\r\n"),
    "a name that is not ASCII": _headers("ä: a\r\n".encode()),
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": _headers(b"host: b\r\n"),
    # Chunks.
    "a chunk beyond 64 bits": _chunks(b"10000000000000005\r\nhello\r\n" + _LAST),
    "a chunk with a sign": _chunks(b"+5\r\nhello\r\n" + _LAST),
    "a negative chunk": _chunks(b"-5\r\nhello\r\n" + _LAST),
    "a chunk with 0x": _chunks(b"0x5\r\nhello\r\n" + _LAST),
    "a chunk without a size": _chunks(b"\r\nhello\r\n" + _LAST),
    "a space before a chunk's size": _chunks(b" 5\r\nhello\r\n" + _LAST),
    "a bare line feed after a chunk's size": _chunks(b"5\nhello\r\n" + _LAST),
    "a bare line feed in a chunk's extension": _chunks(b"5;a\nhello\r\n" + _LAST),
    "a bare carriage return after a chunk's size": _chunks(b"5\rhello\r\n" + _LAST),
    "a chunk that does not end": _chunks(b"5\r\nhello" + _LAST),
    "a chunk that is longer than it says": _chunks(b"4\r\nhello\r\n" + _LAST),
    "a bare line feed after the last chunk": _chunks(b"0\n\n"),
    # The first line.
    "HTTP/0.9": b"GET /health\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2 in the first line": (_GET + b"\r\n").replace(b"HTTP/1.1", b"HTTP/2.0"),
    "an unknown version": (_GET + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.2"),
    "a version with a plus": (_GET + b"\r\n").replace(b"HTTP/1.1", b"HTTP/1.+1"),
    "an unknown method": (_GET + b"\r\n").replace(b"GET", b"GETS"),
    "a method in small letters": (_GET + b"\r\n").replace(b"GET", b"get"),
    "a space in the URL": (_GET + b"\r\n").replace(b"/health", b"/hea lth"),
    "a NUL in the URL": (_GET + b"\r\n").replace(b"/health", b"/hea\x00lth"),
    "a line feed in the URL": (_GET + b"\r\n").replace(b"/health", b"/hea\nlth"),
    "a URL without a path": (_GET + b"\r\n").replace(b"/health", b"http://a"),
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
}
SHAPES = {name: shape + SMUGGLED for name, shape in _SHAPES.items()}
