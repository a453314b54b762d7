"""Whatever stands in a stream is an event of ours or malformed; none of it stops the consumer or another event."""

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from support.billing.stand import ACME, charges, claims, expired, reported, send, settled, trained, usage, worker
from tokenyard.core.ids import new_request_id
from tokenyard.core.redis_keys import bucket_of, usage_stream
from tokenyard.metering.events import UsageEvent, encode_event
from tokenyard.storage.database import Database
from tokenyard_billing.charging.validation import Malformed, read_event

BUCKET = bucket_of(ACME)
EVENTS: list[UsageEvent] = [
    settled(claims("req_a"), usage(10, 5, 4)),
    reported(claims("req_a"), usage(10, 5)),
    expired(claims("req_a", 2)),
    trained("ftjob-1", 5),
]
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["\x00", "req_a." + "9" * 4_400, "req_a.1", "x" * 300, "ftjob-1", "\u0661", "a.b.1"]),
)
NUMBERS = st.one_of(
    st.integers(-5, 5), st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400]), st.floats()
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [found for key, each in inner for found in places(each, (*path, key))]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Draw one of our events with something in it replaced, left out or added."""
    event = json.loads(encode_event(draw(st.sampled_from(EVENTS))))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(event) if path]))
        holder = event
        for key in path[:-1]:
            holder = holder[key]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(draw(VALUES))
        if not event:
            break
    return json.dumps(event).encode()


@st.composite
def cut(draw: st.DrawFn) -> bytes:
    """Draw one of our events with bytes of it replaced."""
    data = encode_event(draw(st.sampled_from(EVENTS)))
    start = draw(st.integers(0, len(data)))
    return data[:start] + draw(st.binary(max_size=6)) + data[draw(st.integers(start, len(data))) :]


NESTED = st.integers(1, 3_000).map(lambda depth: b'{"type":"settled","more":' + b"[" * depth)
DATA = st.one_of(mutated(), cut(), NESTED, VALUES.map(lambda value: json.dumps(value).encode()), st.binary())


@hypothesis_settings(max_examples=1_500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=DATA)
def test_it_is_an_event_of_ours_or_malformed(data: bytes) -> None:
    try:
        event = read_event({b"event": data}, BUCKET)
    except Malformed:
        return
    assert msgspec.json.decode(encode_event(event)) is not None


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(everything=st.lists(DATA, max_size=4))
async def test_nothing_stops_the_consumer(
    database: Database, redis: Redis, everything: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenyard_billing.charging.consumer.RETRY_MS", 0)
    await redis.delete(usage_stream(BUCKET))
    for data in everything:
        await redis.xadd(usage_stream(BUCKET), {"event": data})
    good = new_request_id()
    await send(redis, settled(claims(good), usage(1, 1)))
    stand = worker(database, redis)
    for _ in range(2):
        await stand.consumer.step()
    assert good in await charges(database)
