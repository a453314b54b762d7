"""What one process may let in by itself: a share of every limit, and a bounded amount of money."""

import pytest

from support.fakes.admission_requests import ORGANIZATION, admission_request, principal
from tokenyard.core.admission import AdmissionRequest
from tokenyard.core.ids import RequestId
from tokenyard.core.money import NanoDollars
from tokenyard.core.principal import Limits, LocalShare
from tokenyard.limits import local_share
from tokenyard.limits.holds import key_of
from tokenyard.limits.local_share import LocalGrants

FIFTH = LocalShare(percent=20, spend=NanoDollars(1_000))


class Stand:
    """Grants, and a clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0
        self.grants = LocalGrants(lambda: self.now_s)
        self.last = RequestId("")

    def ask(self, request: AdmissionRequest, share: LocalShare = FIFTH) -> bool:
        granted = self.grants.grant(request, share)
        if granted:
            self.last = key_of(request.claims)
        return granted

    def granted(self, request: AdmissionRequest, times: int, share: LocalShare = FIFTH) -> int:
        """Ask so often for the like of `request`; return how many were let in."""
        return sum(self.ask(admission_request(request.principal, amount=request.amount), share) for _ in range(times))


@pytest.fixture
def stand() -> Stand:
    return Stand()


@pytest.mark.parametrize("field", ["requests_per_minute", "requests_per_day", "concurrency"])
@pytest.mark.parametrize(("limit", "share"), [(10, 2), (14, 2), (4, 0), (0, 0)])
def test_a_share_of_a_limit_is_rounded_down(stand: Stand, field: str, limit: int, share: int) -> None:
    caller = principal(project=Limits(**{field: NanoDollars(limit)}))
    assert stand.granted(admission_request(caller), 20) == share


@pytest.mark.parametrize("field", ["tokens_per_minute", "tokens_per_day"])
def test_tokens_count_at_their_worst_case_until_the_request_ends(stand: Stand, field: str) -> None:
    caller = principal(key=Limits(**{field: NanoDollars(100)}))
    assert stand.ask(admission_request(caller, tokens=15))
    first = stand.last
    assert not stand.ask(admission_request(caller, tokens=6))
    stand.grants.end(first, tokens=14, cost=0)
    assert stand.ask(admission_request(caller, tokens=6))
    assert not stand.ask(admission_request(caller, tokens=1))


def test_the_narrowest_share_decides_and_a_refusal_takes_nothing(stand: Stand) -> None:
    narrow = principal(key=Limits(requests_per_minute=5), organization=Limits(requests_per_minute=15))
    wide = principal(organization=Limits(requests_per_minute=15))
    assert stand.granted(admission_request(narrow), 5) == 1
    assert stand.granted(admission_request(wide), 5) == 2


def test_a_window_forgets_and_a_slot_comes_back(stand: Stand) -> None:
    caller = principal(key=Limits(requests_per_minute=5, concurrency=10))
    assert stand.granted(admission_request(caller), 2) == 1
    stand.now_s += 65.0
    assert stand.granted(admission_request(caller), 2) == 1
    stand.now_s += 65.0
    assert stand.granted(admission_request(caller), 2) == 0, "two are still open"
    stand.grants.end(stand.last, tokens=0, cost=0)
    assert stand.granted(admission_request(caller), 2) == 1


def test_a_window_counts_all_of_its_last_part(stand: Stand) -> None:
    """A minute is counted in parts of five seconds: what came in at the end of one is counted for that minute."""
    caller = principal(key=Limits(requests_per_minute=5))
    stand.now_s += 4.9
    assert stand.ask(admission_request(caller))
    stand.now_s += 59.9
    assert not stand.ask(admission_request(caller))
    stand.now_s += 0.2
    assert stand.ask(admission_request(caller))


def test_open_requests_take_slots_until_they_end(stand: Stand) -> None:
    caller = principal(key=Limits(concurrency=5))
    assert stand.ask(admission_request(caller))
    first = stand.last
    assert not stand.ask(admission_request(caller))
    stand.grants.end(first, tokens=3, cost=0)
    stand.grants.end(first, tokens=3, cost=0)
    assert stand.granted(admission_request(caller), 3) == 1


def test_requests_cost_no_more_than_the_amount_in_all(stand: Stand) -> None:
    assert stand.granted(admission_request(principal(), amount=300), 9) == 3
    stand.grants.end(stand.last, tokens=5, cost=100)
    assert stand.granted(admission_request(principal(), amount=300), 9) == 1
    assert stand.ask(admission_request(principal(), amount=0)), "what costs nothing needs nothing"


def test_what_nobody_knows_the_cost_of_keeps_its_worst_case(stand: Stand) -> None:
    assert stand.ask(admission_request(principal(key=Limits(tokens_per_minute=100)), amount=900, tokens=20))
    stand.grants.end(stand.last, tokens=None, cost=None)
    assert not stand.ask(admission_request(principal(), amount=101))
    assert not stand.ask(admission_request(principal(key=Limits(tokens_per_minute=100)), amount=0, tokens=1))


def test_a_month_gives_no_more_than_its_limit(stand: Stand) -> None:
    bounded = principal(key=Limits(monthly_spend=NanoDollars(250)))
    assert stand.granted(admission_request(bounded, amount=100), 5) == 2
    assert not stand.ask(admission_request(principal(key=Limits(monthly_spend=NanoDollars(0))), amount=1))
    assert stand.granted(admission_request(principal(), amount=100), 20) == 8, "of the wallet"


def test_money_is_given_anew_only_where_nothing_was_granted_since(stand: Stand) -> None:
    request = admission_request(principal(), amount=1_000)
    assert stand.grants.ended(ORGANIZATION) is None
    assert stand.ask(request)
    assert stand.grants.ended(ORGANIZATION) is None, "it is open"
    stand.grants.end(stand.last, tokens=1, cost=1_000)
    assert stand.grants.ended(ORGANIZATION) == 1
    stand.grants.renew(ORGANIZATION, 0)
    assert not stand.ask(request)
    stand.grants.renew(ORGANIZATION, 1)
    assert stand.ask(request)


def test_windows_are_not_given_anew(stand: Stand) -> None:
    caller = principal(key=Limits(requests_per_minute=5))
    assert stand.ask(admission_request(caller))
    stand.grants.end(stand.last, tokens=0, cost=0)
    stand.grants.renew(ORGANIZATION, 1)
    stand.grants.forget()
    assert not stand.ask(admission_request(caller))


def test_no_more_scopes_are_kept_than_a_bound(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_share, "MAX_SCOPES", 1)
    first = principal(key=Limits(requests_per_minute=50))
    other = principal(project=Limits(requests_per_minute=50))
    assert stand.ask(admission_request(first))
    assert not stand.ask(admission_request(other))
    stand.now_s += 27 * 3600
    stand.grants.forget()
    assert not stand.ask(admission_request(other)), "the first is open still"
    stand.grants.end(stand.last, tokens=0, cost=0)
    stand.grants.forget()
    assert stand.ask(admission_request(other))
