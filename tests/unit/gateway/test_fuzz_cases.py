"""The fuzz of the whole stack, as far as reading its bodies goes: each is read, or refused by name."""

from collections import Counter
from random import Random
from types import NoneType
from typing import get_type_hints

import pytest

from support.fuzz.bodies import FREE, PAID
from support.fuzz.cases import PATHS, fuzz_case
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.table import ENDPOINTS, Endpoint

CASES = 400
BODIES = 400
_PARSE = {endpoint.path: endpoint.parse for endpoint in ENDPOINTS}


def test_a_seed_is_a_case() -> None:
    assert [fuzz_case(seed, "m") for seed in range(20)] == [fuzz_case(seed, "m") for seed in range(20)]
    assert len({fuzz_case(seed, "m").body for seed in range(CASES)}) > CASES * 0.9


def test_every_endpoint_is_asked() -> None:
    assert set(PAID) == set(_PARSE)
    assert set(PATHS) == {*PAID, *FREE}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation)
def test_every_field_is_sent(endpoint: Endpoint) -> None:
    described = {name for name, type_ in get_type_hints(endpoint.body).items() if type_ is not NoneType}
    fields = described.intersection(endpoint.body.__struct_fields__) - {"model"}
    sent = {name for seed in range(BODIES) for name in PAID[endpoint.path](Random(seed))}
    assert fields - sent == set()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.operation)
def test_every_body_is_read_or_refused_by_name(endpoint: Endpoint) -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(CASES):
        case = fuzz_case(seed, "m", {endpoint.path: 1})
        try:
            body = endpoint.parse(case.body)
        except InvalidRequest as error:
            outcomes["refused"] += bool(error.message)
        else:
            outcomes["read"] += 1
            outcomes["streamed"] += bool(body.stream)
            outcomes["wide"] += body.choices > 1
            formats = ("response_format", "text", "output_config")
            outcomes["schema"] += any(getattr(body, name, None) is not None for name in formats)
    # Else the fuzz would try the gateway's reader, and hardly the engine.
    assert outcomes["read"] > CASES / 3, outcomes
    expected = ["refused"]
    if endpoint.event is not None:
        expected.append("streamed")
    if "n" in endpoint.body.__struct_fields__:
        expected.append("wide")
    assert min(outcomes[name] for name in expected) > CASES / 20, outcomes
    if endpoint.event is not None and "prompt" != endpoint.input:
        assert outcomes["schema"] > CASES / 40, outcomes
