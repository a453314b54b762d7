"""How a bounded thing is divided: one alone gets a share, many get less each, and somebody new finds a place."""

from hypothesis import given
from hypothesis import strategies as st

from tokenyard_deployments.serving.shares import Shares

SHARE = 10


def fill(shares: Shares, holder: str, amount: int = 1) -> int:
    """Take as often as it goes; return how much that was."""
    taken = 0
    while not shares.lacking(holder, amount):
        shares.take(holder, amount)
        taken += amount
    return taken


def test_one_alone_gets_a_share() -> None:
    assert fill(Shares(SHARE), "a") == SHARE


def test_two_that_take_turns_get_two_thirds_each() -> None:
    shares = Shares(SHARE)
    held = {"a": 0, "b": 0}
    for _ in range(SHARE):
        for holder in held:
            if not shares.lacking(holder, 1):
                shares.take(holder, 1)
                held[holder] += 1
    assert abs(held["a"] - held["b"]) <= 1
    assert sum(held.values()) in {2 * 6, 2 * 6 + 1, 2 * 6 + 2}


def test_a_newcomer_finds_room_for_one_large_request_beside_many_small_ones() -> None:
    shares = Shares(SHARE)
    fill(shares, "a")
    fill(shares, "b")
    assert shares.lacking("c", SHARE) == 0


def test_what_is_over_a_share_counts_as_one() -> None:
    shares = Shares(SHARE)
    assert shares.lacking("a", 1000) == 0
    shares.take("a", 1000)
    assert shares.total == SHARE
    assert shares.lacking("a", 1) > 0
    shares.give_back("a", 1000)
    assert shares.total == 0


def test_who_has_its_part_waits_for_itself_and_who_has_less_for_the_others() -> None:
    shares = Shares(SHARE)
    fill(shares, "a")
    assert shares.over_its_part("a", 1)
    shares.take("b", 1)
    assert not shares.over_its_part("b", 1)
    assert not shares.over_its_part("new", 1)


requests = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 2 * SHARE)), max_size=80)


@given(requests)
def test_no_one_gets_over_a_share_and_all_over_three(wanted: list[tuple[str, int]]) -> None:
    shares = Shares(SHARE)
    held: dict[str, int] = {}
    for holder, amount in wanted:
        if not shares.lacking(holder, amount):
            shares.take(holder, amount)
            held[holder] = held.get(holder, 0) + shares.counted(amount)
    assert all(amount <= SHARE for amount in held.values())
    assert shares.total == sum(held.values()) <= 3 * SHARE


@given(requests, st.tuples(st.sampled_from("abcdef"), st.integers(1, 2 * SHARE)))
def test_when_what_is_lacking_has_left_it_is_let_in(wanted: list[tuple[str, int]], newcomer: tuple[str, int]) -> None:
    shares = Shares(SHARE)
    inside = []
    for holder, amount in wanted:
        if not shares.lacking(holder, amount):
            shares.take(holder, amount)
            inside.append((holder, amount))
    holder, amount = newcomer
    lacking = shares.lacking(holder, amount)
    while lacking > 0:
        assert inside, "an empty house takes everybody"
        gone, gone_amount = inside.pop()
        lacking -= shares.gains(holder, gone_amount, own=gone == holder)
        shares.give_back(gone, gone_amount)
    assert shares.lacking(holder, amount) == 0
