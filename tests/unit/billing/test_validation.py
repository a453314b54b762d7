"""What can never be taken in is known at once; everything else passes."""

import msgspec
import pytest

from support.billing.stand import ACME, claims, expired, hosted, kept, reported, settled, trained, usage
from tokenyard.core.ids import ApiKeyId, AttemptId, OrganizationId
from tokenyard.core.redis_keys import bucket_of
from tokenyard.core.usage import MeterClaims
from tokenyard.metering.events import UsageEvent, encode_event
from tokenyard_billing.charging.validation import Malformed, read_event


def attempted(attempt: str) -> MeterClaims:
    return msgspec.structs.replace(claims("req_a"), attempt=AttemptId(attempt))


GOOD = [
    settled(claims("req_a"), usage(10, 5, 10)),
    reported(claims("req_a"), usage(0, 0)),
    settled(claims("req_a", end_user="é" * 256), usage(1, 1)),
    expired(claims("req_a", 12)),
    trained("ftjob-1", 0),
    hosted("ad_1"),
    kept(1),
]
BAD: list[tuple[UsageEvent, str]] = [
    (settled(claims("req_a"), usage(1, -1)), "completion_tokens"),
    (settled(claims("req_a"), usage(-1, 1, -1)), "prompt_tokens"),
    (reported(claims("req_a"), usage(1, 10**12 + 1)), "completion_tokens"),
    (reported(claims("req_a"), usage(1, 1, 2)), "more cached"),
    (settled(attempted("req_a"), usage(1, 1)), "not an attempt"),
    (settled(attempted("req_a.0"), usage(1, 1)), "not an attempt"),
    (settled(attempted("req_a.x"), usage(1, 1)), "not an attempt"),
    (settled(attempted("req_a." + "1" * 5_000), usage(1, 1)), "attempt is empty, too long"),
    (msgspec.structs.replace(reported(claims("req_a"), usage(1, 1)), replica="r" * 257), "replica"),
    (settled(claims("req_a", weight=0), usage(1, 1)), "weight"),
    (settled(claims("req_a", server="s" * 257), usage(1, 1)), "server"),
    (settled(claims("req_a", server="s\x00"), usage(1, 1)), "server"),
    (msgspec.structs.replace(settled(claims("req_a"), usage(1, 1)), settled_at_ms=2**63), "settled_at_ms"),
    (msgspec.structs.replace(expired(claims("req_a")), expired_at_ms=-1), "expired_at_ms"),
    (settled(claims("req_a", budgets=("b",) * 65), usage(1, 1)), "65 budgets"),
    (settled(claims("r" * 100), usage(1, 1)), "attempt"),
    (settled(claims("req_a", model="m" * 257), usage(1, 1)), "model"),
    (settled(claims("req_a", project=""), usage(1, 1)), "project"),
    (settled(claims("req_a", key="key\x00"), usage(1, 1)), "key"),
    (settled(claims("req_a", budgets=("b" * 257,)), usage(1, 1)), "budgets"),
    (settled(claims("req_a", end_user="u" * 257), usage(1, 1)), "end_user"),
    (reported(claims("req_a", end_user="u\x00"), usage(1, 1)), "end_user"),
    (expired(claims("req_a", admitted_at_ms=0)), "admitted_at_ms"),
    (expired(claims("req_a", admitted_at_ms=10**15)), "admitted_at_ms"),
    (trained("ftjob-1", -1), "trained_tokens"),
    (trained("", 1), "job"),
    (kept(0), "number"),
    (kept(10**10), "number"),
    (kept(1, organization=OrganizationId("o" * 80)), "organization"),
    (msgspec.structs.replace(kept(1), key=ApiKeyId("key_1")), "no model, project or key"),
    (msgspec.structs.replace(kept(1), model="m"), "no model, project or key"),
    (msgspec.structs.replace(kept(1), admitted_at_ms=1), "no hour"),
    (msgspec.structs.replace(kept(1), budgets=("b",)), "claims"),
    (hosted(""), "adapter"),
    (hosted("a" * 90), "adapter"),
    (hosted("ad_1", model=""), "model"),
    (msgspec.structs.replace(hosted("ad_1"), admitted_at_ms=1), "no hour"),
    (msgspec.structs.replace(hosted("ad_1"), budgets=("b",)), "claims"),
]


def read(event: UsageEvent) -> UsageEvent:
    return read_event({b"event": encode_event(event)}, bucket_of(ACME))


@pytest.mark.parametrize("event", GOOD)
def test_an_event_of_ours_passes(event: UsageEvent) -> None:
    assert read(event) == event


@pytest.mark.parametrize(("event", "complaint"), BAD)
def test_an_impossible_event_is_malformed(event: UsageEvent, complaint: str) -> None:
    with pytest.raises(Malformed, match=complaint):
        read(event)


NESTED = b'{"type":"settled","more":' + b"[" * 100_000
NO_UTF8 = b'{"type":"settled","claims":{"organization":"\x80"}}'


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"type":"settled"}', b"\xff\xfe", NO_UTF8, NESTED])
def test_what_is_no_event_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_event({b"event": data}, bucket_of(ACME))


def test_another_buckets_event_is_malformed() -> None:
    event = settled(claims("req_a"), usage(1, 1))
    with pytest.raises(Malformed, match="does not live"):
        read_event({b"event": encode_event(event)}, (bucket_of(ACME) + 1) % 64)
