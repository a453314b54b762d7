"""Whatever is due and under way: nobody has more at once than its bound, and nobody waits for another's."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tokenyard.webhooks.delivery.choice import OF_ENDPOINT, OF_ORGANIZATION, Candidate, choose


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    found = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=40))
    failing = draw(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 2))))
    return [
        Candidate(number, f"org{owner}", f"we{owner}{one}", (owner, one) in failing)
        for number, (owner, one) in enumerate(found)
    ]


@given(candidates(), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12))
def test_bounds_hold_and_nothing_that_could_go_waits(
    all_of_them: list[Candidate], split: int, free: int, free_for_failing: int
) -> None:
    under_way, due = all_of_them[:split], all_of_them[split:]
    chosen = choose(due, under_way, free=free, free_for_failing=free_for_failing)
    assert len(chosen) <= free
    assert sum(one.failing for one in chosen) <= free_for_failing
    assert [one for one in due if one in chosen] == chosen
    endpoints = Counter(one.endpoint for one in (*under_way, *chosen))
    owners = Counter(one.organization for one in (*under_way, *chosen))
    for one in chosen:
        assert endpoints[one.endpoint] <= (1 if one.failing else OF_ENDPOINT)
        assert owners[one.organization] <= OF_ORGANIZATION
    for one in due:
        if one not in chosen:
            assert (
                len(chosen) == free
                or endpoints[one.endpoint] >= (1 if one.failing else OF_ENDPOINT)
                or owners[one.organization] >= OF_ORGANIZATION
                or (one.failing and sum(other.failing for other in chosen) == free_for_failing)
            )
