"""The one table of attacks on a gateway: each is tested, and measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from support.attacks.http_attack import KEY, HttpAttack, Requests
from support.attacks.http_shapes import SHAPES
from support.attacks.long_arrays import LongArrays
from support.attacks.odd_json import odd_bodies
from tokenyard.core.principal import Role
from tokenyard.tenancy.keys import new_secret

MODEL = "smollm2-135m-instruct"
MADE_UP_KEYS = 2_000
CROWD, CROWD_ADDRESSES = 10_000, 64
_MESSAGE = {"role": "user", "content": "hello"}
_STREAM = b'{"model":"%b","stream":true,"max_tokens":1000,"messages":[{"role":"user","content":"a"}]}'
# The fields of a valid body, one that takes a number and one that takes a text.
VALID: Mapping[str, tuple[dict[str, object], str, str]] = {
    "/v1/chat/completions": ({"model": MODEL, "messages": [_MESSAGE]}, "temperature", "user"),
    "/v1/completions": ({"model": MODEL, "prompt": "hello"}, "temperature", "user"),
    "/v1/responses": ({"model": MODEL, "input": "hello"}, "temperature", "instructions"),
    "/v1/messages": ({"model": MODEL, "messages": [_MESSAGE], "max_tokens": 1}, "temperature", "system"),
    "/v1/embeddings": ({"model": MODEL, "input": "hello"}, "dimensions", "user"),
    "/v1/score": ({"model": MODEL, "queries": "a", "documents": ["b"]}, "top_n", "user"),
    "/v1/rerank": ({"model": MODEL, "query": "a", "documents": ["b"]}, "top_n", "user"),
    "/v1/model_aliases": ({"model": MODEL}, "number", "alias"),
}

GET = b"GET %b HTTP/1.1\r\nhost: a\r\n"
HEALTH = GET % b"/health"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
PIECE = b"a" * 16_384
LARGE = b"content-length: 104857600\r\n\r\n"


def head(path: str, key: bytes = b"") -> bytes:
    """Return the beginning of a request, up to what says how long its body is."""
    authorization = b"authorization: Bearer %b\r\n" % key if key else b""
    return b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n%b" % (path.encode(), authorization)


def post(path: str, body: bytes, key: bytes = b"") -> bytes:
    """Return a whole request."""
    return head(path, key) + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def _all(*requests: bytes) -> Requests:
    return lambda _description: requests


def _odd_json(_description: dict[str, Any]) -> Iterator[bytes]:
    for path, (valid, number, text) in VALID.items():
        yield from (post(path, body, KEY) for _, body in odd_bodies(valid, number, text))


def _long_arrays(description: dict[str, Any]) -> Iterator[bytes]:
    return (post(path, body, KEY) for path, _, body in LongArrays(description, "none").bodies())


def _made_up_keys(_description: dict[str, Any]) -> Iterator[bytes]:
    for _ in range(MADE_UP_KEYS):
        yield post(_CHAT, b'{"model":"a","messages":[]}', new_secret(Role.TENANT).encode())


_CHAT, _CONTROL = "/v1/chat/completions", "/v1/model_aliases"
_chat, _keyed, _control = head(_CHAT), head(_CHAT, KEY), head(_CONTROL, KEY)
_TIMED_OUT = frozenset({408})
_UNKNOWN = frozenset({401, 429, 503})

_FLOODS = {
    "a header without end": HttpAttack(_all(HEALTH + b"x: "), more=PIECE),
    "headers without end": HttpAttack(_all(HEALTH), more=b"x: y\r\n" * 1000),
    "a URL without end": HttpAttack(_all(b"GET /health?"), more=PIECE),
    "trailers without end": HttpAttack(_all(_chat + CHUNKED + b"0\r\nx: "), more=PIECE),
    "a chunk extension without end": HttpAttack(_all(_chat + CHUNKED + b"5;x="), more=PIECE),
    "chunks with extensions": HttpAttack(_all(_chat + CHUNKED), more=b"1;x=" + PIECE + b"\r\na\r\n"),
    "chunks of one byte": HttpAttack(_all(_chat + CHUNKED), more=b"1\r\na\r\n" * 2000),
    "large headers": HttpAttack(_all(HEALTH + b"x: " + b"a" * 33_000 + b"\r\n\r\n")),
    "many headers": HttpAttack(_all(HEALTH + b"x: y\r\n" * 101 + b"\r\n")),
    "large URLs": HttpAttack(_all(GET % (b"/health?" + b"a" * 9_000) + b"\r\n")),
    "unclear requests": HttpAttack(_all(*SHAPES.values())),
    "pipelined requests": HttpAttack(_all((HEALTH + b"\r\n") * 16), frozenset({200}), answers=16),
    "pipelined requests without end": HttpAttack(
        _all(HEALTH + b"\r\n"), frozenset({200, 400}), more=(HEALTH + b"\r\n") * 1000
    ),
    "a connection for each request": HttpAttack(_all(HEALTH + b"connection: close\r\n\r\n"), frozenset({200})),
    "pages that take long to make": HttpAttack(
        _all(GET % b"/metrics" + b"\r\n", GET % b"/openapi.json" + b"\r\n"), frozenset({200})
    ),
    "unknown paths": HttpAttack(_all(GET % b"/v1/none" + b"\r\n")),
}
_KEYS = {
    "made-up keys": HttpAttack(_made_up_keys, _UNKNOWN, connections=32),
    "made-up keys from many addresses": HttpAttack(_made_up_keys, _UNKNOWN, connections=64, addresses=64),
}
_SLOW = {
    "slow headers": HttpAttack(_all(HEALTH + b"x: "), _TIMED_OUT, more=b"a", every_s=0.2, connections=400),
    "slow bodies": HttpAttack(
        _all(_keyed + b"content-length: 100000\r\n\r\n", _keyed + CHUNKED + b"1000\r\n"),
        _TIMED_OUT,
        more=b"a",
        every_s=0.2,
        connections=400,
    ),
    "slow reading": HttpAttack(
        _all((GET % b"/openapi.json" + b"\r\n") * 16), frozenset({200}), reads=False, connections=400
    ),
    "slow reading of streams": HttpAttack(
        _all(post(_CHAT, _STREAM % MODEL.encode(), KEY)), frozenset({200}), reads=False, connections=100, paid=True
    ),
    "10,000 connections": HttpAttack(
        _all(b"", HEALTH), frozenset({408, 503}), connections=CROWD, addresses=CROWD_ADDRESSES
    ),
}
_BODIES = {
    "bodies of 100 MB": HttpAttack(_all(_keyed + LARGE, _control + LARGE), more=PIECE * 4),
    "bodies of 100 MB in chunks": HttpAttack(
        _all(_keyed + CHUNKED, _control + CHUNKED), more=b"10000\r\n" + PIECE * 4 + b"\r\n"
    ),
    "bodies of 100 MB without a key": HttpAttack(_all(_chat + LARGE), more=PIECE * 4),
    "odd JSON": HttpAttack(_odd_json, connections=4),
    "long arrays": HttpAttack(_long_arrays, connections=4),
}
ATTACKS: Mapping[str, HttpAttack] = {**_FLOODS, **_KEYS, **_SLOW, **_BODIES}
