"""The fuzz of the whole stack, as far as reading its bodies goes: each is read, or refused by name."""

from collections import Counter

from support.fuzz.cases import fuzz_case
from tokenyard.core.errors import InvalidRequest
from tokenyard.gateway.endpoints.table import ENDPOINTS

CASES = 400
_PARSE = {endpoint.path: endpoint.parse for endpoint in ENDPOINTS}


def test_a_seed_is_a_case() -> None:
    assert [fuzz_case(seed, "m") for seed in range(20)] == [fuzz_case(seed, "m") for seed in range(20)]
    assert len({fuzz_case(seed, "m").body for seed in range(CASES)}) > CASES * 0.9


def test_every_body_is_read_or_refused_by_name() -> None:
    outcomes: Counter[str] = Counter()
    for seed in range(CASES):
        case = fuzz_case(seed, "m")
        try:
            body = _PARSE[case.path](case.body)
        except InvalidRequest as error:
            outcomes["refused"] += bool(error.message)
        else:
            outcomes["read"] += 1
            outcomes["streamed"] += bool(body.stream)
            outcomes["wide"] += body.choices > 1
            outcomes["schema"] += getattr(body, "response_format", None) is not None
    # Else the fuzz would try the gateway's reader, and hardly the engine.
    assert outcomes["read"] > CASES / 3
    assert min(outcomes["refused"], outcomes["streamed"], outcomes["wide"], outcomes["schema"]) > CASES / 20, outcomes
