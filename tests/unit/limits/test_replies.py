"""How limits are told to the user."""

import pytest

from support.fakes.admission_requests import admission_request, principal
from tokenyard.core.admission import RateHeaders, RateWindow, duration
from tokenyard.core.errors import RateLimited
from tokenyard.core.ids import OrganizationId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits
from tokenyard.limits.holds import checked_amount, limits_of
from tokenyard.limits.refusals import refusal


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (12, "12ms"), (1500, "1.5s"), (20_000, "20s"), (360_000, "6m0s"), (7_200_000, "2h0m0s")],
)
def test_durations_read_as_openais(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_only_limits_that_exist_have_headers() -> None:
    assert RateHeaders().headers() == {}
    assert RateHeaders(requests=RateWindow(3, 2, 1500)).headers() == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "1.5s",
    }


def test_a_refusal_names_limit_scope_and_usage() -> None:
    organization = OrganizationId("org_x")
    caller = principal(organization=Limits(requests_per_minute=3), organization_id=organization)
    request = admission_request(caller)
    error = refusal([b"rate", 0, 1, 3, 20_000, 3, 0, 60_000, -1, 0, 0], request, limits_of(request))
    assert isinstance(error, RateLimited)
    assert error.message == (
        "Rate limit reached for organization org_x on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 20s."
    )
    assert error.headers["retry-after"] == "20"
    assert error.headers["retry-after-ms"] == "20000"
    assert error.headers["x-ratelimit-reset-requests"] == "1m0s"
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")


@pytest.mark.parametrize("amount", [-1, 2**60 + 1])
def test_amounts_that_cannot_be_added_exactly_are_refused(amount: int) -> None:
    with pytest.raises(ValueError, match="nano-dollars"):
        checked_amount(NanoDollars(amount))
